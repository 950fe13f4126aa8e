"""Which manifests say that they are about another one (distribution specification 1.1, "Listing Referrers")."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

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


def count_referrers(conn: Connection, repository: str, subject: Digest) -> int:
    """How many manifests name `subject`."""
    return (
        conn.scalar(select(func.count()).where(manifests.c.repository == repository, manifests.c.subject == subject))
        or 0
    )


def list_referrers(
    conn: Connection, repository: str, subject: Digest, *, artifact_type: str, after: Digest | None, limit: int
) -> tuple[Referrer, ...]:
    """At most `limit` referrers of `subject`; the registry's own come on the first page, before all others.

    A host reads a bounded number of them (trust.md), so nobody can push the clearance out of its sight.
    """
    own = manifests.c.pushed_by == REGISTRY.name
    query = select(
        manifests.c.digest,
        manifests.c.media_type,
        manifests.c.size,
        manifests.c.artifact_type,
        manifests.c.annotations,
    ).where(manifests.c.repository == repository, manifests.c.subject == subject)
    if artifact_type:
        query = query.where(manifests.c.artifact_type == artifact_type)
    rows = list(conn.execute(query.where(own).order_by(manifests.c.digest))) if after is None else []
    query = query.where(~own).order_by(manifests.c.digest).limit(max(limit - len(rows), 0))
    if after is not None:
        query = query.where(manifests.c.digest > after)
    rows += list(conn.execute(query))
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
