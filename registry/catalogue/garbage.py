"""What the collector looks through, a page at a time in the order of the keys, and what nobody needs of it.

A page is a bounded number of rows that are looked at, not found: a run costs the same for each row, however few of
them are garbage. What a page says is only a suggestion; whoever takes something away asks again in the transaction
that does it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, delete, func, literal, or_, select, tuple_

from ocispec.digest import Digest
from registry.access import REGISTRY
from registry.catalogue.among import among
from registry.catalogue.blobs import TOUCHED
from registry.catalogue.lookups import there_is
from registry.catalogue.schema import (
    blobs,
    holds,
    leases,
    manifests,
    pulls,
    references,
    repositories,
    repository_blobs,
    running,
    running_reports,
    tags,
)
from registry.catalogue.usage import count
from registry.rules import Amount


class HeldBlob(NamedTuple):
    """A blob in a repository; `loose` if no manifest there needs it, and it was last touched long ago."""

    repository: str
    digest: Digest
    size: int
    loose: bool


class StoredBlob(NamedTuple):
    """A blob in the store, as the catalogue knows it."""

    digest: Digest
    size: int
    deleting: datetime | None
    needed: bool
    leased: bool


class KnownManifest(NamedTuple):
    """A manifest of a repository, and what keeps it there.

    `about` is the image or manifest that an artifact speaks of, `subject_there` whether that is in the repository;
    `listed` is true for a child of an index, `runs` where a host reported it or a child of it.
    """

    repository: str
    digest: Digest
    kind: str
    size: int
    own: bool
    touched: datetime
    pulled: datetime | None
    about: Digest | None
    subject_there: bool
    tagged: bool
    listed: bool
    runs: bool


class KnownTag(NamedTuple):
    """A tag of a repository; `pulled` is when what it points to was last sent to somebody who runs or builds."""

    tag: str
    pushed: Digest
    pushed_at: datetime
    served: Digest | None
    pulled: datetime | None
    runs: bool


# ---- blobs ----------------------------------------------------------------------------------------------------------


def held_blobs(conn: Connection, after: tuple[str, Digest] | None, limit: int, *, before: datetime) -> list[HeldBlob]:
    """Blobs in repositories after `after`; loose if they were last touched before `before`."""
    held = repository_blobs.c
    # A join would have PostgreSQL go through all blobs for each page.
    size = select(blobs.c.size).where(blobs.c.digest == held.digest).scalar_subquery()
    query = (
        select(held.repository, held.digest, size.label("size"), _is_loose(before).label("loose"))
        .order_by(held.repository, held.digest)
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(held.repository, held.digest) > tuple_(*_literals(after)))
    return [HeldBlob(row.repository, row.digest, row.size, bool(row.loose)) for row in conn.execute(query)]


def drop_loose(conn: Connection, repository: str, digest: Digest, *, before: datetime) -> bool:
    """Take a blob out of a repository if it is loose (still); the caller holds the repository."""
    held = repository_blobs.c
    this = and_(held.repository == repository, held.digest == digest)
    size = conn.scalar(select(blobs.c.size).where(blobs.c.digest == digest))
    by = conn.scalar(delete(repository_blobs).where(this, _is_loose(before)).returning(held.added_by))
    if by is None or size is None:
        return False
    count(conn, repository, by, Amount(bytes=-size))
    return True


def stored_blobs(
    conn: Connection, after: Digest | None, limit: int, *, now: datetime, loose_before: datetime | None = None
) -> list[StoredBlob]:
    """Known blobs after `after`; with `loose_before`, what is loose in a repository is not needed by it."""
    in_repository = repository_blobs.c.digest == blobs.c.digest
    if loose_before is not None:
        in_repository = and_(in_repository, ~_is_loose(loose_before))
    needed = or_(there_is(in_repository), there_is(holds.c.digest == blobs.c.digest))
    leased = there_is(leases.c.digest == blobs.c.digest, leases.c.until >= now)
    query = select(
        blobs.c.digest, blobs.c.size, blobs.c.deleting, needed.label("needed"), leased.label("leased")
    ).order_by(blobs.c.digest)
    if after is not None:
        query = query.where(blobs.c.digest > after)
    return [
        StoredBlob(row.digest, row.size, row.deleting, bool(row.needed), bool(row.leased))
        for row in conn.execute(query.limit(limit))
    ]


def known_blobs(conn: Connection, digests: Collection[Digest]) -> set[Digest]:
    """Those of some digests that the catalogue knows as blobs, being deleted or not."""
    return among(conn, blobs.c.digest, digests)


def is_there(conn: Connection, digest: Digest) -> bool:
    """True if the catalogue says that the store has a blob, and nobody is deleting it."""
    where = (blobs.c.digest == digest, blobs.c.deleting.is_(None))
    return conn.scalar(select(blobs.c.digest).where(*where)) is not None


# ---- manifests and tags ---------------------------------------------------------------------------------------------


def known_manifests(
    conn: Connection, after: tuple[str, Digest] | None, limit: int, *, running_since: datetime
) -> list[KnownManifest]:
    """Manifests after `after`; a host's report counts if it is not older than `running_since`."""
    query = _manifests(running_since).order_by(manifests.c.repository, manifests.c.digest).limit(limit)
    if after is not None:
        query = query.where(tuple_(manifests.c.repository, manifests.c.digest) > tuple_(*_literals(after)))
    return [_manifest(row) for row in conn.execute(query)]


