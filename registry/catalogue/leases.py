"""Leases on digests, and the mark of what is being deleted: how storing and deleting keep out of each other's way.

- Whoever puts the bytes of a digest into the store has a lease on it, from before the first byte until the
  transaction that records the blob, and that ends the lease. Where the bytes are put inside a writing transaction, the
  digest is held by the transaction instead (`hold_digest`).
- Bytes are deleted only after the blob's row was marked, in a transaction that found no repository with it and no
  lease; a lease that is past its end is removed there, so its holder learns of it when it comes to record the blob.
- A marked digest is neither leased nor recorded nor mounted until its row is gone.

So nothing depends on clocks: they only say when a holder is taken for dead. docs/adr/0110 has the whole of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final

from sqlalchemy import ColumnElement, Connection, bindparam, delete, exists, or_, select, update

from ocispec.digest import Digest
from registry.catalogue.database import insert_new, insert_row
from registry.catalogue.locks import hold_name, take_name
from registry.catalogue.schema import blobs, collections, holds, leases, repository_blobs
from registry.errors import BlobBusyError, LeaseLostError

_DELETING: Final = select(blobs.c.deleting).where(blobs.c.digest == bindparam("wanted"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A lease that somebody holds."""

    digest: Digest
    id: str


class Mark(Enum):
    """What came of the attempt to mark a digest; everything but MARKED leaves it as it is."""

    MARKED = "marked"
    HELD = "held"
    """A repository or the registry itself has it, or it came to be known."""
    LEASED = "leased"
    BUSY = "busy"
    """Another transaction is at work on it."""
    GONE = "gone"


def is_deleting(conn: Connection, digest: Digest) -> bool:
    """True while the bytes of a digest are being deleted."""
    return conn.scalar(_DELETING, {"wanted": digest}) is not None


def hold_digest(conn: Connection, digest: Digest) -> None:
    """Have a digest not deleted before this writing transaction ends.

    Raises:
        BlobBusyError: it is being deleted right now; to be tried again in another transaction.
    """
    hold_name(conn, _name(digest))
    if is_deleting(conn, digest):
        raise BlobBusyError(f"blob {digest}: is being deleted right now; to be sent again in a moment")


def add_lease(conn: Connection, digest: Digest, *, why: str, until: datetime) -> Lease | None:
    """Take a lease on a digest, which others may hold too; None while it is being deleted."""
    hold_name(conn, _name(digest))
    if is_deleting(conn, digest):
        return None
    lease = Lease(digest=digest, id=secrets.token_hex(16))
    insert_row(conn, leases, digest=digest, id=lease.id, until=until, why=why)
    return lease


def renew_lease(conn: Connection, lease: Lease, *, until: datetime) -> None:
    """Go on holding a lease.

    Raises:
        LeaseLostError: it was past its end, and the collector has removed it.
    """
    if not conn.execute(update(leases).where(*_this(lease)).values(until=until)).rowcount:
        raise _lost(lease)


def end_lease(conn: Connection, lease: Lease) -> None:
    """Give a lease up, in the transaction that records what was stored under it, or because nothing was.

    Raises:
        LeaseLostError: the collector has removed it: what was stored under it may be deleted already.
    """
    if not conn.execute(delete(leases).where(*_this(lease))).rowcount:
        raise _lost(lease)


def forget_leases(conn: Connection, before: datetime) -> int:
    """Remove the leases that ended before then: their holders are long dead; returns how many."""
    return int(conn.execute(delete(leases).where(leases.c.until < before)).rowcount)


# ---- deleting -------------------------------------------------------------------------------------------------------


def mark_deleting(conn: Connection, digest: Digest, *, run: str, now: datetime) -> Mark:
    """Mark a recorded blob that nobody needs: from then on this attempt at a `run` may delete its bytes."""
    if not take_name(conn, _name(digest)):
        return Mark.BUSY
    row = conn.execute(select(blobs.c.deleting).where(blobs.c.digest == digest)).first()
    if row is None:
        return Mark.GONE
    if row.deleting is not None:
        return Mark.BUSY
    held = or_(exists().where(repository_blobs.c.digest == digest), exists().where(holds.c.digest == digest))
    if conn.scalar(select(held)):
        return Mark.HELD
    if not _end_dead_leases(conn, digest, now):
        return Mark.LEASED
    conn.execute(update(blobs).where(blobs.c.digest == digest).values(deleting=now, deleting_by=run))
    return Mark.MARKED


def mark_orphan(conn: Connection, digest: Digest, size: int, *, run: str, now: datetime) -> Mark:
    """Mark a digest whose bytes are in the store and that the catalogue does not know."""
    if not take_name(conn, _name(digest)):
        return Mark.BUSY
    if conn.scalar(select(exists().where(blobs.c.digest == digest))):
        return Mark.HELD
    if not _end_dead_leases(conn, digest, now):
        return Mark.LEASED
    new = insert_new(conn, blobs, digest=digest, size=size, created=now, deleting=now, deleting_by=run)
    return Mark.MARKED if new else Mark.HELD


def take_over(conn: Connection, digest: Digest, *, run: str, now: datetime) -> bool:
    """Go on with a deletion that a run began which is over; False if there is none."""
    others = (collections.c.state == "running", collections.c.attempt != run)
    going = select(collections.c.attempt).where(*others)
    left = (blobs.c.digest == digest, blobs.c.deleting.is_not(None), blobs.c.deleting_by.not_in(going))
    return bool(conn.execute(update(blobs).where(*left).values(deleting=now, deleting_by=run)).rowcount)


def forget_deleted(conn: Connection, digests: Sequence[Digest], *, run: str) -> None:
    """Remove the rows of blobs whose bytes are gone; whoever waits may store them anew."""
    mine = (blobs.c.digest.in_(digests), blobs.c.deleting.is_not(None), blobs.c.deleting_by == run)
    conn.execute(delete(blobs).where(*mine))


def _end_dead_leases(conn: Connection, digest: Digest, now: datetime) -> bool:
    """Remove the leases on a digest, if all of them are past their end; False if one is not."""
    if conn.scalar(select(exists().where(leases.c.digest == digest, leases.c.until >= now))):
        return False
    conn.execute(delete(leases).where(leases.c.digest == digest))
    return True


def _this(lease: Lease) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return leases.c.digest == lease.digest, leases.c.id == lease.id


def _name(digest: Digest) -> str:
    return f"blob {digest}"


def _lost(lease: Lease) -> LeaseLostError:
    return LeaseLostError(f"blob {lease.digest}: storing it took longer than was waited for; to be sent again")
