"""Storing a manifest: what must hold of it in its repository, and what changes with it, in one transaction.

The API and the registry's own signer push through here, so there is one set of rules. A push never fails for
policy: a new image is quarantined, and what the judge makes of it comes later.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from ocispec.config import MAX_CONFIG
from ocispec.descriptor import CONFIG_TYPES, FOREIGN_TYPES, Descriptor
from ocispec.digest import Digest
from ocispec.manifest import Index, Manifest
from policy.cosign import ATTESTATION
from registry.access import Principal, Right, Role, is_protected_tag, tag_subject
from registry.audit import Audit, Event
from registry.catalogue.blobs import blob_size, ensure_repository
from registry.catalogue.manifests import add_manifest, artifact_type, kind_of, manifest_size
from registry.catalogue.referrers import count_referrers
from registry.catalogue.rules import rules_to_keep
from registry.catalogue.tags import Tag, find_tag, push_tag
from registry.errors import DeniedError, ImmutableError, ManifestBlobUnknownError, ManifestInvalidError
from registry.foreign import check_urls
from registry.graph import check_graph

PROTECTED_TYPES: Final = frozenset({ATTESTATION})
"""Artifact types that only the registry's signer may push: hosts look for clearances among them."""


MAX_ANNOTATIONS: Final = 64 * 1024
"""Characters of annotations of a manifest with a subject: the referrers API repeats them in its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Push:
    """One manifest on its way into a repository, with the tags that it is pushed to, if any."""

    repository: str
    parsed: Manifest | Index
    tags: tuple[str, ...]
    principal: Principal
    source: str
    now: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """What came of it: `kind` as in the catalogue, whether it was new in its repository, and whether a tag moved."""

    kind: str
    new: bool
    moved: bool


def push_manifest(conn: Connection, audit: Audit, push: Push, *, referrers: int) -> Pushed:
    """Store a manifest in the caller's writing transaction; a subject may have so many `referrers`.

    Where two can push at a time, the caller holds the repository (`catalogue.blobs.enter_repository`).

    Raises:
        DeniedError: the principal may not create, update, or use that tag or type; a rule forbids to move a tag.
        QuotaError: at the end of the transaction, if it is more than a quota allows.
        ManifestInvalidError: a descriptor does not fit what it points to, leads elsewhere, or to too much; or there
            are too many referrers.
        ManifestBlobUnknownError: a blob or child is not in the repository.
    """
    _check_protected(push)
    _check_rights(conn, push)
    _check_annotations(push.parsed)
    check_urls(push.parsed)
    kinds = _check_reached(conn, push)
    parsed, repository = push.parsed, push.repository
    ensure_repository(conn, repository, by=push.principal.name, now=push.now)
    # cosign's .sig and .att manifests have an image's config, so only who pushes them tells that they are none.
    kind = "artifact" if push.principal.role is Role.REGISTRY else kind_of(parsed, kinds)
    new = add_manifest(
        conn,
        repository,
        parsed,
        kind=kind,
        state_of=_state_of(push),
        by=push.principal.name,
        now=push.now,
    )
    if new:
        if parsed.subject is not None and count_referrers(conn, repository, parsed.subject.digest) > referrers:
            raise ManifestInvalidError(f"manifest {parsed.subject.digest}: expected at most {referrers} referrers")
        _record(conn, audit, push, Event.PUSH, f"{repository}@{parsed.digest}", "", kind)
    moved = False
    for tag in push.tags:
        before = push_tag(conn, repository, tag, parsed.digest, by=push.principal.name, now=push.now)
        if before != parsed.digest:
            moved = True
            _record(conn, audit, push, Event.TAG, f"{repository}:{tag}", str(before or ""), str(parsed.digest))
    return Pushed(kind=kind, new=new, moved=moved)


def _check_protected(push: Push) -> None:
    """Signatures and attestations that clients believe come from the signer alone (trust.md, Clearance)."""
    if push.principal.role is Role.REGISTRY:
        return
    for tag in push.tags:
        if is_protected_tag(tag):
            raise DeniedError(f"tag {tag}: only this registry's signer writes tags sha256-<hex>.<suffix>")
    kind = artifact_type(push.parsed)
    if kind in PROTECTED_TYPES:
        raise DeniedError(f"manifest {push.parsed.digest}: only this registry's signer pushes artifacts of type {kind}")


def _check_annotations(parsed: Manifest | Index) -> None:
    size = sum(len(name) + len(value) for name, value in parsed.annotations)
    if parsed.subject is not None and size > MAX_ANNOTATIONS:
        raise ManifestInvalidError(
            f"manifest {parsed.digest}: got {size} characters of annotations, a referrer has at most {MAX_ANNOTATIONS}"
        )


def _check_rights(conn: Connection, push: Push) -> None:
    """To create, to update and to delete are separate rights on every tag; `latest` is a tag like any other (R5).

    A manifest or tag that is new is created, a tag that points elsewhere is updated; what is there as it is pushed
    changes nothing, and needs either right.
    """
    if push.principal.role is Role.REGISTRY:
        return
    new = manifest_size(conn, push.repository, push.parsed.digest) is None
    wanted = {Right.CREATE: f"{push.repository}@{push.parsed.digest}"} if new else {}
    moved: list[Tag] = []
    for tag in push.tags:
        there = find_tag(conn, push.repository, tag)
        if there is None:
            wanted.setdefault(Right.CREATE, f"{push.repository}:{tag}")
        elif there.pushed != push.parsed.digest:
            wanted.setdefault(Right.UPDATE, f"{push.repository}:{tag}")
            moved.append(there)
    if not wanted and not push.principal.may(Right.UPDATE, push.repository):
        wanted = {Right.CREATE: push.repository}
    for right, what in wanted.items():
        if not push.principal.may(right, push.repository):
            raise DeniedError(f"{push.principal.name} ({push.principal.role}) may not {right} {what}")
    check_changeable(conn, push.repository, moved)


def check_changeable(conn: Connection, repository: str, tags: Iterable[Tag]) -> None:
    """Check that no rule forbids to move or delete one of these tags, whatever rights there are.

    Raises:
        ImmutableError: one does.
    """
    rules = rules_to_keep(conn)
    for tag in tags:
        rule = rules.immutable(repository, tag.name)
        if rule is not None and not is_protected_tag(tag.name):
            raise ImmutableError(
                f"tag {repository}:{tag.name}: rule {rule} keeps it at {tag.pushed}: it is neither moved nor deleted",
                detail={"rule": str(rule), "tag": tag.name, "digest": str(tag.pushed)},
            )


def _check_reached(conn: Connection, push: Push) -> set[str]:
    """Check that all that the manifest reaches is in its repository, as described; returns its children's kinds."""
    parsed = push.parsed
    if isinstance(parsed, Manifest):
        _check_config(parsed)
        _check_blob(conn, push, parsed.config, "config")
        for position, layer in enumerate(parsed.layers):
            if layer.media_type not in FOREIGN_TYPES:
                _check_blob(conn, push, layer, f"layers[{position}]")
        return set()
    kinds: set[str] = set()
    for position, child in enumerate(parsed.manifests):
        found = manifest_size(conn, push.repository, child.digest)
        what = f"manifest {parsed.digest}: manifests[{position}] {child.digest}"
        if found is None:
            raise ManifestBlobUnknownError(f"{what}: not in {push.repository}", detail=str(child.digest))
        size, media_type, kind = found
        if (child.size, child.media_type) != (size, media_type):
            raise ManifestInvalidError(
                f"{what}: described as {child.media_type} of {child.size} bytes, is {media_type} of {size}"
            )
        kinds.add(kind)
    check_graph(conn, push.repository, parsed)
    return kinds


