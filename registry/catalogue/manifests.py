"""Manifests in repositories: their bytes, what they reach, whose state they have."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Row,
    Select,
    bindparam,
    delete,
    func,
    select,
    update,
)

from ocispec.descriptor import CONFIG_TYPES
from ocispec.digest import Digest
from ocispec.manifest import Index, Manifest
from policy.model import State
from registry.access import REGISTRY
from registry.catalogue.database import insert_all_new, insert_new
from registry.catalogue.locks import hold_name, take_name
from registry.catalogue.schema import clearances, contents, images, manifests, references, repository_blobs, tags
from registry.catalogue.usage import count
from registry.rules import Amount

MAX_TYPES: Final = 256
"""Types of artifacts without a subject that are looked at in one repository."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A manifest of a repository as it is served.

    `state` is its own or its subject's, None if there is none; `decision` is what it rests on. `alone` is true for an
    artifact that speaks of nothing else, whose state is nobody's.
    """

    digest: Digest
    media_type: str
    kind: str
    artifact_type: str
    alone: bool
    content: bytes
    state: State | None
    reason: str
    message: str
    decision: Digest | None


def _found() -> Select[tuple[object, ...]]:
    return (
        select(
            manifests.c.digest,
            manifests.c.media_type,
            manifests.c.kind,
            manifests.c.artifact_type,
            manifests.c.state_of,
            contents.c.content,
            images.c.state,
            images.c.reason,
            images.c.message,
            images.c.decision,
        )
        .select_from(manifests)
        .join(contents, contents.c.digest == manifests.c.digest)
        .outerjoin(
            images,
            (images.c.repository == manifests.c.repository)
            & (images.c.digest == func.coalesce(manifests.c.state_of, manifests.c.digest)),
        )
        .where(manifests.c.repository == bindparam("repository"))
    )


_BY_DIGEST: Final = _found().where(manifests.c.digest == bindparam("digest"))
_PUSHED: Final = (
    _found()
    .join(tags, (tags.c.repository == manifests.c.repository) & (tags.c.pushed == manifests.c.digest))
    .where(tags.c.tag == bindparam("tag"))
)
_SERVED: Final = (
    _found()
    .join(tags, (tags.c.repository == manifests.c.repository) & (tags.c.served == manifests.c.digest))
    .where(tags.c.tag == bindparam("tag"))
)


def _lone(*columns: ColumnElement[Any]) -> Select[Any]:
    """Artifacts whose state is nobody's; written out, for it is what the index `manifests_alone` is of."""
    kind: BindParameter[str] = bindparam(None, "artifact", literal_execute=True)
    return select(*columns).where(
        manifests.c.repository == bindparam("repository"), manifests.c.kind == kind, manifests.c.state_of.is_(None)
    )


def _lone_types() -> Select[Any]:
    """Each type once, found from the one before it: however many artifacts there are of each."""
    least = _lone(func.min(manifests.c.artifact_type).label("artifact_type"))
    found = least.cte("types", recursive=True)
    more = least.where(manifests.c.artifact_type > found.c.artifact_type).scalar_subquery()
    found = found.union_all(select(more).where(found.c.artifact_type.is_not(None)))
    return select(found.c.artifact_type).where(found.c.artifact_type.is_not(None)).limit(MAX_TYPES)


_LONE_TYPES: Final = _lone_types()
_LONE_REACHING: Final = (
    _lone(manifests.c.digest)
    .join(
        references,
        (references.c.repository == manifests.c.repository) & (references.c.manifest == manifests.c.digest),
    )
    .where(references.c.digest == bindparam("blob"), manifests.c.artifact_type == bindparam("artifact_type"))
    .limit(1)
)


def manifest_by_digest(conn: Connection, repository: str, digest: Digest) -> Found | None:
    """A manifest by its digest."""
    return _first(conn.execute(_BY_DIGEST, {"repository": repository, "digest": digest}).first())


def manifest_by_tag(conn: Connection, repository: str, tag: str, *, served: bool) -> Found | None:
    """The manifest that a tag serves to hosts, or the one that was last pushed to it."""
    query = _SERVED if served else _PUSHED
    return _first(conn.execute(query, {"repository": repository, "tag": tag}).first())


