"""The main path: an inventory judged by advisory data; and an image from its layers to the report.

`scan` is a function of its arguments. The registry calls it again whenever advisories change, with the inventory
that it has kept; nothing is read again. `scan_image` does the whole chain for somebody who holds an image.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from ocispec.image import Image, Layer
from ocispec.layer import READER_VERSION, LayerContent, read_stored_layer
from ocispec.merge import merge
from ocispec.tree import Tree
from scanner.advisories.interface import Advisories
from scanner.facts import FACTS_VERSION, LayerFacts, LayerScanner
from scanner.inventory import inventory as take_inventory
from scanner.lifecycle import ends
from scanner.match import match
from scanner.model import Finding, Inventory, Report, Unknown

SCANNER_VERSION: Final = f"1 (facts {FACTS_VERSION}, reader {READER_VERSION})"
"""Goes up whenever the same image and data may give another report."""


def scan(inventory: Inventory, advisories: Advisories, *, now: datetime) -> Report:
    """Judge an inventory by advisory, exploit and end-of-life data, at the time `now`.

    The report's unknowns include the inventory's.

    Raises:
        ScanError: the data cannot be read.
    """
    system = inventory.operating_system
    findings, doubts = match(inventory.components, system, advisories)
    ended, dateless = ends(inventory.components, system, advisories, now.date())
    return Report(
        inventory=inventory,
        findings=_in_order((*findings, *ended)),
        unknowns=_without_repeats((*inventory.unknowns, *doubts, *dateless)),
        data=advisories.sources,
        scanner_version=SCANNER_VERSION,
    )


def _in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    # A distribution that is installed in two places gives the same finding twice.
    return tuple(sorted(dict.fromkeys(findings), key=lambda item: (item.layer, item.purl, item.kind, item.id)))


def _without_repeats(unknowns: Iterable[Unknown]) -> tuple[Unknown, ...]:
    return tuple(dict.fromkeys(unknowns))


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerScan:
    """A layer that was read once: what is in it, and what it says."""

    content: LayerContent = field(repr=False)
    facts: LayerFacts = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageScan:
    """An image that was scanned; times are wall-clock milliseconds, for people to read."""

    report: Report
    layers: tuple[LayerScan, ...]
    tree: Tree = field(repr=False)
    reading_ms: int
    judging_ms: int


def scan_layer(layer: Layer) -> LayerScan:
    """Read a stored layer once, with both digests checked, and collect its facts on the way.

    Raises:
        SpecError: the layer is refused, or is not what its digests say.
        OSError: from reading.
    """
    scanner = LayerScanner()
    with layer.open() as stored:
        content = read_stored_layer(stored, layer.descriptor, layer.diff_id, visitor=scanner)
    return LayerScan(content=content, facts=scanner.facts(content.diff_id))


def scan_image(image: Image, advisories: Advisories, *, now: datetime) -> ImageScan:
    """Scan an image from its stored layers, each read once.

    Raises:
        SpecError: a layer is refused, or they do not fit together.
        ScanError: the advisory data cannot be read.
        OSError: from reading.
    """
    begun = time.monotonic()
    layers = tuple(map(scan_layer, image.layers))
    read = time.monotonic()
    tree = merge([layer.content for layer in layers])
    report = scan(take_inventory(tree, [layer.facts for layer in layers]), advisories, now=now)
    return ImageScan(
        report=report,
        layers=layers,
        tree=tree,
        reading_ms=round((read - begun) * 1000),
        judging_ms=round((time.monotonic() - read) * 1000),
    )
