"""What is judged, and what an index stands on, as the catalogue has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from ocispec.digest import Digest
from ocispec.manifest import Index, Manifest, parse_manifest
from policy import dsse, wire
from policy.errors import TrustError
from policy.model import State
from policy.statements import RevocationList
from registry import statements
from registry.catalogue import schema
from registry.indexes import check_index
from registry.judge.reading import Obstacle


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is judged, as the catalogue has it."""

    repository: str
    parsed: Manifest | Index
    first_seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """A platform child of an index that may start, with its clearance."""

    digest: Digest
    state: State
    clearance: bytes


def find_subject(conn: Connection, repository: str, digest: Digest) -> Subject | None:
    """The image or index, or None if it is not there (any more)."""
    found = conn.execute(
        select(schema.contents.c.content, schema.manifests.c.media_type, schema.images.c.first_seen)
        .select_from(schema.manifests)
        .join(schema.contents, schema.contents.c.digest == schema.manifests.c.digest)
        .join(
            schema.images,
            (schema.images.c.repository == schema.manifests.c.repository)
            & (schema.images.c.digest == schema.manifests.c.digest),
        )
        .where(schema.manifests.c.repository == repository, schema.manifests.c.digest == digest)
    ).first()
    if found is None:
        return None
    parsed = parse_manifest(found.content, found.media_type, algorithm=digest.algorithm)
    return Subject(repository=repository, parsed=parsed, first_seen=found.first_seen)


def revoked_index(conn: Connection, digest: Digest) -> tuple[Obstacle | None, int]:
    """Whether the newest revocation list names an index, and the number of that list."""
    envelope = statements.revocation_list(conn)
    if envelope is None:
        return None, 0
    listed = wire.decode(dsse.parse(envelope, what="revocation list").payload, what="revocation list")
    if not isinstance(listed, RevocationList):
        return None, 0
    if digest not in listed.digests:
        return None, listed.number
    message = f"revoked by list {listed.number}: {listed.reason}"
    return Obstacle(state=State.REVOKED, reason="revoked", message=message), listed.number


def cleared_children(conn: Connection, repository: str, index: Index) -> tuple[Child, ...] | Obstacle:
    """The platform children of an index, all of which may start; an obstacle says which one keeps it back."""
    try:
        wanted = check_index(index)
    except TrustError as error:
        return Obstacle(state=State.DENIED, reason=error.code, message=error.detail)
    found: list[Child] = []
    for child in wanted:
        row = conn.execute(
            select(schema.images.c.state, schema.images.c.reason, schema.images.c.message, schema.clearances.c.envelope)
            .select_from(schema.images)
            .outerjoin(
                schema.clearances,
                (schema.clearances.c.repository == schema.images.c.repository)
                & (schema.clearances.c.digest == schema.images.c.digest),
            )
            .where(schema.images.c.repository == repository, schema.images.c.digest == child.digest)
        ).first()
        state = State(row.state) if row is not None else State.QUARANTINED
        if row is None or not state.may_start or row.envelope is None:
            why = f"{state}: {row.reason}: {row.message}" if row is not None else "not in this repository"
            waits = state is State.QUARANTINED
            return Obstacle(
                state=State.QUARANTINED if waits else State.DENIED,
                reason="child-not-judged" if waits else "child-not-cleared",
                message=f"child {child.digest} ({child.platform}) is {why}",
            )
        found.append(Child(digest=child.digest, state=state, clearance=row.envelope))
    return tuple(found)
