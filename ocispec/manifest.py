"""Manifests and indexes: image specification 1.1, manifest.md and image-index.md; Docker's schema 2.

A document is parsed once, from the bytes that were hashed, and keeps them. What could be read in two
ways is refused (CVE-2021-41190): a body whose mediaType is not the one it was sent with, or that has
the members of both kinds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ocispec import fields
from ocispec.descriptor import (
    INDEX_TYPES,
    MANIFEST_TYPES,
    SCHEMA1_TYPES,
    Descriptor,
    MediaType,
    annotation_pairs,
    check_media_type,
)
from ocispec.digest import Digest
from ocispec.errors import SpecError, UnsupportedError
from ocispec.strictjson import JsonValue, parse_object

MAX_MANIFEST = 4 * 1024 * 1024
"""Bytes of a manifest or index (distribution specification: a registry should accept at least 4 MiB)."""

MAX_LAYERS = 512
"""Layers of an image; overlayfs stops at 500 and Docker at 127."""

MAX_CHILDREN = 512
"""Children of an index."""

_NAMES = fields.fold(
    "schemaVersion", "mediaType", "artifactType", "config", "layers", "manifests", "subject", "annotations", "fsLayers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image or artifact manifest; `raw` are the bytes that `digest` names."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An image index or Docker manifest list; `raw` are the bytes that `digest` names."""

    raw: bytes = field(repr=False)
    digest: Digest
    media_type: str
    manifests: tuple[Descriptor, ...]
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    @property
    def platform_children(self) -> tuple[Descriptor, ...]:
        """The children that a host may start: those with a platform other than unknown/unknown."""
        return tuple(child for child in self.manifests if child.platform is None or not child.platform.is_unknown)


def parse_manifest(raw: bytes, media_type: str | None, *, algorithm: str = "sha256") -> Manifest | Index:
    """Return the manifest or index in `raw`, sent as `media_type` (None: not known, the body must say it).

    Raises:
        LimitError: too many bytes, layers or children, or too deep.
        UnsupportedError: Docker schema 1, or a media type that is neither a manifest nor an index.
        SpecError: not what its media type says, or readable as both kinds.
    """
    digest = Digest.of(raw, algorithm)
    what = f"manifest {digest}"
    members = parse_object(raw, what=what, max_bytes=MAX_MANIFEST)
    fields.refuse_variants(members, _NAMES, what=what)
    kind = _media_type(members, media_type, what)
    version = fields.integer(members, "schemaVersion", what=what)
    if version != 2:
        raise SpecError(f"{what}: schemaVersion is {version}, expected 2")
    subject = members.get("subject")
    artifact_type = fields.text(members, "artifactType", what=what, default="")
    if artifact_type:
        check_media_type(artifact_type, what=f"{what}: artifactType")
    parsed_subject = Descriptor.from_json(subject, what=f"{what}: subject") if subject is not None else None
    if kind in MANIFEST_TYPES:
        _refuse_members(members, ("manifests", "fsLayers"), kind, what)
        return Manifest(
            raw=raw,
            digest=digest,
            media_type=kind,
            config=Descriptor.from_json(members.get("config"), what=f"{what}: config"),
            layers=_descriptors(members, "layers", what, MAX_LAYERS),
            artifact_type=artifact_type or None,
            subject=parsed_subject,
            annotations=annotation_pairs(members, what=what),
        )
    _refuse_members(members, ("config", "layers", "fsLayers"), kind, what)
    return Index(
        raw=raw,
        digest=digest,
        media_type=kind,
        manifests=_descriptors(members, "manifests", what, MAX_CHILDREN),
        artifact_type=artifact_type or None,
        subject=parsed_subject,
        annotations=annotation_pairs(members, what=what),
    )


def guess_media_type(raw: bytes) -> str:
    """The media type of a document that nothing else names: its own word, or OCI's by its members.

    OCI manifests before 1.1 need not have `mediaType`; Docker's always do.

    Raises:
        SpecError: it is no JSON object.
    """
    members = parse_object(raw, what="manifest", max_bytes=MAX_MANIFEST)
    said = fields.text(members, "mediaType", what="manifest", default="")
    return said or (MediaType.OCI_INDEX if "manifests" in members else MediaType.OCI_MANIFEST)


def parse_index(raw: bytes, media_type: str | None) -> Index:
    """Like `parse_manifest`, and the document must be an index.

    Raises:
        SpecError: it is a manifest.
    """
    parsed = parse_manifest(raw, media_type)
    if not isinstance(parsed, Index):
        raise SpecError(f"manifest {parsed.digest}: type {parsed.media_type!r}, expected an index")
    return parsed


def parse_image_manifest(raw: bytes, media_type: str | None) -> Manifest:
    """Like `parse_manifest`, and the document must be a manifest.

    Raises:
        SpecError: it is an index.
    """
    parsed = parse_manifest(raw, media_type)
    if not isinstance(parsed, Manifest):
        raise SpecError(f"index {parsed.digest}: type {parsed.media_type!r}, expected a manifest")
    return parsed


def _media_type(members: dict[str, JsonValue], sent: str | None, what: str) -> str:
    said = fields.text(members, "mediaType", what=what, default="")
    if sent in SCHEMA1_TYPES or said in SCHEMA1_TYPES or members.get("schemaVersion") == 1:
        raise UnsupportedError(f"{what}: Docker schema 1 is not accepted, expected schema 2 or an OCI manifest")
    if sent is not None and said and said != sent:
        raise SpecError(f"{what}: mediaType is {said[:80]!r}, sent as {sent[:80]!r}")
    kind = sent or said
    if not kind:
        raise SpecError(f"{what}: mediaType is missing, and nothing else says what it is")
    if kind not in MANIFEST_TYPES | INDEX_TYPES:
        raise UnsupportedError(f"{what}: media type {kind[:80]!r} is neither a manifest nor an index")
    return kind


def _refuse_members(members: dict[str, JsonValue], names: tuple[str, ...], kind: str, what: str) -> None:
    for name in names:
        if name in members:
            raise SpecError(f"{what}: a document of type {kind} must not have {name!r}")


def _descriptors(members: dict[str, JsonValue], name: str, what: str, limit: int) -> tuple[Descriptor, ...]:
    if name not in members:
        raise SpecError(f"{what}: {name} is missing, expected an array")
    return tuple(
        Descriptor.from_json(item, what=f"{what}: {name}[{position}]")
        for position, item in enumerate(fields.items(members, name, what=what, limit=limit))
    )
