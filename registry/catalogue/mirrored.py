"""What another registry last said of what is a copy of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from sqlalchemy import Connection, delete, select, tuple_

from registry.catalogue.database import put_row
from registry.catalogue.schema import mirrored


class Said(StrEnum):
    """The other registry has it (and we have it now), has it not, or could not be asked."""

    FOUND = "found"
    MISSING = "missing"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """How the last look for a tag or digest ended, and when; `detail` is one sentence where it failed."""

    said: Said
    checked: datetime
    detail: str


def last_lookup(conn: Connection, repository: str, reference: str) -> Lookup | None:
    """How the last look for `reference` (a tag or digest) ended; None if there was none."""
    where = (mirrored.c.repository == repository, mirrored.c.reference == reference)
    row = conn.execute(select(mirrored).where(*where)).first()
    return Lookup(said=Said(row.said), checked=row.checked, detail=row.detail) if row is not None else None


def note_lookup(conn: Connection, repository: str, reference: str, lookup: Lookup) -> None:
    """Record how a look ended."""
    put_row(
        conn,
        mirrored,
        repository=repository,
        reference=reference,
        said=str(lookup.said),
        checked=lookup.checked,
        detail=lookup.detail[:2000].replace("\0", "?"),
    )


def forget_lookups(conn: Connection, *, before: datetime, limit: int) -> int:
    """Remove at most `limit` of the looks that ended before then; returns how many."""
    key = tuple_(mirrored.c.repository, mirrored.c.reference)
    old = select(mirrored.c.repository, mirrored.c.reference).where(mirrored.c.checked < before)
    found = conn.execute(old.order_by(mirrored.c.checked).limit(limit)).all()
    if not found:
        return 0
    these = key.in_([(row.repository, row.reference) for row in found])
    return int(conn.execute(delete(mirrored).where(these, mirrored.c.checked < before)).rowcount)
