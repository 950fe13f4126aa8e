"""An Image over any place that hands out manifests and blobs by descriptor.

Layout, archive, folder and registry differ only in where bytes come from; what is made of them, and what
is refused, is the same and stands here.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

from ocispec.config import MAX_CONFIG, ImageConfig, parse_config
from ocispec.descriptor import INDEX_TYPES, MANIFEST_TYPES, Descriptor
from ocispec.digest import Digest
from ocispec.errors import LimitError, SpecError
from ocispec.image import check_image
from ocispec.localfile import read_all
from ocispec.manifest import MAX_MANIFEST, Index, Manifest, parse_manifest
from ocispec.platform import Platform, choose


class Blobs(Protocol):
    """A place that blobs and manifests come from."""

    def open_blob(self, descriptor: Descriptor) -> AbstractContextManager[BinaryIO]:
        """The blob's stored bytes; reading to the end raises DigestMismatchError unless they are the descriptor's."""

    def read_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """The manifest or index, proven against the descriptor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredLayer:
    """One layer in a place of blobs; implements ocispec.image.Layer."""

    descriptor: Descriptor
    diff_id: Digest
    blobs: Blobs = field(repr=False)

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The stored bytes; see ocispec.image.Layer."""
        return self.blobs.open_blob(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredImage:
    """One platform's image in a place of blobs; implements ocispec.image.Image."""

    manifest: Manifest
    config: ImageConfig
    layers: tuple[StoredLayer, ...]


def load_image(blobs: Blobs, manifest: Manifest) -> StoredImage:
    """The image that `manifest` describes; its config is read and checked, its layers are not.

    Raises:
        SpecError: manifest and config are not an image that we read (see `check_image`).
    """
    what = f"config {manifest.config.digest}"
    config = parse_config(
        read_document(blobs, manifest.config, limit=MAX_CONFIG, what=what),
        algorithm=manifest.config.digest.algorithm,
    )
    check_image(manifest, config)
    return StoredImage(
        manifest=manifest,
        config=config,
        layers=tuple(
            StoredLayer(descriptor=descriptor, diff_id=diff_id, blobs=blobs)
            for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True)
        ),
    )


def choose_image(blobs: Blobs, document: Manifest | Index, platform: Platform) -> StoredImage:
    """The image in `document`: itself, or the one child of an index that `platform` runs.

    Raises:
        SpecError: no child or several match, the child is no manifest, or its config is for another platform.
    """
    if isinstance(document, Manifest):
        return load_image(blobs, document)
    what = f"index {document.digest}"
    chosen = choose(document.manifests, platform)
    child = blobs.read_manifest(chosen)
    if not isinstance(child, Manifest):
        raise SpecError(f"{what}: child {chosen.digest} for {platform} is an index, expected a manifest")
    image = load_image(blobs, child)
    if not platform.runs(image.config.platform):
        # The index is what was matched, the config is what runs: a lie in one of them is refused (S7).
        raise SpecError(f"{what}: child {chosen.digest} for {platform} has a config for {image.config.platform}")
    return image


def read_document(blobs: Blobs, descriptor: Descriptor, *, limit: int, what: str) -> bytes:
    """The whole of a small blob.

    Raises:
        LimitError: its descriptor says more than `limit` bytes.
        DigestMismatchError: it is not what the descriptor says.
    """
    if descriptor.size > limit:
        raise LimitError(f"{what}: {descriptor.size} bytes, expected at most {limit}")
    with blobs.open_blob(descriptor) as stream:
        return read_all(stream, limit=limit, what=what)


def parse_as(raw: bytes, descriptor: Descriptor) -> Manifest | Index:
    """The manifest in `raw`, which is already known to be the descriptor's bytes.

    Raises:
        SpecError: as `parse_manifest`, also for a descriptor of another kind.
    """
    what = f"manifest {descriptor.digest}"
    if descriptor.media_type not in MANIFEST_TYPES | INDEX_TYPES:
        raise SpecError(f"{what}: type {descriptor.media_type!r}, expected a manifest or an index")
    if len(raw) > MAX_MANIFEST:
        raise LimitError(f"{what}: {len(raw)} bytes, expected at most {MAX_MANIFEST}")
    return parse_manifest(raw, descriptor.media_type, algorithm=descriptor.digest.algorithm)
