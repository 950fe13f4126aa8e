"""Which manifests say that they are about another one (distribution specification 1.1, "Listing Referrers")."""

from __future__ import annotations

import json
from dataclasses import dataclass

from sqlalchemy import Connection, and_, func, or_, select

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
    """At most `limit` referrers of `subject` after `after`; the registry's own come before all others.

    A host reads a bounded number of them (trust.md), so nobody can push the clearance out of its sight.
    """
    own = manifests.c.pushed_by == REGISTRY.name
    about = (manifests.c.repository == repository, manifests.c.subject == subject)
    query = select(
        manifests.c.digest,
        manifests.c.media_type,
        manifests.c.size,
        manifests.c.artifact_type,
        manifests.c.annotations,
    ).where(*about)
    if artifact_type:
        query = query.where(manifests.c.artifact_type == artifact_type)
    if after is not None:
        among_own = conn.scalar(select(manifests.c.digest).where(*about, own, manifests.c.digest == after)) is not None
        beyond = manifests.c.digest > after
        query = query.where(or_(~own, beyond) if among_own else and_(~own, beyond))
    rows = conn.execute(query.order_by(own.desc(), manifests.c.digest).limit(limit))
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
