"""Blobs that the registry itself needs, in no repository: advisory data. Whatever is held is not collected."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, delete, select

from ocispec.digest import Digest
from registry.catalogue.database import insert_new, put_row
from registry.catalogue.leases import Lease, end_lease, hold_digest
from registry.catalogue.schema import blobs, holds


def hold(
    conn: Connection, holder: str, digest: Digest, size: int, *, now: datetime, lease: Lease | None = None
) -> None:
    """Have `holder` hold a blob that the store has; what it held before it holds no more.

    It was stored under `lease`, which ends; or in this very transaction, after `hold_digest`.

    Raises:
        LeaseLostError, BlobBusyError: its bytes may be gone again.
    """
    hold_digest(conn, digest)
    if lease is not None:
        end_lease(conn, lease)
    insert_new(conn, blobs, digest=digest, size=size, created=now)
    put_row(conn, holds, holder=holder, digest=digest)


def held(conn: Connection, holder: str) -> Digest | None:
    """What `holder` holds."""
    return conn.scalar(select(holds.c.digest).where(holds.c.holder == holder))


def let_go(conn: Connection, holder: str) -> None:
    """Have `holder` hold nothing."""
    conn.execute(delete(holds).where(holds.c.holder == holder))