def _first(row: Row[tuple[object, ...]] | None) -> Found | None:
    if row is None:
        return None
    return Found(
        digest=row.digest,
        media_type=row.media_type,
        kind=row.kind,
        artifact_type=row.artifact_type,
        alone=row.kind == "artifact" and row.state_of is None,
        content=row.content,
        state=State(row.state) if row.state is not None else None,
        reason=row.reason or "",
        message=row.message or "",
        decision=row.decision,
    )


def lone_types(conn: Connection, repository: str, blob: Digest | None = None) -> tuple[str, ...]:
    """The types of artifacts without a subject in a repository, or of those alone that reach `blob`."""
    found = tuple(conn.scalars(_LONE_TYPES, {"repository": repository}))
    if blob is None:
        return found
    return tuple(
        kind
        for kind in found
        if conn.scalar(_LONE_REACHING, {"repository": repository, "blob": blob, "artifact_type": kind}) is not None
    )


def manifest_size(conn: Connection, repository: str, digest: Digest) -> tuple[int, str, str] | None:
    """Size in bytes, media type and kind of a manifest of this repository, or None."""
    row = conn.execute(
        select(manifests.c.size, manifests.c.media_type, manifests.c.kind).where(
            manifests.c.repository == repository, manifests.c.digest == digest
        )
    ).first()
    return (row.size, row.media_type, row.kind) if row is not None else None


def kind_of(parsed: Manifest | Index, child_kinds: set[str]) -> str:
    """What a document is: `image`, `index` or `artifact`.

    An index of artifacts alone (a fallback index of referrers, or an empty one) is an artifact: there is nothing
    in it that could be started.
    """
    if isinstance(parsed, Manifest):
        return "image" if parsed.config.media_type in CONFIG_TYPES else "artifact"
    return "index" if child_kinds - {"artifact"} else "artifact"


def add_manifest(
    conn: Connection,
    repository: str,
    parsed: Manifest | Index,
    *,
    kind: str,
    state_of: Digest | None,
    by: str,
    now: datetime,
) -> bool:
    """Record a manifest and what it reaches; True if it was not in this repository yet.

    An image or index that is new begins in quarantine. An artifact takes the state of `state_of`, or of what that
    one takes its own from.

    Raises:
        QuotaError: there is no room for it.
    """
    hold_name(conn, _content(parsed.digest))
    insert_new(conn, contents, digest=parsed.digest, content=parsed.raw)
    root = _root(conn, repository, state_of) if kind == "artifact" and state_of is not None else None
    new = insert_new(
        conn,
        manifests,
        repository=repository,
        digest=parsed.digest,
        media_type=parsed.media_type,
        size=len(parsed.raw),
        kind=kind,
        artifact_type=artifact_type(parsed),
        subject=parsed.subject.digest if parsed.subject is not None else None,
        state_of=root,
        annotations=json.dumps(dict(parsed.annotations), ensure_ascii=False),
        pushed=now,
        pushed_by=by,
    )
    if not new:
        touch_manifest(conn, repository, parsed.digest, now=now)
        if root is not None:
            _take_state(conn, repository, parsed.digest, root)
        return False
    count(conn, repository, by, Amount(bytes=len(parsed.raw), manifests=1))
    at = {"repository": repository, "manifest": parsed.digest}
    insert_all_new(conn, references, [{**at, "digest": digest, "kind": each} for each, digest in _reached(parsed)])
    if kind == "artifact":
        if root is not None:
            _pass_on(conn, repository, parsed.digest, root)
    else:
        insert_new(
            conn,
            images,
            repository=repository,
            digest=parsed.digest,
            state=str(State.QUARANTINED),
            reason="not-judged",
            message="pushed, and not judged yet",
            first_seen=now,
            changed=now,
        )
    return True


def artifact_type(parsed: Manifest | Index) -> str:
    """What the referrers API says of a manifest: its artifactType, else its config's media type (specification 1.1)."""
    if parsed.artifact_type is not None:
        return parsed.artifact_type
    return parsed.config.media_type if isinstance(parsed, Manifest) else ""


