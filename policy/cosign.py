"""Clearances and signatures in the forms that other tools read: pure functions from bytes to OCI manifests.

| form | found by | read by |
| --- | --- | --- |
| `signature_artifact`: simple signing | tag `sha256-<hex>.sig` | cosign verify, podman, skopeo, CRI-O |
| `attestation_artifact`: DSSE | tag `sha256-<hex>.att` | cosign verify-attestation |
| `envelope_referrer`: DSSE | referrers of the subject | our hosts, oras |
| `bundle_referrer`: sigstore bundle | referrers of the subject | cosign 3, and 2.5 with --new-bundle-format |

Sources: sigstore/cosign specs/SIGNATURE_SPEC.md, ATTESTATION_SPEC.md and BUNDLE_SPEC.md; containers/image
signature/internal/sigstore_payload.go, which refuses a payload with any member that it does not know.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from ocispec import fields
from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.reference import Reference
from ocispec.strictjson import JsonValue, parse_object
from policy import canonical, dsse
from policy.errors import PolicyError, TrustError
from policy.keys import SigningKey

SIMPLE_SIGNING: Final = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION: Final = "dev.cosignproject.cosign/signature"
BUNDLE: Final = "application/vnd.dev.sigstore.bundle.v0.3+json"
BUNDLE_PREDICATE: Final = "dev.sigstore.bundle.predicateType"
BUNDLE_CONTENT: Final = "dev.sigstore.bundle.content"

ATTESTATION: Final = "application/vnd.in-toto+dsse"
"""The artifact type of our own referrers; the predicate type is an annotation, and in the statement."""

PREDICATE_ANNOTATION: Final = "predicateType"
"""The annotation by which cosign names the predicate type of a DSSE layer."""

EMPTY: Final = b"{}"
"""The empty config (image specification 1.1, manifest.md, "Guidance for an Empty Descriptor")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A blob to store."""

    digest: Digest
    content: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A manifest to store with its blobs; `tag` is the one it is found by, or None for a referrer."""

    manifest: bytes = field(repr=False)
    media_type: str
    artifact_type: str
    digest: Digest
    blobs: tuple[Blob, ...]
    tag: str | None


def signature_tag(digest: Digest) -> str:
    """The tag under which cosign looks for the signatures on `digest`."""
    return f"{digest.algorithm}-{digest.hex}.sig"


def attestation_tag(digest: Digest) -> str:
    """The tag under which cosign looks for the attestations on `digest`."""
    return f"{digest.algorithm}-{digest.hex}.att"


def simple_signing(reference: Reference, digest: Digest) -> bytes:
    """The payload that says: `reference` (registry, repository and tag) is `digest`.

    Raises:
        TrustError: `malformed`: the reference has no tag. containers/image takes such a payload for any tag.
    """
    if reference.tag is None:
        raise TrustError("malformed", str(reference), "a simple signature names a tag")
    return canonical.encode(
        {
            "critical": {
                "identity": {"docker-reference": f"{reference.name}:{reference.tag}"},
                "image": {"docker-manifest-digest": str(digest)},
                "type": "cosign container image signature",
            },
            "optional": {},
        }
    )


def sign_references(references: Sequence[Reference], digest: Digest, key: SigningKey) -> Artifact:
    """The `.sig` artifact of `digest` with one signature for each reference that serves it.

    Raises:
        TrustError: `malformed`: a reference without a tag, or none at all.
    """
    payloads = [simple_signing(reference, digest) for reference in references]
    return signature_artifact(digest, [(payload, key.sign(payload)) for payload in payloads])


def signature_artifact(digest: Digest, signed: Sequence[tuple[bytes, bytes]]) -> Artifact:
    """The `.sig` artifact of `digest` from (payload, signature) pairs.

    Raises:
        TrustError: `malformed`: there are none.
    """
    layers = [
        (SIMPLE_SIGNING, payload, {SIGNATURE_ANNOTATION: base64.b64encode(signature).decode()})
        for payload, signature in signed
    ]
    return _tagged(layers, signature_tag(digest), SIMPLE_SIGNING)


def attestation_artifact(digest: Digest, attestations: Sequence[tuple[bytes, str]]) -> Artifact:
    """The `.att` artifact of `digest` from (envelope, predicate type) pairs.

    Raises:
        TrustError: `malformed`: there are none.
    """
    layers = [
        (dsse.MEDIA_TYPE, envelope, {SIGNATURE_ANNOTATION: "", PREDICATE_ANNOTATION: predicate})
        for envelope, predicate in attestations
    ]
    return _tagged(layers, attestation_tag(digest), dsse.MEDIA_TYPE)


def envelope_referrer(subject: Descriptor, envelope: bytes, predicate: str) -> Artifact:
    """A referrer of `subject` that holds one envelope."""
    layer = _layer(dsse.MEDIA_TYPE, envelope, {PREDICATE_ANNOTATION: predicate})
    return _referrer(subject, ATTESTATION, envelope, layer, {PREDICATE_ANNOTATION: predicate})


