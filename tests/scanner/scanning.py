"""Images of a test as the scanner sees them: layers given as files, read by the real reader and merged."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ocispec.entry import Kind
from ocispec.layer import LayerContent, read_layer
from ocispec.merge import merge
from ocispec.tree import Tree
from scanner.advisories.build import import_sources
from scanner.advisories.sources import sources_in
from scanner.advisories.store import AdvisoryStore
from scanner.facts import LayerFacts, LayerScanner
from scanner.inventory import inventory
from scanner.model import Inventory, Unknown
from tests.support.images import Content, tar

ASSETS = Path(__file__).parent.parent / "assets"
RECORDS = ASSETS / "advisories"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

Layer = Mapping[str, Content] | bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """A test's image: its layers, what they merge to, and what is in it."""

    contents: tuple[LayerContent, ...]
    facts: tuple[LayerFacts, ...]
    tree: Tree
    inventory: Inventory

    def unknowns(self, code: str = "") -> list[Unknown]:
        """The unknowns of one code, or all but those that say there is no operating system."""
        found = self.inventory.unknowns
        if code:
            return [item for item in found if item.code == code]
        return [item for item in found if item.code != "no-operating-system"]

    def files(self) -> list[bytes]:
        """The paths of the merged tree's regular files, the mount points that no layer has left out."""
        return [path for path, node in self.tree.walk() if node.entry.kind is Kind.FILE and node.layer >= 0]

    def file(self, path: str, layer: Path) -> bytes:
        """The content of a file of the tree, which is in the layer whose tar `layer` is."""
        node = self.tree.get(path.encode())
        assert node is not None
        with layer.open("rb") as tar:
            tar.seek(node.entry.offset)
            return tar.read(node.entry.size)

    def purls(self) -> list[str]:
        """The purls without their qualifiers."""
        return [component.purl.partition("?")[0] for component in self.inventory.components]


def read(layer: Layer) -> tuple[LayerContent, LayerFacts]:
    """One layer, read by the real reader with the scanner watching."""
    data = layer if isinstance(layer, bytes) else tar(layer)
    scanner = LayerScanner()
    content = read_layer(io.BytesIO(data), visitor=scanner, what="layer of a test")
    return content, scanner.facts(content.diff_id)


def scanned(*layers: Layer) -> Scanned:
    """An image of `layers`, lowest first."""
    parts = [read(layer) for layer in layers]
    return assembled([part[0] for part in parts], [part[1] for part in parts])


def assembled(contents: Sequence[LayerContent], facts: Sequence[LayerFacts]) -> Scanned:
    """An image of layers that were read before."""
    tree = merge(contents)
    return Scanned(contents=tuple(contents), facts=tuple(facts), tree=tree, inventory=inventory(tree, facts))


def demo_store(folder: Path) -> AdvisoryStore:
    """The records of tests/assets/advisories, imported."""
    snapshot = import_sources(sources_in(RECORDS), folder / "advisories.db", now=NOW)
    return AdvisoryStore.open(snapshot.path, digest=snapshot.digest)
