"""Descriptors and media types: image specification 1.1, descriptor.md and media-types.md."""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from ocispec import fields
from ocispec.digest import Digest
from ocispec.errors import DigestMismatchError, LimitError, SpecError
from ocispec.fields import JsonObject
from ocispec.platform import Platform
from ocispec.strictjson import JsonValue

_MEDIA_TYPE = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}/[a-zA-Z0-9][a-zA-Z0-9!#$&^_.+-]{0,126}", re.ASCII)

MAX_DATA = 64 * 1024
"""Embedded `data` that we accept, in characters of base64."""

_NAMES = fields.fold("mediaType", "digest", "size", "urls", "annotations", "data", "artifactType", "platform")


class MediaType(StrEnum):
    """The media types that we give a meaning to; any other is kept as text."""

    OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
    OCI_INDEX = "application/vnd.oci.image.index.v1+json"
    OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
    OCI_EMPTY = "application/vnd.oci.empty.v1+json"
    OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
    OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
    OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
    OCI_FOREIGN = "application/vnd.oci.image.layer.nondistributable.v1.tar"
    OCI_FOREIGN_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
    OCI_FOREIGN_ZSTD = "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
    DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
    DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
    DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
    DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
    DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
    DOCKER_LAYER_ZSTD = "application/vnd.docker.image.rootfs.diff.tar.zstd"
    DOCKER_FOREIGN_GZIP = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    DOCKER_SCHEMA1 = "application/vnd.docker.distribution.manifest.v1+json"
    DOCKER_SCHEMA1_SIGNED = "application/vnd.docker.distribution.manifest.v1+prettyjws"


MANIFEST_TYPES: Final = frozenset({MediaType.OCI_MANIFEST, MediaType.DOCKER_MANIFEST})
INDEX_TYPES: Final = frozenset({MediaType.OCI_INDEX, MediaType.DOCKER_INDEX})
CONFIG_TYPES: Final = frozenset({MediaType.OCI_CONFIG, MediaType.DOCKER_CONFIG})
SCHEMA1_TYPES: Final = frozenset({MediaType.DOCKER_SCHEMA1, MediaType.DOCKER_SCHEMA1_SIGNED})
FOREIGN_TYPES: Final = frozenset(
    {MediaType.OCI_FOREIGN, MediaType.OCI_FOREIGN_GZIP, MediaType.OCI_FOREIGN_ZSTD, MediaType.DOCKER_FOREIGN_GZIP}
)

COMPRESSION: Final[dict[str, str]] = {
    MediaType.OCI_LAYER: "none",
    MediaType.OCI_LAYER_GZIP: "gzip",
    MediaType.OCI_LAYER_ZSTD: "zstd",
    MediaType.DOCKER_LAYER: "none",
    MediaType.DOCKER_LAYER_GZIP: "gzip",
    MediaType.DOCKER_LAYER_ZSTD: "zstd",
}
"""The compression that a layer's media type promises; what arrives must begin as that says."""


def check_media_type(value: str, *, what: str) -> str:
    """Return `value` if it is a media type (RFC 6838 section 4.2).

    Raises:
        SpecError: it is not.
    """
    if _MEDIA_TYPE.fullmatch(value) is None:
        raise SpecError(f"{what}: {value[:80]!r} is not a media type")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A typed, sized, content-addressed pointer to a blob or manifest; sizes in bytes."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    artifact_type: str | None = None
    annotations: tuple[tuple[str, str], ...] = ()
    urls: tuple[str, ...] = field(default=(), repr=False)

    @classmethod
    def from_json(cls, value: JsonValue, *, what: str) -> Descriptor:
        """Return the descriptor in a parsed document; `what` names its place there.

        Raises:
            SpecError: a required member is missing or malformed, or stands there in another case.
        LimitError: embedded data is too long.
        DigestMismatchError: embedded data is another content than the digest's.
        """
        if not isinstance(value, dict):
            raise SpecError(f"{what}: expected a descriptor object")
        fields.refuse_variants(value, _NAMES, what=what)
        platform = fields.child(value, "platform", what=what)
        artifact_type = fields.text(value, "artifactType", what=what, default="")
        digest = Digest.parse(fields.text(value, "digest", what=what))
        size = fields.integer(value, "size", what=what)
        if embedded := fields.text(value, "data", what=what, default=""):
            _check_data(embedded, digest, size, what=what)
        return cls(
            media_type=check_media_type(fields.text(value, "mediaType", what=what), what=f"{what}: mediaType"),
            digest=digest,
            size=size,
            platform=Platform.from_json(platform, what=f"{what}: platform") if platform is not None else None,
            artifact_type=check_media_type(artifact_type, what=f"{what}: artifactType") if artifact_type else None,
            annotations=annotation_pairs(value, what=what),
            urls=fields.texts(value, "urls", what=what, limit=64),
        )

    def to_json(self) -> dict[str, JsonValue]:
        """The descriptor as a JSON object, without embedded data."""
        members: dict[str, JsonValue] = {
            "mediaType": str(self.media_type),
            "digest": str(self.digest),
            "size": self.size,
        }
        if self.artifact_type is not None:
            members["artifactType"] = self.artifact_type
        if self.platform is not None:
            members["platform"] = self.platform.to_json()
        if self.annotations:
            members["annotations"] = dict(self.annotations)
        if self.urls:
            members["urls"] = list(self.urls)
        return members


def _check_data(embedded: str, digest: Digest, size: int, *, what: str) -> None:
    # We never use embedded data, but other clients do: they must not see another content under this digest.
    if len(embedded) > MAX_DATA:
        raise LimitError(f"{what}: embedded data is longer than {MAX_DATA} characters")
    try:
        content = base64.b64decode(embedded, validate=True)
    except ValueError:
        raise SpecError(f"{what}: embedded data is not base64") from None
    if len(content) != size or Digest.of(content, digest.algorithm) != digest:
        raise DigestMismatchError(f"{what}: embedded data is not the {size} bytes of {digest}")


def annotation_pairs(members: JsonObject, *, what: str) -> tuple[tuple[str, str], ...]:
    """The annotations of a manifest, index or descriptor, sorted by key.

    Raises:
        SpecError: not an object of strings.
    """
    return tuple(sorted(fields.text_map(members, "annotations", what=what).items()))
