"""Tags: names of manifests, with the value that was pushed and the one that hosts are served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, and_, delete, or_, select, update

from ocispec.digest import Digest
from registry.catalogue.blobs import STARTING
from registry.catalogue.database import insert_new
from registry.catalogue.lookups import there_is
from registry.catalogue.manifests import touch_manifest
from registry.catalogue.schema import images, manifests, repositories, tags
from registry.catalogue.usage import count, count_moved
from registry.rules import Amount


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A tag's two values; `number` is that of its newest statement."""

    name: str
    pushed: Digest
    served: Digest | None
    number: int


def find_tag(conn: Connection, repository: str, name: str) -> Tag | None:
    """The tag of that name."""
    row = conn.execute(
        select(tags.c.tag, tags.c.pushed, tags.c.served, tags.c.number).where(
            tags.c.repository == repository, tags.c.tag == name
        )
    ).first()
    return Tag(name=row.tag, pushed=row.pushed, served=row.served, number=row.number) if row is not None else None


def push_tag(conn: Connection, repository: str, name: str, digest: Digest, *, by: str, now: datetime) -> Digest | None:
    """Point a tag's pushed value at a manifest of its repository; returns what it was before. Served stays.

    Raises:
        QuotaError: there may be no more tags.
    """
    where = (tags.c.repository == repository, tags.c.tag == name)
    before = conn.execute(select(tags.c.pushed, tags.c.pushed_by).where(*where).with_for_update()).first()
    if before is not None:
        conn.execute(update(tags).where(*where).values(pushed=digest, pushed_at=now, pushed_by=by))
        count_moved(conn, repository, before.pushed_by, by, Amount(tags=1))
        pushed: Digest = before.pushed
        if pushed != digest:
            touch_manifest(conn, repository, pushed, now=now)
        return pushed
    if not insert_new(conn, tags, repository=repository, tag=name, pushed=digest, pushed_at=now, pushed_by=by):
        return push_tag(conn, repository, name, digest, by=by, now=now)  # another one made it meanwhile
    count(conn, repository, by, Amount(tags=1))
    return None


def remove_tag(conn: Connection, repository: str, name: str) -> Tag | None:
    """Remove a tag and return what it was. The numbers of its statements are the signer's, and go on rising."""
    found = find_tag(conn, repository, name)
    gone = delete(tags).where(tags.c.repository == repository, tags.c.tag == name).returning(tags.c.pushed_by)
    if (by := conn.scalar(gone)) is not None:
        count(conn, repository, by, Amount(tags=-1))
    return found


def tags_of(conn: Connection, repository: str, digest: Digest) -> tuple[str, ...]:
    """The tags that a manifest was last pushed to."""
    where = (tags.c.repository == repository, tags.c.pushed == digest)
    return tuple(conn.scalars(select(tags.c.tag).where(*where).order_by(tags.c.tag)))


def tags_at(conn: Connection, repository: str, digest: Digest) -> tuple[Tag, ...]:
    """The tags that were last pushed with a manifest, or that serve it."""
    columns = select(tags.c.tag, tags.c.pushed, tags.c.served, tags.c.number).where(tags.c.repository == repository)
    # Each by an index of its own: with OR, SQLite would look at all tags.
    rows = [row for value in (tags.c.pushed, tags.c.served) for row in conn.execute(columns.where(value == digest))]
    found = {row.tag: Tag(name=row.tag, pushed=row.pushed, served=row.served, number=row.number) for row in rows}
    return tuple(found[name] for name in sorted(found))


def stop_serving(conn: Connection, repository: str, digest: Digest) -> tuple[str, ...]:
    """Have no tag serve a manifest any more; returns those that did."""
    where = (tags.c.repository == repository, tags.c.served == digest)
    found = tuple(conn.scalars(select(tags.c.tag).where(*where).order_by(tags.c.tag)))
    if found:
        conn.execute(update(tags).where(*where).values(served=None, served_at=None, statement=None))
    return found


def list_tags(
    conn: Connection, repository: str, *, after: str, limit: int, served: Sequence[str] | None = None
) -> tuple[str, ...] | None:
    """At most `limit` tags that come after `after` in byte order; None if there is no such repository.

    With `served`, only what hosts get: tags with a served value, those of artifacts whose subject may start, and those
    of artifacts without a subject whose type is one of `served`.
    """
    query = select(tags.c.tag).where(tags.c.repository == repository, tags.c.tag > after)
    if served is not None:
        at, image = manifests.c, images.c
        may_start = there_is(image.repository == at.repository, image.digest == at.state_of, image.state.in_(STARTING))
        alone = and_(at.kind == "artifact", at.state_of.is_(None), at.artifact_type.in_(served))
        # Not joined: most tags have a served value, and then nothing else is looked up.
        pushed = there_is(at.repository == tags.c.repository, at.digest == tags.c.pushed, or_(may_start, alone))
        query = query.where(or_(tags.c.served.is_not(None), pushed))
    found = tuple(conn.scalars(query.order_by(tags.c.tag).limit(limit)))
    if found or conn.scalar(select(repositories.c.name).where(repositories.c.name == repository)) is not None:
        return found
    return None


def list_repositories(conn: Connection, *, within: ColumnElement[bool], after: str, limit: int) -> tuple[str, ...]:
    """At most `limit` names of repositories that come after `after`, of those of which `within` is true."""
    name = repositories.c.name
    return tuple(conn.scalars(select(name).where(name > after, within).order_by(name).limit(limit)))
