"""Which blobs there are, and in which repositories."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, select

from ocispec.digest import Digest
from policy.model import State
from registry.catalogue.database import insert_new
from registry.catalogue.schema import blobs, images, manifests, references, repositories, repository_blobs

STARTING: Final = tuple(str(state) for state in State if state.may_start)
"""The states in which hosts are served an image, as the catalogue spells them."""

_SIZE: Final = (
    select(blobs.c.size)
    .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
    .where(repository_blobs.c.repository == bindparam("repository"), repository_blobs.c.digest == bindparam("digest"))
)

_STATES: Final = (
    select(images.c.state, images.c.reason, images.c.message, images.c.decision)
    .select_from(references)
    .join(
        manifests,
        (manifests.c.repository == references.c.repository) & (manifests.c.digest == references.c.manifest),
    )
    .outerjoin(
        images,
        (images.c.repository == manifests.c.repository)
        & (images.c.digest == func.coalesce(manifests.c.state_of, manifests.c.digest)),
    )
    .where(references.c.repository == bindparam("repository"), references.c.digest == bindparam("digest"))
    .order_by(images.c.state.in_(STARTING).desc())
    .limit(1)
)


def ensure_repository(conn: Connection, name: str, *, by: str, now: datetime) -> bool:
    """Make a repository if there is none of that name; True if it was made."""
    return insert_new(conn, repositories, name=name, created=now, created_by=by)


def blob_size(conn: Connection, repository: str, digest: Digest) -> int | None:
    """The size in bytes of a blob of this repository, or None."""
    return conn.scalar(_SIZE, {"repository": repository, "digest": digest})


def add_blob(conn: Connection, repository: str, digest: Digest, size: int, *, by: str, now: datetime) -> None:
    """Record that the store holds a blob, and that it is in this repository."""
    ensure_repository(conn, repository, by=by, now=now)
    insert_new(conn, blobs, digest=digest, size=size, created=now)
    insert_new(conn, repository_blobs, repository=repository, digest=digest, added=now, added_by=by)


def remove_blob(conn: Connection, repository: str, digest: Digest) -> bool:
    """Take a blob out of this repository; False if it was not there. Its bytes stay for garbage collection."""
    table = repository_blobs
    return bool(conn.execute(delete(table).where(table.c.repository == repository, table.c.digest == digest)).rowcount)


def manifest_using(conn: Connection, repository: str, digest: Digest) -> Digest | None:
    """One manifest of this repository that refers to `digest`, or None."""
    return conn.scalar(
        select(references.c.manifest)
        .where(references.c.repository == repository, references.c.digest == digest)
        .limit(1)
    )


def repositories_with(conn: Connection, digest: Digest) -> tuple[str, ...]:
    """The repositories that hold a blob, by name."""
    table = repository_blobs
    return tuple(
        conn.scalars(
            select(table.c.repository).where(table.c.digest == digest).order_by(table.c.repository).limit(1000)
        )
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """The best state of any manifest that reaches a blob: with its reason, its sentence and the Decision behind it."""

    state: State
    reason: str
    message: str
    decision: Digest | None


def best_state(conn: Connection, repository: str, digest: Digest) -> Reached | None:
    """The best state of any manifest in this repository that reaches a blob; None where none has a state."""
    row = conn.execute(_STATES, {"repository": repository, "digest": digest}).first()
    if row is None or row.state is None:
        return None
    return Reached(state=State(row.state), reason=row.reason, message=row.message, decision=row.decision)
