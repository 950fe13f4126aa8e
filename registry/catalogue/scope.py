"""What of the catalogue somebody may read, as conditions of a query: what is out of scope is not even fetched."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, and_, false, or_, select, true, union_all

from ocispec.digest import Digest
from registry.access import Principal, Right
from registry.catalogue.schema import repository_blobs

_ESCAPE = "\\"


def in_scope(principal: Principal, repository: ColumnElement[str]) -> ColumnElement[bool]:
    """True of the rows of repositories that `principal` may pull from."""
    return and_(true(), *(_any(patterns, repository) for patterns in principal.patterns(Right.PULL)))


def readable_with(conn: Connection, principal: Principal, digest: Digest, *, only: str | None = None) -> str | None:
    """A repository that `principal` may pull from and that holds a blob; with `only`, that one or none.

    Each glob is a query of its own, so that a database goes to those repositories and passes no others by.
    """
    held = repository_blobs.c
    here = select(held.repository).where(held.digest == digest)
    if only is not None:
        return conn.scalar(here.where(held.repository == only)) if principal.in_scope(only) else None
    *outer, inner = principal.patterns(Right.PULL)
    within = [_any(patterns, held.repository) for patterns in outer]
    some = [here.where(_any((pattern,), held.repository), *within).limit(1).subquery() for pattern in inner]
    if not some:
        return None
    return conn.scalar(union_all(*(select(each.c.repository) for each in some)).limit(1))


def _any(patterns: tuple[str, ...], repository: ColumnElement[str]) -> ColumnElement[bool]:
    if "*" in patterns:
        return true()
    return or_(false(), *(_one(pattern, repository) for pattern in patterns))


def _one(pattern: str, repository: ColumnElement[str]) -> ColumnElement[bool]:
    """A name or prefix is looked up in an index, so that it does not matter what other repositories there are."""
    if "*" not in pattern and "?" not in pattern:
        return repository == pattern
    prefix = pattern.removesuffix("*")
    if "*" not in prefix and "?" not in prefix:
        return (repository >= prefix) & (repository < prefix[:-1] + chr(ord(prefix[-1]) + 1))
    return repository.like(_like(pattern), escape=_ESCAPE)


def _like(pattern: str) -> str:
    """A glob for LIKE. The names of repositories are lower case, so it is none that SQLite's LIKE takes for equal."""
    for special in (_ESCAPE, "%", "_"):
        pattern = pattern.replace(special, _ESCAPE + special)
    return pattern.replace("*", "%").replace("?", "_")