def own_artifacts(conn: Connection, repository: str, digest: Digest) -> tuple[Digest, ...]:
    """The artifacts that the registry itself made for an image: clearances and signatures."""
    return tuple(
        conn.scalars(
            select(manifests.c.digest).where(
                manifests.c.repository == repository,
                manifests.c.state_of == digest,
                manifests.c.pushed_by == REGISTRY.name,
            )
        )
    )


def is_own(conn: Connection, repository: str, digest: Digest) -> bool:
    """True if the registry itself made that manifest."""
    found = conn.scalar(
        select(manifests.c.pushed_by).where(manifests.c.repository == repository, manifests.c.digest == digest)
    )
    return found == REGISTRY.name


def touch_manifest(conn: Connection, repository: str, digest: Digest, *, now: datetime) -> None:
    """Have a manifest that nothing names any more stay for the collector's grace from now on."""
    this = update(manifests).where(manifests.c.repository == repository, manifests.c.digest == digest)
    conn.execute(this.values(touched=now))


def let_go(conn: Connection, repository: str, digest: Digest, *, now: datetime) -> None:
    """Have what a manifest alone may have kept stay for the collector's grace from now on.

    Somebody who was told that a blob is there, because of this manifest, is about to push another one with it.
    """
    here = (references.c.repository == repository, references.c.manifest == digest)
    reached = select(references.c.digest).where(*here)
    held = update(repository_blobs).where(repository_blobs.c.repository == repository)
    conn.execute(held.where(repository_blobs.c.digest.in_(reached)).values(touched=now))
    # Each by an index of its own: with OR, databases look at all manifests.
    for kept in (manifests.c.digest.in_(reached), manifests.c.subject == digest, manifests.c.state_of == digest):
        conn.execute(update(manifests).where(manifests.c.repository == repository, kept).values(touched=now))


def remove_manifest(conn: Connection, repository: str, digest: Digest) -> bool:
    """Remove a manifest of this repository with its state, references and clearance; False if there was none.

    Tags that point to it are the caller's to remove before, and to `let_go`. The bytes stay while another repository
    has them.
    """
    where = (manifests.c.repository == repository, manifests.c.digest == digest)
    conn.execute(delete(clearances).where(clearances.c.repository == repository, clearances.c.digest == digest))
    gone = conn.execute(delete(manifests).where(*where).returning(manifests.c.pushed_by, manifests.c.size)).first()
    if gone is None:
        return False
    count(conn, repository, gone.pushed_by, Amount(bytes=-gone.size, manifests=-1))
    forget_content(conn, digest)
    return True


def forget_content(conn: Connection, digest: Digest) -> bool:
    """Remove a manifest's bytes if no repository has it; True if they are gone.

    Another repository may just be taking the same bytes in: they stay then.
    """
    if not take_name(conn, _content(digest)):
        return False
    used = select(manifests.c.digest).where(manifests.c.digest == digest).limit(1)
    if conn.scalar(used) is not None:
        return False
    return bool(conn.execute(delete(contents).where(contents.c.digest == digest)).rowcount)


def _content(digest: Digest) -> str:
    return f"content {digest}"


def _reached(parsed: Manifest | Index) -> list[tuple[str, Digest]]:
    if isinstance(parsed, Index):
        return [("child", child.digest) for child in parsed.manifests]
    return [("config", parsed.config.digest), *(("layer", layer.digest) for layer in parsed.layers)]


def _root(conn: Connection, repository: str, digest: Digest) -> Digest:
    """The image whose state an artifact on `digest` takes: `digest`, or what that artifact takes its own from."""
    found = conn.scalar(
        select(manifests.c.state_of).where(manifests.c.repository == repository, manifests.c.digest == digest)
    )
    return found if found is not None else digest


def _take_state(conn: Connection, repository: str, digest: Digest, root: Digest) -> None:
    conn.execute(
        update(manifests)
        .where(manifests.c.repository == repository, manifests.c.digest == digest, manifests.c.kind == "artifact")
        .where(manifests.c.state_of.is_(None))
        .values(state_of=root)
    )
    _pass_on(conn, repository, digest, root)


def _pass_on(conn: Connection, repository: str, digest: Digest, root: Digest) -> None:
    """What took its state from the artifact `digest` now takes it from that artifact's own source."""
    conn.execute(
        update(manifests)
        .where(manifests.c.repository == repository, manifests.c.state_of == digest)
        .values(state_of=root)
    )
