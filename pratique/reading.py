"""An image read whole, where we are: each layer once and strictly, merged, its root index built, its facts gathered.

`approve` does it where the key is, so that what is signed was seen by the signer; `scan`, `check` and `inspect` do it
where the developer is. The registry and each host do the same with the same bytes, and arrive at the same root index.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocispec.blobs import StoredImage
    from ocispec.image import Layer
    from ocispec.layer import LayerContent
    from ocispec.platform import Platform
    from policy.model import ImageFacts
    from registry.assemble import Assembly
    from registry.visitor import LayerVisitor
    from scanner.facts import LayerFacts


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadImage:
    """What reading an image gave.

    `contents` are the layers' listings, `index` the bytes of its root index, `errors` say what could not be told of
    it. The times are wall-clock milliseconds, for people.
    """

    image: StoredImage
    contents: tuple[LayerContent, ...] = field(repr=False)
    assembly: Assembly = field(repr=False)
    index: bytes = field(repr=False)
    facts: ImageFacts
    errors: tuple[str, ...]
    reading_ms: int
    assembling_ms: int


def find_image(source: str, *, account: str | None = None, platform: str | None = None) -> StoredImage:
    """The image that a SOURCE names; registries are asked as the account that is remembered for them.

    Raises:
        SpecError: the text, or what it leads to, is refused. CommandError: there is no such account.
    """
    from ocispec.platform import Platform
    from ocispec.source import open_source
    from pratique.control import connect

    wanted: Platform | None = Platform.parse(platform) if platform else None
    return open_source(source, connect=lambda registry: connect(registry, account), platform=wanted)


def reference_of(source: str) -> tuple[str, str]:
    """Registry and repository of a SOURCE; empty for one that is no registry's reference."""
    from ocispec.reference import Reference
    from ocispec.source import SCHEMES

    scheme, colon, _ = source.partition(":")
    if colon and scheme in SCHEMES and scheme != "docker":
        return "", ""
    reference = Reference.parse(source)
    return reference.registry, reference.repository


def read_image(image: StoredImage, *, registry: str, repository: str, now: datetime) -> ReadImage:
    """Read `image`; `registry` and `repository` are where it is to be judged.

    Raises:
        SpecError: a layer is refused, or is not what its digests say, or they do not fit together.
        ScanError: a layer's facts cannot be read.
        OSError: from reading.
    """
    from registry.assemble import assemble, image_facts

    begun = time.monotonic()
    contents: list[LayerContent] = []
    scanned: list[LayerFacts] = []
    accounts: dict[tuple[int, int], bytes] = {}
    for position, layer in enumerate(image.layers):
        content, visitor = _read(layer)
        contents.append(content)
        scanned.append(visitor.scanner.facts(content.diff_id))
        accounts |= {(position, offset): bytes(kept) for offset, _, kept in visitor.accounts}
    read = time.monotonic()
    assembly, index = assemble(contents, scanned, accounts)
    facts, errors = image_facts(
        assembly,
        registry=registry,
        repository=repository,
        manifest=image.manifest,
        config=image.config,
        first_seen=now,
    )
    return ReadImage(
        image=image,
        contents=tuple(contents),
        assembly=assembly,
        index=index,
        facts=facts,
        errors=errors,
        reading_ms=round((read - begun) * 1000),
        assembling_ms=round((time.monotonic() - read) * 1000),
    )


def _read(layer: Layer) -> tuple[LayerContent, LayerVisitor]:
    from ocispec.layer import read_stored_layer
    from registry.visitor import LayerVisitor

    visitor = LayerVisitor()
    with layer.open() as stored:
        return read_stored_layer(stored, layer.descriptor, layer.diff_id, visitor=visitor), visitor
