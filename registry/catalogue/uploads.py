"""Records of upload sessions: how far each has come, whose it is, and which request holds it."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, func, or_, select, update

from registry.catalogue.database import insert_row
from registry.catalogue.schema import uploads
from registry.errors import TooManyRequestsError, UploadBusyError, UploadUnknownError
from registry.store.interface import Upload

HOLD: Final = timedelta(seconds=60)
"""How long a request holds a session without renewing; one that died blocks it for so long."""


def check_sessions(conn: Connection, account: str, *, most: int) -> None:
    """Check that an account may begin another session.

    Raises:
        TooManyRequestsError: it has as many open as it may.
    """
    having = conn.scalar(select(func.count()).select_from(uploads).where(uploads.c.account == account)) or 0
    if having >= most:
        raise TooManyRequestsError(f"account {account}: {having} uploads are open, expected at most {most}")


def add_upload(conn: Connection, upload: Upload, *, repository: str, account: str, now: datetime) -> None:
    """Record a new session."""
    insert_row(
        conn,
        uploads,
        id=upload.id,
        repository=repository,
        account=account,
        size=upload.size,
        digest=upload.digest,
        parts=upload.parts,
        started=now,
        touched=now,
    )


def find_upload(conn: Connection, upload_id: str, *, repository: str, account: str) -> Upload:
    """The session of that id, in that repository, of that account.

    Raises:
        UploadUnknownError: there is none; a session of somebody else is as unknown as none.
    """
    row = conn.execute(
        select(uploads).where(
            uploads.c.id == upload_id, uploads.c.repository == repository, uploads.c.account == account
        )
    ).first()
    if row is None:
        raise UploadUnknownError(f"upload {upload_id[:80]!r}: not known in {repository}")
    return Upload(id=row.id, size=row.size, digest=row.digest, parts=row.parts)


def bytes_under_way(conn: Connection, account: str) -> int:
    """What an account has sent to sessions that are still open, as far as requests that ended brought it."""
    return int(conn.scalar(select(func.coalesce(func.sum(uploads.c.size), 0)).where(uploads.c.account == account)) or 0)


def hold_upload(
    conn: Connection, upload_id: str, *, repository: str, account: str, now: datetime
) -> tuple[Upload, str]:
    """Make the calling request the only one that may write a session; returns it with the holder's token.

    Raises:
        UploadUnknownError: as for `find_upload`.
        UploadBusyError: another request holds it.
    """
    upload = find_upload(conn, upload_id, repository=repository, account=account)
    holder = secrets.token_hex(16)
    free = or_(uploads.c.holder == "", uploads.c.held_until < now)
    done = conn.execute(
        update(uploads).where(uploads.c.id == upload_id, free).values(holder=holder, held_until=now + HOLD)
    )
    if not done.rowcount:
        raise UploadBusyError(f"upload {upload_id}: another request is sending to it")
    return upload, holder


def renew_upload(conn: Connection, upload_id: str, holder: str, *, now: datetime) -> None:
    """Go on holding a session.

    Raises:
        UploadBusyError: it was taken over.
    """
    done = conn.execute(
        update(uploads).where(uploads.c.id == upload_id, uploads.c.holder == holder).values(held_until=now + HOLD)
    )
    if not done.rowcount:
        raise UploadBusyError(f"upload {upload_id}: another request took it over")


def release_upload(conn: Connection, upload: Upload, holder: str, *, now: datetime) -> None:
    """Record how far a held session has come, and let go of it.

    Raises:
        UploadBusyError: it was taken over; what was written meanwhile does not count.
    """
    done = conn.execute(
        update(uploads)
        .where(uploads.c.id == upload.id, uploads.c.holder == holder)
        .values(size=upload.size, digest=upload.digest, parts=upload.parts, touched=now, holder="", held_until=None)
    )
    if not done.rowcount:
        raise UploadBusyError(f"upload {upload.id}: another request took it over")


def forget_upload(conn: Connection, upload_id: str) -> None:
    """Remove a session's record."""
    conn.execute(delete(uploads).where(uploads.c.id == upload_id))


def old_uploads(conn: Connection, before: datetime) -> tuple[str, ...]:
    """The sessions that were last written to before then and that nobody holds."""
    free = or_(uploads.c.holder == "", uploads.c.held_until < before)
    return tuple(conn.scalars(select(uploads.c.id).where(uploads.c.touched < before, free)))


def free_uploads(conn: Connection) -> None:
    """Let go of all sessions: at the start of the only registry on a catalogue, whose requests are all over."""
    conn.execute(update(uploads).values(holder="", held_until=None))
