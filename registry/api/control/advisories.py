"""Advisory, exploit and end-of-life data: handed in as files, imported by the judge.

| endpoint | who |
| --- | --- |
| POST /api/v1/advisories?kind=osv|kev|endoflife|snapshot&name= | scanner, admin |
| GET /api/v1/advisories | scanner, officer, auditor, admin |

An upload replaces the one of the same kind and name before it; a snapshot (made by `pratique advisories import`)
replaces all that came before.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
from pathlib import Path
from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import Connection, select, update

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from policy.times import format_time
from registry.access import Role
from registry.api.base import json_response
from registry.api.body import Body, announced
from registry.api.control.shared import require_role
from registry.audit import Event
from registry.catalogue.database import put_row
from registry.catalogue.schema import advisories
from registry.context import caller, context, source
from registry.errors import StorageError, UnsupportedRequestError
from registry.judge.importing import KINDS, SNAPSHOT, AdvisoryFolder
from registry.judge.jobs import JobKind, enqueue
from registry.places import Places

blueprint = Blueprint("advisories", __name__)

MAX_UPLOAD: Final = 8 * 1024**3
"""Bytes of one upload: the export of every ecosystem has about 1 GB."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 :._+-]{0,99}", re.ASCII)


@blueprint.post("/api/v1/advisories")
def post_advisories() -> Response:
    """Take a file, and have it imported; the answer does not wait for that."""
    require_role(Role.SCANNER, Role.ADMIN)
    kind, name = request.args.get("kind", ""), request.args.get("name", "")
    if kind not in KINDS:
        raise UnsupportedRequestError(f"kind: got {kind[:40]!r}, expected one of {', '.join(KINDS)}")
    name = name or kind
    if _NAME.fullmatch(name) is None:
        raise UnsupportedRequestError(f"name: got {name[:80]!r}, expected letters, digits, blanks and :._+-")
    folder = AdvisoryFolder(root=Places(context().settings).advisories)
    digest, size = _receive(folder, kind)
    with context().catalogue.write() as conn:
        _record(conn, digest, kind, name, size)
    context().judge.wake()
    response = json_response({"digest": str(digest), "kind": kind, "name": name, "bytes": size})
    response.status_code = 202
    return response


def _receive(folder: AdvisoryFolder, kind: str) -> tuple[Digest, int]:
    """The body, in `incoming/` under its digest."""
    partial = folder.root / "incoming" / f".{secrets.token_hex(16)}"
    digest, size = hashlib.sha256(), 0
    try:
        with partial.open("wb") as file:
            for chunk in Body(limit=MAX_UPLOAD, length=announced()).to_the_end():
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        found = Digest("sha256", digest.hexdigest())
        partial.replace(folder.incoming(found, kind))
    except OSError as error:
        raise StorageError(f"advisory data: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
    return found, size


def _record(conn: Connection, digest: Digest, kind: str, name: str, size: int) -> None:
    now, principal, table = context().clock(), caller(), advisories
    replaced = table.c.current if kind == SNAPSHOT else (table.c.kind == kind) & (table.c.name == name)
    conn.execute(update(table).where(replaced).values(current=False))
    put_row(
        conn,
        table,
        digest=digest,
        kind=kind,
        name=name,
        date=now,
        records=0,
        imported=now,
        imported_by=principal.name,
        current=True,
    )
    context().audit.append(
        conn,
        Event.ADVISORIES,
        principal=principal.name,
        source=source(),
        subject=f"{kind} {name}",
        after=f"{digest} of {size} bytes",
    )
    enqueue(conn, JobKind.ADVISORIES, now=now)


@blueprint.get("/api/v1/advisories")
def get_advisories() -> Response:
    """What is in use: names, dates, counts, digests."""
    require_role(Role.SCANNER, Role.OFFICER, Role.AUDITOR, Role.ADMIN)
    with context().catalogue.read() as conn:
        rows = conn.execute(select(advisories).where(advisories.c.current).order_by(advisories.c.name)).all()
    sources: list[JsonValue] = [
        {
            "kind": row.kind,
            "name": row.name,
            "digest": str(row.digest),
            "date": format_time(row.date),
            "records": row.records,
            "received": format_time(row.imported),
            "by": row.imported_by,
        }
        for row in rows
    ]
    folder = AdvisoryFolder(root=Places(context().settings).advisories)
    return json_response({"sources": sources, "snapshot": _is_file(folder.snapshot)})


def _is_file(path: Path) -> bool:
    return path.is_file()