def _check_config(parsed: Manifest) -> None:
    """An image's config is read whole into memory by every client (R10, CVE-2023-25153)."""
    if parsed.config.media_type in CONFIG_TYPES and parsed.config.size > MAX_CONFIG:
        raise ManifestInvalidError(
            f"manifest {parsed.digest}: config of {parsed.config.size} bytes, expected at most {MAX_CONFIG}"
        )


def _check_blob(conn: Connection, push: Push, descriptor: Descriptor, place: str) -> None:
    size = blob_size(conn, push.repository, descriptor.digest)
    what = f"manifest {push.parsed.digest}: {place} {descriptor.digest}"
    if size is None:
        raise ManifestBlobUnknownError(f"{what}: not in {push.repository}", detail=str(descriptor.digest))
    if size != descriptor.size:
        raise ManifestInvalidError(f"{what}: described as {descriptor.size} bytes, is {size}")


def _state_of(push: Push) -> Digest | None:
    """Whose state an artifact takes: its subject's, or that of the image that a tag of it names."""
    if push.parsed.subject is not None:
        return push.parsed.subject.digest
    named = (tag_subject(tag) for tag in push.tags)
    return next((subject for subject in named if subject is not None), None)


def _record(conn: Connection, audit: Audit, push: Push, event: Event, subject: str, before: str, after: str) -> None:
    audit.append(
        conn,
        event,
        principal=push.principal.name,
        source=push.source,
        subject=subject,
        before=before,
        after=after,
    )