def known_manifest(
    conn: Connection, repository: str, digest: Digest, *, running_since: datetime
) -> KnownManifest | None:
    """One manifest, as it is now."""
    this = (manifests.c.repository == repository, manifests.c.digest == digest)
    row = conn.execute(_manifests(running_since).where(*this)).first()
    return _manifest(row) if row is not None else None


def known_tags(
    conn: Connection, repository: str, *, running_since: datetime, names: Sequence[str] | None = None
) -> list[KnownTag]:
    """The tags of a repository (or those of some names), the newest push first."""
    at = tags.c
    runs = or_(_runs(at.repository, at.pushed, running_since), _runs(at.repository, at.served, running_since))
    query = select(
        at.tag,
        at.pushed,
        at.pushed_at,
        at.served,
        _pulled(at.repository, at.pushed).label("pulled"),
        _pulled(at.repository, at.served).label("pulled_served"),
        runs.label("runs"),
    ).where(at.repository == repository)
    if names is not None:
        query = query.where(at.tag.in_(names))
    return [
        KnownTag(
            row.tag,
            row.pushed,
            row.pushed_at,
            row.served,
            max((time for time in (row.pulled, row.pulled_served) if time is not None), default=None),
            bool(row.runs),
        )
        for row in conn.execute(query.order_by(at.pushed_at.desc(), at.tag))
    ]


def repository_names(conn: Connection, after: str, limit: int) -> list[str]:
    """Names of repositories after `after`."""
    name = repositories.c.name
    return list(conn.scalars(select(name).where(name > after).order_by(name).limit(limit)))


def _manifests(running_since: datetime) -> Any:
    at, subject, index = manifests.c, manifests.alias("subjects"), references.c
    about = func.coalesce(at.state_of, at.subject)
    # Each by an index of its own.
    tagged = or_(
        *(there_is(tags.c.repository == at.repository, value == at.digest) for value in (tags.c.pushed, tags.c.served))
    )
    return select(
        at.repository,
        at.digest,
        at.kind,
        at.size,
        at.pushed_by,
        func.coalesce(at.touched, at.pushed).label("last"),
        _pulled(at.repository, at.digest).label("pulled"),
        about.label("about"),
        there_is(subject.c.repository == at.repository, subject.c.digest == about).label("subject_there"),
        tagged.label("tagged"),
        there_is(index.repository == at.repository, index.digest == at.digest).label("listed"),
        _runs(at.repository, at.digest, running_since).label("runs"),
    )


def _manifest(row: Any) -> KnownManifest:
    return KnownManifest(
        repository=row.repository,
        digest=row.digest,
        kind=row.kind,
        size=row.size,
        own=row.pushed_by == REGISTRY.name,
        touched=row.last,
        pulled=row.pulled,
        about=row.about,
        subject_there=bool(row.subject_there),
        tagged=bool(row.tagged),
        listed=bool(row.listed),
        runs=bool(row.runs),
    )


def _is_loose(before: datetime) -> ColumnElement[bool]:
    held = repository_blobs.c
    used = there_is(references.c.repository == held.repository, references.c.digest == held.digest)
    return and_(literal(before, held.added.type) > TOUCHED, ~used)


def _pulled(repository: ColumnElement[str], digest: ColumnElement[Digest]) -> Any:
    return (
        select(pulls.c.pulled)
        .where(pulls.c.repository == repository, pulls.c.digest == digest)
        .correlate(manifests, tags)
        .scalar_subquery()
    )


def _runs(repository: ColumnElement[str], digest: ColumnElement[Digest], since: datetime) -> ColumnElement[bool]:
    """True where a host reported a manifest, or a child of it if it is an index."""
    reported = (running_reports.c.account == running.c.account, running_reports.c.reported >= since)
    here = running.c.repository == repository
    itself = there_is(*reported, here, running.c.digest == digest)
    listed = there_is(
        references.c.repository == repository,
        references.c.manifest == digest,
        references.c.kind == "child",
        *reported,
        here,
        running.c.digest == references.c.digest,
    )
    return or_(itself, listed)


def _literals(key: tuple[str, Digest]) -> tuple[ColumnElement[Any], ColumnElement[Any]]:
    return literal(key[0], repositories.c.name.type), literal(key[1], blobs.c.digest.type)
