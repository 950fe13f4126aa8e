"""Rows that speak of what is gone: found a page at a time, and removed if that is still so.

Audit records are never removed. A decision stays while a clearance rests on it, or an image's state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, delete, exists, func, literal, select, tuple_

from ocispec.digest import Digest
from registry.catalogue.among import among
from registry.catalogue.lookups import there_is
from registry.catalogue.manifests import forget_content
from registry.catalogue.schema import (
    blobs,
    clearances,
    contents,
    decisions,
    image_keys,
    images,
    layers,
    manifests,
    statement_keys,
    statements,
)

Rests = Callable[[bytes | None], tuple[Digest | None, timedelta]]
"""From the envelope of an image's clearance: the evidence that it names, and how long ones like it are valid."""


class Decided(NamedTuple):
    """An image that decisions were taken on: how many are kept (`taken`), whether it is there."""

    repository: str
    image: Digest
    taken: int
    there: bool


# ---- manifests' bytes, readings of layers, keys of statements -------------------------------------------------------


def lost_contents(conn: Connection, after: Digest | None, limit: int) -> list[tuple[Digest, bool]]:
    """Manifests' bytes after `after`, and whether any repository has the manifest."""
    there = there_is(manifests.c.digest == contents.c.digest)
    query = select(contents.c.digest, there.label("there")).order_by(contents.c.digest).limit(limit)
    if after is not None:
        query = query.where(contents.c.digest > after)
    return [(row.digest, bool(row.there)) for row in conn.execute(query)]


def drop_contents(conn: Connection, digests: Sequence[Digest]) -> int:
    """Remove the bytes of manifests that no repository has; returns how many."""
    return sum(forget_content(conn, digest) for digest in digests)


def lost_layers(conn: Connection, after: Digest | None, limit: int) -> list[tuple[Digest, bool]]:
    """Readings of layer blobs after `after`, and whether the blob is there."""
    there = there_is(blobs.c.digest == layers.c.digest)
    query = select(layers.c.digest, there.label("there")).order_by(layers.c.digest).limit(limit)
    if after is not None:
        query = query.where(layers.c.digest > after)
    return [(row.digest, bool(row.there)) for row in conn.execute(query)]


def drop_layers(conn: Connection, digests: Sequence[Digest]) -> int:
    """Remove the readings of layer blobs that are gone; returns how many."""
    there = there_is(blobs.c.digest == layers.c.digest)
    return int(conn.execute(delete(layers).where(layers.c.digest.in_(digests), ~there)).rowcount)


def drop_statement_keys(conn: Connection, *, before: datetime, limit: int) -> int:
    """Remove keys of statements that ended before then, by which nothing is found any more; returns how many.

    The statements themselves stay: they are what was said.
    """
    ended = (
        select(statements.c.digest)
        .where(statements.c.expires < before, exists().where(statement_keys.c.statement == statements.c.digest))
        .limit(limit)
    )
    found = conn.scalars(ended).all()
    return int(conn.execute(delete(statement_keys).where(statement_keys.c.statement.in_(found))).rowcount)


# ---- decisions ------------------------------------------------------------------------------------------------------


def decided_images(conn: Connection, after: tuple[str, Digest] | None, limit: int) -> list[Decided]:
    """Images that decisions were taken on, after `after`."""
    at = decisions.c
    there = there_is(images.c.repository == at.repository, images.c.digest == at.image)
    query = (
        select(at.repository, at.image, func.count().label("taken"), there.label("there"))
        .group_by(at.repository, at.image)
        .order_by(at.repository, at.image)
        .limit(limit)
    )
    if after is not None:
        repository, image = literal(after[0], at.repository.type), literal(after[1], at.image.type)
        query = query.where(tuple_(at.repository, at.image) > tuple_(repository, image))
    return [Decided(row.repository, row.image, row.taken, bool(row.there)) for row in conn.execute(query)]


def old_decisions(
    conn: Connection, found: Decided, *, keep: int, now: datetime, gone_before: datetime, rests_on: Rests
) -> list[tuple[Digest, int]]:
    """Decisions on an image that may go, with their sizes: of one that is there, all but the newest `keep`.

    Not those that a clearance rests on which may still be valid. Of an image that is gone, those taken before
    `gone_before`.
    """
    at = decisions.c
    of_image = (at.repository == found.repository, at.image == found.image)
    query = select(at.digest, at.evidence, at.taken, func.length(at.content).label("size")).where(*of_image)
    if not found.there:
        return [(row.digest, row.size) for row in conn.execute(query.where(at.taken < gone_before))]
    here = (images.c.repository == found.repository, images.c.digest == found.image)
    current = conn.scalar(select(images.c.decision).where(*here))
    held = (clearances.c.repository == found.repository, clearances.c.digest == found.image)
    evidence, lifetime = rests_on(conn.scalar(select(clearances.c.envelope).where(*held)))
    rows = conn.execute(query.order_by(at.taken.desc(), at.digest).offset(keep))
    return [
        (row.digest, row.size)
        for row in rows
        if row.digest != current and row.evidence != evidence and row.taken < now - lifetime
    ]


def drop_decisions(conn: Connection, digests: Sequence[Digest]) -> None:
    """Remove decisions, but for those that an image's state rests on by now."""
    current = exists().where(images.c.decision == decisions.c.digest)
    conn.execute(delete(decisions).where(decisions.c.digest.in_(digests), ~current))


# ---- what derived objects are made from -----------------------------------------------------------------------------


def live_diff_ids(conn: Connection, digests: Iterable[Digest]) -> set[Digest]:
    """Those of some diff_ids that a stored layer has."""
    return among(conn, layers.c.diff_id, list(digests))


def live_chains(conn: Connection, digests: Iterable[Digest]) -> set[Digest]:
    """Those of some chain IDs that an image has."""
    wanted = {f"chain:{digest}": digest for digest in digests}
    return {wanted[key] for key in among(conn, image_keys.c.key, list(wanted))}


def live_images(conn: Connection, digests: Iterable[Digest]) -> set[Digest]:
    """Those of some digests that are images of a repository."""
    return among(conn, images.c.digest, list(digests))


def named_evidence(conn: Connection, digests: Iterable[Digest]) -> set[Digest]:
    """Those of some digests that are evidence of a decision."""
    return among(conn, decisions.c.evidence, list(digests))
