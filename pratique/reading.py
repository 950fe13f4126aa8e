"""An image read whole, where we are: every layer strictly, merged, its root index built, its facts gathered.

The registry and each host do the same with the same bytes, and arrive at the same root index.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ocispec.blobs import StoredImage
    from ocispec.platform import Platform
    from policy.model import ImageFacts
    from registry.assemble import Assembly


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadImage:
    """What reading an image gave; `index` are the bytes of its root index."""

    image: StoredImage
    facts: ImageFacts
    assembly: Assembly
    index: bytes = field(repr=False)


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
    """
    from registry.assemble import assemble, image_facts
    from scanner.scan import scan_layer

    scans = tuple(map(scan_layer, image.layers))
    assembly, index = assemble([scan.content for scan in scans], [scan.facts for scan in scans], {})
    facts, _ = image_facts(
        assembly,
        registry=registry,
        repository=repository,
        manifest=image.manifest,
        config=image.config,
        first_seen=now,
    )
    return ReadImage(image=image, facts=facts, assembly=assembly, index=index)
