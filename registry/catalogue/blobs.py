"""Which blobs there are, and in which repositories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, delete, exists, func, or_, select, update

from ocispec.digest import Digest
from policy.model import State
from registry.catalogue.database import insert_new
from registry.catalogue.leases import Lease, end_lease, hold_digest
from registry.catalogue.schema import blobs, images, manifests, references, repositories, repository_blobs
from registry.catalogue.usage import count
from registry.errors import BlobBusyError
from registry.rules import Amount

STARTING: Final = tuple(str(state) for state in State if state.may_start)
"""The states in which hosts are served an image, as the catalogue spells them."""

_SIZE: Final = (
    select(blobs.c.size)
    .join(repository_blobs, repository_blobs.c.digest == blobs.c.digest)
    .where(repository_blobs.c.repository == bindparam("repository"), repository_blobs.c.digest == bindparam("digest"))
)

TOUCHED: Final = func.coalesce(repository_blobs.c.touched, repository_blobs.c.added)
"""When a repository was last promised a blob of it; a row that an earlier release wrote has only its beginning."""

_HOLD: Final = (
    select(repositories.c.name).where(repositories.c.name == bindparam("repository")).with_for_update(key_share=True)
)

_FIRM: Final = select(repository_blobs.c.digest).where(
    repository_blobs.c.repository == bindparam("repository"),
    repository_blobs.c.digest == bindparam("digest"),
    or_(
        bindparam("since", type_=repository_blobs.c.added.type) <= TOUCHED,
        exists().where(
            references.c.repository == repository_blobs.c.repository, references.c.digest == repository_blobs.c.digest
        ),
    ),
)

_REACHED: Final = (
    select(images.c.state, images.c.reason, images.c.message, images.c.decision)
    .select_from(references)
    .join(
        manifests,
        (manifests.c.repository == references.c.repository) & (manifests.c.digest == references.c.manifest),
    )
    .join(
        images,
        (images.c.repository == manifests.c.repository)
        & (images.c.digest == func.coalesce(manifests.c.state_of, manifests.c.digest)),
    )
    .where(references.c.repository == bindparam("repository"), references.c.digest == bindparam("digest"))
    .limit(1)
)
_STATES: Final = (_REACHED.where(images.c.state.in_(STARTING)), _REACHED)
"""The first that may start, else the first with a state: of a layer that very many share, not each is looked at."""


def ensure_repository(conn: Connection, name: str, *, by: str, now: datetime) -> bool:
    """Make a repository if there is none of that name; True if it was made.

    Raises:
        QuotaError: there may be no more.
    """
    made = insert_new(conn, repositories, name=name, created=now, created_by=by)
    if made:
        count(conn, name, by, Amount(repositories=1))
    return made


def hold_repository(conn: Connection, name: str) -> bool:
    """Have nobody else push manifests to a repository, or delete, before this transaction ends; False: there is none.

    What was looked at stays true meanwhile: whether a tag is there, and whether a manifest needs a blob. The registry
    itself does not wait: what it writes has names of its own. Blobs may come.
    """
    return conn.scalar(_HOLD, {"repository": name}) is not None


def enter_repository(conn: Connection, name: str, *, by: str, now: datetime) -> None:
    """Hold a repository, and make it before if there is none.

    Raises:
        QuotaError: there may be no more.
    """
    if not hold_repository(conn, name):
        ensure_repository(conn, name, by=by, now=now)
        hold_repository(conn, name)


def blob_size(conn: Connection, repository: str, digest: Digest) -> int | None:
    """The size in bytes of a blob of this repository, or None."""
    return conn.scalar(_SIZE, {"repository": repository, "digest": digest})


def add_blob(
    conn: Connection,
    repository: str,
    digest: Digest,
    size: int,
    *,
    by: str,
    now: datetime,
    lease: Lease | None = None,
) -> None:
    """Record that the store holds a blob, and that it is in this repository.

    It was stored under `lease`, which ends; or in this very transaction, after `hold_digest`.

    Raises:
        LeaseLostError, BlobBusyError: its bytes may be gone again.
        QuotaError: there is no room for it.
    """
    hold_digest(conn, digest)
    if lease is not None:
        end_lease(conn, lease)
    ensure_repository(conn, repository, by=by, now=now)
    insert_new(conn, blobs, digest=digest, size=size, created=now)
    place = {"repository": repository, "digest": digest}
    if insert_new(conn, repository_blobs, **place, added=now, added_by=by, touched=now):
        count(conn, repository, by, Amount(bytes=size))
    else:
        touch_blob(conn, repository, digest, now=now)


def mount_blob(
    conn: Connection, sources: Iterable[str], repository: str, digest: Digest, *, by: str, now: datetime
) -> bool:
    """Have a blob that is in one of `sources` in this repository too; False if it is in none of them (any more).

    Raises:
        QuotaError: there is no room for it.
    """
    try:
        hold_digest(conn, digest)
    except BlobBusyError:
        return False
    size = next((size for name in sources if (size := blob_size(conn, name, digest)) is not None), None)
    if size is None:
        return False
    add_blob(conn, repository, digest, size, by=by, now=now)
    return True


def touch_blob(conn: Connection, repository: str, digest: Digest, *, now: datetime) -> bool:
    """Have a blob stay in its repository for the collector's grace from now on; False if it is not there."""
    table = repository_blobs.c
    this = update(repository_blobs).where(table.repository == repository, table.digest == digest)
    return bool(conn.execute(this.values(touched=now)).rowcount)


def is_firm(conn: Connection, repository: str, digest: Digest, *, since: datetime) -> bool:
    """True if a blob is in this repository, and a manifest there needs it, or it was touched since then."""
    return conn.scalar(_FIRM, {"repository": repository, "digest": digest, "since": since}) is not None


def remove_blob(conn: Connection, repository: str, digest: Digest) -> bool:
    """Take a blob out of this repository; False if it was not there. Its bytes stay for garbage collection."""
    table = repository_blobs
    size = blob_size(conn, repository, digest)
    gone = delete(table).where(table.c.repository == repository, table.c.digest == digest).returning(table.c.added_by)
    by = conn.scalar(gone)
    if by is None or size is None:
        return False
    count(conn, repository, by, Amount(bytes=-size))
    return True


def manifest_using(conn: Connection, repository: str, digest: Digest) -> Digest | None:
    """One manifest of this repository that refers to `digest`, or None."""
    return conn.scalar(
        select(references.c.manifest)
        .where(references.c.repository == repository, references.c.digest == digest)
        .limit(1)
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
    for query in _STATES:
        row = conn.execute(query, {"repository": repository, "digest": digest}).first()
        if row is not None:
            return Reached(state=State(row.state), reason=row.reason, message=row.message, decision=row.decision)
    return None
