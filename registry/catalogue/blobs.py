"""Which blobs there are, and in which repositories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, String, bindparam, delete, func, or_, select, update

from ocispec.digest import Digest
from policy.model import State
from registry.catalogue.database import insert_new
from registry.catalogue.leases import Lease, end_lease, hold_digest
from registry.catalogue.lookups import there_is
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
        there_is(
            references.c.repository == repository_blobs.c.repository, references.c.digest == repository_blobs.c.digest
        ),
    ),
)

_IMAGE: Final = (
    select(func.coalesce(manifests.c.state_of, manifests.c.digest))
    .where(manifests.c.repository == references.c.repository, manifests.c.digest == references.c.manifest)
    .correlate(references)
    .scalar_subquery()
)
_STATE: Final = (
    select(images.c.state)
    .where(images.c.repository == references.c.repository, images.c.digest == _IMAGE)
    .correlate(references)
    .scalar_subquery()
)
_REACHING: Final = (
    select(references.c.manifest, _IMAGE.label("image"), _STATE.label("state"))
    .where(references.c.repository == bindparam("repository"), references.c.digest == bindparam("digest"))
    .where(references.c.manifest > bindparam("after", type_=String))
    .order_by(references.c.manifest)
    .limit(bindparam("few"))
)
"""What reaches a blob, with its state looked up for each: in a join, databases may begin with all of a repository."""

_FEW: Final = 8
"""Manifests that are looked at first, of very many: mostly one of them may start, and no more are."""

_REACHED: Final = select(images.c.state, images.c.reason, images.c.message, images.c.decision).where(
    images.c.repository == bindparam("repository"), images.c.digest == bindparam("digest")
)


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
    best: Digest | None = None
    after, few = "", _FEW
    while True:
        asked = {"repository": repository, "digest": digest, "after": after, "few": few}
        rows = conn.execute(_REACHING, asked).all()
        starting = next((row.image for row in rows if row.state in STARTING), None)
        best = starting or best or next((row.image for row in rows if row.state is not None), None)
        if starting is not None or len(rows) < few:
            break
        after, few = str(rows[-1].manifest), few * 8
    found = conn.execute(_REACHED, {"repository": repository, "digest": best}).first() if best is not None else None
    if found is None:
        return None
    return Reached(state=State(found.state), reason=found.reason, message=found.message, decision=found.decision)
