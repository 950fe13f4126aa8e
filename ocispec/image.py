"""What an image is to everybody else: two small protocols of accessors, and one check.

A source of images (registry, layout, archive, folder) implements `Image`; nobody else needs to know
where the bytes come from. Bytes are proven where they are read: a `Layer` hands out a bounded stream
that raises at its end unless digest and size were right.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import BinaryIO, Protocol

from ocispec.config import ImageConfig
from ocispec.descriptor import COMPRESSION, CONFIG_TYPES, Descriptor
from ocispec.digest import Digest
from ocispec.errors import SpecError, UnsupportedError
from ocispec.manifest import Manifest


class Layer(Protocol):
    """One layer of an image, as it is stored (compressed or not)."""

    @property
    def descriptor(self) -> Descriptor:
        """Media type, digest and size of the stored bytes."""

    @property
    def diff_id(self) -> Digest:
        """The digest of the uncompressed tar, from the config."""

    def open(self) -> AbstractContextManager[BinaryIO]:
        """The stored bytes; reading to the end raises DigestMismatchError unless they are the descriptor's."""


class Image(Protocol):
    """One platform's image."""

    @property
    def manifest(self) -> Manifest:
        """The manifest, with the bytes that its digest names."""

    @property
    def config(self) -> ImageConfig:
        """The config, with the bytes that its digest names."""

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The layers, lowest first."""


def check_image(manifest: Manifest, config: ImageConfig) -> None:
    """Check that a manifest and a config belong together and are an image that we can read.

    Raises:
        SpecError: the config is another one, of another type, or lists another number of layers, or none.
        UnsupportedError: a layer is of a type that we do not read, e.g. one that is fetched from elsewhere (R9).
    """
    what = f"manifest {manifest.digest}"
    if manifest.config.media_type not in CONFIG_TYPES:
        raise SpecError(f"{what}: config type {manifest.config.media_type!r}: an artifact, expected an image")
    if manifest.config.digest != config.digest or manifest.config.size != len(config.raw):
        raise SpecError(
            f"{what}: config mismatch: got {config.digest} of {len(config.raw)} bytes, "
            f"want {manifest.config.digest} of {manifest.config.size}"
        )
    if len(manifest.layers) != len(config.diff_ids):
        raise SpecError(f"{what}: got {len(manifest.layers)} layers, its config lists {len(config.diff_ids)} diff_ids")
    if not manifest.layers:
        raise SpecError(f"{what}: got no layer, expected at least one")
    for layer in manifest.layers:
        if layer.media_type not in COMPRESSION:
            raise UnsupportedError(f"{what}: layer {layer.digest}: type {layer.media_type!r} is not read")
