"""The merged image as catalogers see it: the tree, and what each layer's facts say of the files in it.

A record counts if its file is in the tree, under whatever path. A file that the tree has at a place where
records lie, but which its layer spelled otherwise (behind a symlink, as a hard link), was not read: it is
listed in `unread`, hence Unknown.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ocispec.entry import Kind
from ocispec.tree import SYNTHETIC, Node, Tree
from scanner.errors import ScanError
from scanner.facts import LayerFacts, Record
from scanner.model import Unknown
from scanner.records import RecordKind, record_kind

MAX_TEXT = 256 * 1024 * 1024
"""Characters of all records of an image together; a system of 5,000 packages has about 50 million."""

MAX_LINKS = 5_000
"""Symlinks that lists of files may lead through; real images have some dozens, those of a merged /usr and the like."""

EMPTY_MD5 = bytes.fromhex("d41d8cd98f00b204e9800998ecf8427e")
"""The MD5 of no bytes: empty files are in no table."""

EMPTY_SHA256 = bytes.fromhex("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
"""The SHA-256 of no bytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A record whose file is in the merged tree at `path`, from layer `layer`."""

    path: bytes
    layer: int
    record: Record

    @property
    def location(self) -> str:
        """The path as text."""
        return shown(self.path)


def shown(path: bytes) -> str:
    """A path as text for people: bytes that are not UTF-8 are escaped."""
    return path.decode("utf-8", "backslashreplace")


class ImageView:
    """A merged tree with the facts of its layers, lowest first."""

    def __init__(self, tree: Tree, layers: Sequence[LayerFacts]) -> None:
        """Index the records of `layers` by their place in `tree`.

        Raises:
            ScanError: the tree has a layer that `layers` lacks, or the layers have more records than MAX_TEXT.
        """
        size = sum(len(record.text) for facts in layers for record in facts.records)
        if size > MAX_TEXT:
            raise ScanError(f"the image's package records have {size} characters, expected at most {MAX_TEXT}")
        self.tree = tree
        self.layers = tuple(layers)
        self.files: dict[bytes, Node] = {}
        self._records = [{record.offset: record for record in facts.records} for facts in layers]
        # A later member of the same layer replaces an earlier one.
        self._by_path = [{record.path: record for record in facts.records} for facts in layers]
        self._md5 = [facts.md5_table() for facts in layers]
        self._sha256 = [facts.sha256_table() for facts in layers]
        self._elf = [facts.elf_offsets() for facts in layers]
        self._placed: dict[RecordKind, list[Placed]] = {}
        self._unread: list[tuple[bytes, Node]] = []
        self._folders: dict[bytes, tuple[bytes, Node] | None] = {}
        self._links: dict[bytes, tuple[bytes, Node] | None] = {}
        self._index()

    def _index(self) -> None:
        count = len(self.layers)
        for path, node in self.tree.walk():
            if node.entry.kind is not Kind.FILE or node.layer == SYNTHETIC:
                continue
            if node.layer >= count:
                raise ScanError(f"the image has a layer {node.layer}, of which no facts are known: got {count} layers")
            self.files[path] = node
            record = self._records[node.layer].get(node.entry.offset)
            kind = record_kind(path)
            if record is not None and (kind is None or kind == record.kind):
                self._placed.setdefault(record.kind, []).append(Placed(path=path, layer=node.layer, record=record))
            elif kind is not None:
                self._unread.append((path, node))

    def records(self, kind: RecordKind) -> Sequence[Placed]:
        """The records of a kind that are in force, ordered by path."""
        return self._placed.get(kind, ())

    def record(self, path: bytes) -> Placed | None:
        """The record that a process would read at `path`, through symlinks."""
        found = self.tree.resolve(path)
        if found is None or found[1].layer == SYNTHETIC or found[1].entry.kind is not Kind.FILE:
            return None
        resolved, node = found
        record = self._records[node.layer].get(node.entry.offset)
        return Placed(path=resolved, layer=node.layer, record=record) if record is not None else None

    def history(self, path: bytes) -> Iterator[tuple[int, Record]]:
        """Each layer that writes a record spelled `path`, with the record, lowest first."""
        for layer, by_path in enumerate(self._by_path):
            if path in by_path:
                yield layer, by_path[path]

    def canonical(self, path: bytes) -> bytes:
        """`path` with the symlinks in its folders followed, not its last part: `lib/x` may be `usr/lib/x`."""
        folder, _, name = path.rpartition(b"/")
        found = self._folder(folder)
        if found is None:
            return path
        return found[0] + b"/" + name if found[0] else name

    def node(self, path: bytes) -> Node | None:
        """What is at `path`, symlinks in its folders followed, its last part not."""
        folder, _, name = path.rpartition(b"/")
        found = self._folder(folder)
        return found[1].children.get(name) if found is not None else None

    def _folder(self, folder: bytes) -> tuple[bytes, Node] | None:
        if folder not in self._folders:
            self._folders[folder] = self._walk(folder)
        return self._folders[folder]

    def _walk(self, folder: bytes) -> tuple[bytes, Node] | None:
        path, node = b"", self.tree.root
        for part in folder.split(b"/"):
            if part in (b"", b"."):
                continue
            # No list of files that a tool writes has "..", and following it would be a symlink's work.
            child = node.children.get(part)
            if child is None:
                return None
            path = path + b"/" + part if path else part
            if child.entry.kind is Kind.SYMLINK:
                found = self._link(path)
                if found is None:
                    return None
                path, child = found
            node = child
        return path, node

    def _link(self, path: bytes) -> tuple[bytes, Node] | None:
        """Where the symlink `path` leads; each is followed once, whatever number of listed files lie behind it."""
        if path not in self._links:
            if len(self._links) >= MAX_LINKS:
                raise ScanError(f"lists of files lead through more than {MAX_LINKS} symlinks")
            self._links[path] = self.tree.resolve(path)
        return self._links[path]

    def md5(self, node: Node) -> bytes:
        """The MD5 of a file of the tree; b"" if it was not read."""
        if not node.entry.size:
            return EMPTY_MD5
        return self._md5[node.layer].get(node.entry.offset, b"") if node.layer != SYNTHETIC else b""

    def sha256(self, node: Node) -> bytes:
        """The SHA-256 of a file that may be a Python package's; b"" for others."""
        if not node.entry.size:
            return EMPTY_SHA256
        return self._sha256[node.layer].get(node.entry.offset, b"") if node.layer != SYNTHETIC else b""

    def is_elf(self, node: Node) -> bool:
        """True if a file of the tree is an ELF program or library."""
        return node.layer != SYNTHETIC and node.entry.offset in self._elf[node.layer]

    def unread(self) -> Iterator[Unknown]:
        """The files at places of records that could not be read, each with the reason."""
        reasons: list[Mapping[int, str]] = [
            {problem.offset: problem.detail for problem in facts.problems} for facts in self.layers
        ]
        told: set[tuple[int, int]] = set()
        for path, node in self._unread:
            reason = reasons[node.layer].get(node.entry.offset, "its layer spells it in another way")
            told.add((node.layer, node.entry.offset))
            yield Unknown(code="unreadable-record", subject=shown(path), detail=reason, layer=node.layer)
        for placed in (item for items in self._placed.values() for item in items):
            place = (placed.layer, placed.record.offset)
            if place not in told and (reason := reasons[placed.layer].get(placed.record.offset, "")):
                told.add(place)
                yield Unknown(code="unreadable-record", subject=placed.location, detail=reason, layer=placed.layer)
