"""Advisory data in the catalogue: what was handed in and is current, the snapshot in use, how the last import ended.

Uploads and the snapshot are blobs of the store, so that every registry on this catalogue has the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection, select, update

from ocispec.digest import Digest
from registry.catalogue.database import put_row
from registry.catalogue.holds import held, hold, let_go
from registry.catalogue.leases import Lease
from registry.catalogue.schema import advisories, meta

SNAPSHOT: Final = "snapshot"
"""The kind of an upload that is a whole snapshot file, made elsewhere."""

_IN_USE: Final = "advisories in use"
_IMPORT: Final = "advisory-import"
_NEWEST: Final = "advisory-newest"
MAX_DETAIL: Final = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """A file that was handed in; `size` in bytes, `by` an account."""

    digest: Digest
    kind: str
    name: str
    size: int
    by: str
    received: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LastImport:
    """How the newest import ended: `imported`, or `failed` and why, while the data before it stay in use."""

    state: str
    at: datetime
    detail: str


def add_upload(conn: Connection, upload: Upload, *, lease: Lease | None = None) -> None:
    """Record an upload that the store holds; it replaces that of its kind and name, a snapshot all before it.

    Raises:
        LeaseLostError, BlobBusyError: as `holds.hold`.
    """
    table = advisories
    same = (table.c.kind == upload.kind) & (table.c.name == upload.name)
    replaced = table.c.current if upload.kind == SNAPSHOT else same
    for row in conn.execute(select(table.c.kind, table.c.name).where(table.c.current, replaced)).all():
        let_go(conn, _holder(row.kind, row.name))
    conn.execute(update(table).where(replaced).values(current=False))
    hold(conn, _holder(upload.kind, upload.name), upload.digest, upload.size, now=upload.received, lease=lease)
    put_row(
        conn,
        table,
        digest=upload.digest,
        kind=upload.kind,
        name=upload.name,
        date=upload.received,
        records=0,
        imported=upload.received,
        imported_by=upload.by,
        current=True,
    )


class Current(NamedTuple):
    """Something to import, and when it was handed in."""

    digest: Digest
    kind: str
    name: str
    received: datetime


def current_uploads(conn: Connection) -> tuple[Current, ...]:
    """What to import: the newest snapshot alone, if nothing is newer, else all sources."""
    rows = conn.execute(select(advisories).where(advisories.c.current).order_by(advisories.c.imported)).all()
    found = [Current(row.digest, str(row.kind), str(row.name), row.imported) for row in rows]
    if found and found[-1].kind == SNAPSHOT:
        return (found[-1],)
    return tuple(each for each in found if each.kind != SNAPSHOT)


def snapshot_in_use(conn: Connection) -> Digest | None:
    """The snapshot that every judge is to match by; None before the first import."""
    return held(conn, _IN_USE)


def use_snapshot(conn: Connection, digest: Digest, size: int, *, now: datetime, lease: Lease | None = None) -> None:
    """Have every judge match by a snapshot that the store holds.

    Raises:
        LeaseLostError, BlobBusyError: as `holds.hold`.
    """
    hold(conn, _IN_USE, digest, size, now=now, lease=lease)


def newest_records(conn: Connection) -> dict[str, str]:
    """For each source that was ever imported and has times, that of its newest record (RFC 3339, UTC): a floor."""
    value = conn.scalar(select(meta.c.value).where(meta.c.name == _NEWEST))
    return dict(json.loads(value)) if value is not None else {}


def note_newest(conn: Connection, found: Mapping[str, str]) -> None:
    """Raise the floors to what was imported."""
    floors = newest_records(conn)
    put_row(conn, meta, name=_NEWEST, value=json.dumps(floors | dict(found), sort_keys=True))


def forget_newest(conn: Connection, upload: Upload) -> None:
    """Let what is about to be imported be older than what was: of its name, or, of a whole snapshot, of all names."""
    floors = {} if upload.kind == SNAPSHOT else newest_records(conn)
    floors.pop(upload.name, None)
    put_row(conn, meta, name=_NEWEST, value=json.dumps(floors, sort_keys=True))


def note_import(conn: Connection, state: str, *, at: datetime, detail: str = "") -> None:
    """Record how an import ended."""
    value = json.dumps({"state": state, "at": int(at.timestamp()), "detail": detail[:MAX_DETAIL].replace("\0", "?")})
    put_row(conn, meta, name=_IMPORT, value=value)


def last_import(conn: Connection) -> LastImport | None:
    """How the newest import ended; None before the first."""
    value = conn.scalar(select(meta.c.value).where(meta.c.name == _IMPORT))
    if value is None:
        return None
    found = json.loads(value)  # our own text
    return LastImport(state=found["state"], at=datetime.fromtimestamp(found["at"], UTC), detail=found["detail"])


def _holder(kind: str, name: str) -> str:
    return f"advisories {kind} {name}"
