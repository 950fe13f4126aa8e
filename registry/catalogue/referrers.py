"""Which manifests say that they are about another one (distribution specification 1.1, "Listing Referrers")."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, select

from ocispec.digest import Digest
from registry.access import REGISTRY
from registry.catalogue.schema import manifests


@dataclass(frozen=True, slots=True, kw_only=True)
class Referrer:
    """One entry of the answer; `annotations` as in the manifest."""

    digest: Digest
    media_type: str
    size: int
    artifact_type: str
    annotations: dict[str, str]


_digest = manifests.c.digest
_OWN: Final = manifests.c.pushed_by == bindparam(None, REGISTRY.name, literal_execute=True)
"""Written out, or no database sees that it is what the index `manifests_own` is of."""


def count_referrers(conn: Connection, repository: str, subject: Digest) -> int:
    """How many manifests name `subject`."""
    return (
        conn.scalar(select(func.count()).where(manifests.c.repository == repository, manifests.c.subject == subject))
        or 0
    )


def list_referrers(
    conn: Connection, repository: str, subject: Digest, *, artifact_type: str, after: Digest | None, limit: int
) -> tuple[Referrer, ...]:
    """At most `limit` referrers of `subject` after `after`; the registry's own come before all others.

    A host reads a bounded number of them (trust.md), so nobody can push the clearance out of its sight.
    """
    about: tuple[ColumnElement[bool], ...] = (manifests.c.repository == repository, manifests.c.subject == subject)
    if artifact_type:
        about = (*about, manifests.c.artifact_type == artifact_type)
    among_own = after is None or conn.scalar(select(_digest).where(*about, _OWN, _digest == after)) is not None
    # Two queries, each in the order of an index: one over both would sort all referrers for each page.
    rows = list(conn.execute(_page((*about, _OWN), after, limit))) if among_own else []
    if len(rows) < limit:
        others = _page((*about, ~_OWN), None if among_own else after, limit - len(rows))
        rows += conn.execute(others)
    return tuple(
        Referrer(
            digest=row.digest,
            media_type=row.media_type,
            size=row.size,
            artifact_type=row.artifact_type,
            annotations=json.loads(row.annotations),  # our own text
        )
        for row in rows
    )


def _page(which: tuple[ColumnElement[bool], ...], after: Digest | None, limit: int) -> Select[Any]:
    columns = (manifests.c.media_type, manifests.c.size, manifests.c.artifact_type, manifests.c.annotations)
    query = select(_digest, *columns).where(*which).order_by(_digest).limit(limit)
    return query.where(_digest > after) if after is not None else query