def bundle_referrer(subject: Descriptor, envelope: bytes, predicate: str) -> Artifact:
    """A referrer of `subject` that holds one envelope as a sigstore bundle (BUNDLE_SPEC.md).

    The key is named by its id in the hint: nothing of it is embedded, as whoever verifies has it.

    Raises:
        TrustError: `malformed`: not an envelope, or not exactly one signature, which is all that a bundle holds.
    """
    parsed = dsse.parse(envelope, what="envelope")
    if len(parsed.signatures) != 1:
        raise TrustError("malformed", "envelope", f"{len(parsed.signatures)} signatures, a sigstore bundle holds one")
    signature = parsed.signatures[0]
    bundle = canonical.encode(
        {
            # Without the key id: sigstore-go compares it with an SSH fingerprint of the key, and skips ours.
            "dsseEnvelope": {
                "payload": base64.b64encode(parsed.payload).decode(),
                "payloadType": parsed.payload_type,
                "signatures": [{"sig": base64.b64encode(signature.signature).decode()}],
            },
            "mediaType": BUNDLE,
            "verificationMaterial": {"publicKey": {"hint": signature.key_id}},
        }
    )
    annotations = {BUNDLE_CONTENT: "dsse-envelope", BUNDLE_PREDICATE: predicate}
    return _referrer(subject, BUNDLE, bundle, _layer(BUNDLE, bundle, {}), annotations)


def envelope_in(media_type: str, blob: bytes) -> bytes:
    """The envelope in a layer of any of these forms, still to be verified.

    Raises:
        TrustError: `malformed`: another media type, or not a bundle that we read.
    """
    what = f"blob {Digest.of(blob)}"
    if media_type == dsse.MEDIA_TYPE:
        return blob
    if media_type != BUNDLE:
        raise TrustError("malformed", what, f"media type {media_type[:80]!r} holds no envelope")
    try:
        bundle = parse_object(blob, what=what, max_bytes=dsse.MAX_ENVELOPE)
        material = fields.child(bundle, "verificationMaterial", what=what) or {}
        hint = fields.text(fields.child(material, "publicKey", what=what) or {}, "hint", what=what)
        envelope = canonical.encode(fields.child(bundle, "dsseEnvelope", what=what) or {})
    except (SpecError, PolicyError) as error:
        raise TrustError("malformed", what, str(error).removeprefix(f"{what}: ")) from None
    parsed = dsse.parse(envelope, what=what)
    return dsse.assemble(parsed.payload, [replace(signature, key_id=hint) for signature in parsed.signatures])


_Layer = tuple[str, bytes, dict[str, str]]


def _tagged(layers: Sequence[_Layer], tag: str, artifact_type: str) -> Artifact:
    if not layers:
        raise TrustError("malformed", tag, "nothing to store")
    # cosign reads these as images, so there is a config that lists the layers; it holds nothing else.
    config = canonical.encode(
        {
            "architecture": "",
            "config": {},
            "os": "",
            "rootfs": {"diff_ids": [str(Digest.of(content)) for _, content, _ in layers], "type": "layers"},
        }
    )
    manifest = canonical.encode(
        {
            "config": Descriptor(media_type=MediaType.OCI_CONFIG, digest=Digest.of(config), size=len(config)).to_json(),
            "layers": [_layer(*layer) for layer in layers],
            "mediaType": str(MediaType.OCI_MANIFEST),
            "schemaVersion": 2,
        }
    )
    return _artifact(manifest, artifact_type, [config, *(content for _, content, _ in layers)], tag)


def _referrer(
    subject: Descriptor, artifact_type: str, content: bytes, layer: dict[str, JsonValue], annotations: dict[str, str]
) -> Artifact:
    pointer = Descriptor(media_type=subject.media_type, digest=subject.digest, size=subject.size)
    manifest = canonical.encode(
        {
            "annotations": dict(annotations),
            "artifactType": artifact_type,
            "config": Descriptor(media_type=MediaType.OCI_EMPTY, digest=Digest.of(EMPTY), size=len(EMPTY)).to_json(),
            "layers": [layer],
            "mediaType": str(MediaType.OCI_MANIFEST),
            "schemaVersion": 2,
            "subject": pointer.to_json(),
        }
    )
    return _artifact(manifest, artifact_type, [EMPTY, content], None)


def _layer(media_type: str, content: bytes, annotations: dict[str, str]) -> dict[str, JsonValue]:
    # Not through Descriptor: cosign wants the signature's annotation on attestations too, and there it is empty.
    layer: dict[str, JsonValue] = {"digest": str(Digest.of(content)), "mediaType": media_type, "size": len(content)}
    if annotations:
        layer["annotations"] = dict(annotations)
    return layer


def _artifact(manifest: bytes, artifact_type: str, contents: Iterable[bytes], tag: str | None) -> Artifact:
    blobs = {Digest.of(content): content for content in contents}
    return Artifact(
        manifest=manifest,
        media_type=str(MediaType.OCI_MANIFEST),
        artifact_type=artifact_type,
        digest=Digest.of(manifest),
        blobs=tuple(Blob(digest=digest, content=content) for digest, content in blobs.items()),
        tag=tag,
    )
