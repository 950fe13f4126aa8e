"""Reading a whole image here: each layer once and strictly, then the tree, the root index and the inventory.

`approve` does it where the key is, so that what is signed was seen by the signer; `scan`, `check` and `inspect`
do it where the developer is. It is the registry's own assembly, on the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from ocispec.digest import Digest
from ocispec.layer import LayerContent, read_stored_layer
from registry.assemble import Assembly, assemble, image_facts
from registry.visitor import LayerVisitor

if TYPE_CHECKING:
    from ocispec.image import Image, Layer
    from policy.model import ImageFacts
    from scanner.facts import LayerFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadImage:
    """An image that was read whole; the times are wall-clock milliseconds, for people."""

    image: Image
    contents: tuple[LayerContent, ...] = field(repr=False)
    assembly: Assembly = field(repr=False)
    root_index: bytes = field(repr=False)
    reading_ms: int
    assembling_ms: int

    def facts(self, *, registry: str, repository: str, first_seen: datetime) -> tuple[ImageFacts, tuple[str, ...]]:
        """What identifies the image in a repository, and what could not be told of it."""
        return image_facts(
            self.assembly,
            registry=registry,
            repository=repository,
            manifest=self.image.manifest,
            config=self.image.config,
            first_seen=first_seen,
        )


def read_image(image: Image, *, said: Callable[[Digest], None] = lambda _: None) -> ReadImage:
    """Read every layer of `image`, checking both digests; `said` is called before each layer.

    Raises:
        SpecError: a layer is refused, or the layers do not fit together.
        OSError: from reading.
    """
    begun = time.monotonic()
    contents: list[LayerContent] = []
    scanned: list[LayerFacts] = []
    files: dict[tuple[int, int], bytes] = {}
    for position, layer in enumerate(image.layers):
        said(layer.descriptor.digest)
        content, visitor = _read(layer)
        contents.append(content)
        scanned.append(visitor.scanner.facts(content.diff_id))
        files |= {(position, offset): bytes(kept) for offset, _, kept in visitor.accounts}
    read = time.monotonic()
    assembly, index = assemble(contents, scanned, files)
    return ReadImage(
        image=image,
        contents=tuple(contents),
        assembly=assembly,
        root_index=index,
        reading_ms=round((read - begun) * 1000),
        assembling_ms=round((time.monotonic() - read) * 1000),
    )


def _read(layer: Layer) -> tuple[LayerContent, LayerVisitor]:
    visitor = LayerVisitor()
    with layer.open() as stored:
        return read_stored_layer(stored, layer.descriptor, layer.diff_id, visitor=visitor), visitor
