"""Clearances and signatures as clients find them: the registry's own artifacts beside an image (trust.md, Clearance).

Of each cleared digest there is one current clearance: as a referrer, as a sigstore bundle, and under
`sha256-<hex>.att`; and under `sha256-<hex>.sig` one simple signature for each tag that serves it. What is replaced
is taken away, and a digest that is not cleared any more keeps nothing.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, or_, select

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.manifest import Manifest, parse_manifest
from ocispec.reference import Reference
from policy import dsse, wire
from policy.cosign import (
    SIGNATURE_ANNOTATION,
    Artifact,
    attestation_artifact,
    attestation_tag,
    bundle_referrer,
    envelope_referrer,
    signature_artifact,
    signature_tag,
    simple_signing,
)
from registry.access import REGISTRY, is_protected_tag
from registry.audit import Audit
from registry.catalogue.blobs import add_blob
from registry.catalogue.leases import hold_digest
from registry.catalogue.manifests import manifest_by_tag, remove_manifest
from registry.catalogue.schema import manifests, references, tags
from registry.catalogue.tags import remove_tag
from registry.push import Push, push_manifest
from registry.store.interface import BlobStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Writes the registry's artifacts, in the caller's writing transaction. `registry` is its name."""

    store: BlobStore
    audit: Audit
    registry: str

    def publish_clearance(
        self, conn: Connection, repository: str, subject: Descriptor, envelope: bytes, *, now: datetime
    ) -> Digest:
        """Put a clearance beside its subject, in place of the one before; returns the referrer's digest."""
        statement = wire.decode(dsse.parse(envelope, what="clearance").payload, what="clearance")
        predicate = wire.predicate_type(type(statement))
        attached = attestation_artifact(subject.digest, [(envelope, predicate)])
        referrer = envelope_referrer(subject, envelope, predicate)
        made = (referrer, bundle_referrer(subject, envelope, predicate), attached)
        for artifact in made:
            self._push(conn, repository, artifact, now)
        signatures = self._signature_manifest(conn, repository, subject.digest)
        kept = {artifact.digest for artifact in made} | ({signatures.digest} if signatures is not None else set())
        self._remove_others(conn, repository, subject.digest, kept)
        return referrer.digest

    def retract(self, conn: Connection, repository: str, digest: Digest) -> None:
        """Take away all that the registry said in favour of an image."""
        for tag in (attestation_tag(digest), signature_tag(digest)):
            remove_tag(conn, repository, tag)
        self._remove_others(conn, repository, digest, set())

    def has_signature(self, conn: Connection, repository: str, digest: Digest, tag: str) -> bool:
        """True if `digest` has a simple signature for `tag`."""
        return Digest.of(self._payload(repository, tag, digest)) in self._signatures(conn, repository, digest)

    def publish_signatures(
        self,
        conn: Connection,
        repository: str,
        digest: Digest,
        fresh: Mapping[str, tuple[bytes, bytes]],
        *,
        now: datetime,
    ) -> None:
        """Have exactly the tags that serve `digest` signed; `fresh` are new (payload, signature) pairs by tag."""
        stored = self._signatures(conn, repository, digest)
        pairs: list[tuple[bytes, bytes]] = []
        for tag in serving_tags(conn, repository, digest):
            payload = self._payload(repository, tag, digest)
            if tag in fresh:
                pairs.append(fresh[tag])
            elif (signature := stored.get(Digest.of(payload))) is not None:
                pairs.append((payload, signature))
        before = self._signature_manifest(conn, repository, digest)
        made = signature_artifact(digest, pairs) if pairs else None
        if made is not None:
            self._push(conn, repository, made, now)
        elif before is not None:
            remove_tag(conn, repository, signature_tag(digest))
        if before is not None and (made is None or before.digest != made.digest):
            remove_manifest(conn, repository, before.digest)

    def _push(self, conn: Connection, repository: str, artifact: Artifact, now: datetime) -> None:
        for blob in artifact.blobs:
            hold_digest(conn, blob.digest)
            if self.store.size(blob.digest) is None:
                self.store.put(blob.digest, [blob.content], size=len(blob.content))
            add_blob(conn, repository, blob.digest, len(blob.content), by=REGISTRY.name, now=now)
        parsed = parse_manifest(artifact.manifest, artifact.media_type)
        tags = (artifact.tag,) if artifact.tag is not None else ()
        push = Push(repository=repository, parsed=parsed, tags=tags, principal=REGISTRY, source="", now=now)
        # However many referrers others have pushed: they must not keep the clearance out.
        push_manifest(conn, self.audit, push, referrers=sys.maxsize)

    def _payload(self, repository: str, tag: str, digest: Digest) -> bytes:
        return simple_signing(Reference(registry=self.registry, repository=repository, tag=tag), digest)

    def _signature_manifest(self, conn: Connection, repository: str, digest: Digest) -> Manifest | None:
        found = manifest_by_tag(conn, repository, signature_tag(digest), served=False)
        if found is None:
            return None
        parsed = parse_manifest(found.content, found.media_type)
        return parsed if isinstance(parsed, Manifest) else None

    def _signatures(self, conn: Connection, repository: str, digest: Digest) -> dict[Digest, bytes]:
        """The signatures in the `.sig` artifact, by the digests of their payloads."""
        manifest = self._signature_manifest(conn, repository, digest)
        found: dict[Digest, bytes] = {}
        for layer in manifest.layers if manifest is not None else ():
            encoded = dict(layer.annotations).get(SIGNATURE_ANNOTATION, "")
            try:
                found[layer.digest] = base64.b64decode(encoded, validate=True)
            except ValueError as error:
                raise SpecError(f"manifest {digest}: a signature is not base64") from error
        return found

    def _remove_others(self, conn: Connection, repository: str, digest: Digest, kept: set[Digest]) -> None:
        """Remove the registry's artifacts about `digest` that are not `kept`."""
        own = manifests.c.pushed_by == REGISTRY.name
        about = or_(manifests.c.subject == digest, manifests.c.state_of == digest)
        rows = conn.scalars(select(manifests.c.digest).where(manifests.c.repository == repository, own, about)).all()
        for found in rows:
            if found not in kept:
                remove_manifest(conn, repository, found)


def judgements_of(repository: str) -> str:
    """What is held (`locks.hold_alone`) by whoever changes what the registry says in a repository.

    What one judgement says of its image, another one changes when a tag moves away from it.
    """
    return f"judgements {repository}"


def children_of(conn: Connection, repository: str, digest: Digest) -> Sequence[Digest]:
    """The children that an index lists; none for anything else."""
    return conn.scalars(
        select(references.c.digest).where(
            references.c.repository == repository, references.c.manifest == digest, references.c.kind == "child"
        )
    ).all()


def serving_tags(conn: Connection, repository: str, digest: Digest) -> Sequence[str]:
    """The tags that serve a manifest to hosts: by its digest, or by an index that lists it."""
    indexes = select(references.c.manifest).where(
        references.c.repository == repository, references.c.digest == digest, references.c.kind == "child"
    )
    serving = or_(tags.c.served == digest, tags.c.served.in_(indexes))
    found = conn.scalars(select(tags.c.tag).where(tags.c.repository == repository, serving).order_by(tags.c.tag))
    return [tag for tag in found if not is_protected_tag(tag)]
