"""An image's file tree, merged from its layers: what the scanner reads and the root index is written from.

Only the merge (`merge.py`) makes and changes trees; to everybody else they are values.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from ocispec.entry import Entry, Kind

MAX_LINKS: Final = 40
"""Symlinks followed in one look-up, as in the kernel (linux/namei.h, MAXSYMLINKS)."""

MAX_STEPS: Final = 16_384
"""Path components visited in one look-up: forty targets of the greatest length would be 80,000."""

SYNTHETIC: Final = -1
"""The layer of what no layer holds: the mount points of rule M1."""

_DIRECTORY = Kind.DIRECTORY  # an enum's member costs a slow look-up before Python 3.12
_NO_CHILDREN: Final[dict[bytes, Node]] = {}


class Node:
    """One file or directory; names that are hard links of each other share one Node.

    `entry` has the metadata in force, and as `path` the node's name in the tree (the first in byte order
    where it has several). `layer` is the index of the layer that `entry` comes from: where a FILE's data
    lies; for a directory, who set its owner and mode last; SYNTHETIC where no layer did. `nlink` is as
    stat(2) has it: 2 and the subdirectories, or the number of names.
    """

    __slots__ = ("children", "entry", "layer", "nlink")

    def __init__(self, entry: Entry, layer: int) -> None:
        self.entry = entry
        self.layer = layer
        self.children: dict[bytes, Node]
        if entry[1] is _DIRECTORY:
            self.children = {}
            self.nlink = 2
        else:
            self.children = _NO_CHILDREN
            self.nlink = 1

    @property
    def is_directory(self) -> bool:
        """True for a directory."""
        return self.entry.kind is _DIRECTORY

    def __repr__(self) -> str:
        return f"Node({self.entry.path!r}, {self.entry.kind.name}, layer={self.layer})"


class Tree:
    """A merged tree. Paths are raw bytes, relative to the root, which is `b""`."""

    __slots__ = ("root",)

    def __init__(self, root: Node) -> None:
        self.root = root

    def get(self, path: bytes) -> Node | None:
        """What is called `path`, without following any symlink."""
        node: Node | None = self.root
        for part in path.split(b"/") if path else ():
            node = node.children.get(part) if node is not None else None
        return node

    def resolve(self, path: bytes) -> tuple[bytes, Node] | None:
        """What a process with this tree as its root would open as `path`, and its name without symlinks.

        None if nothing is there, a part is not a directory, or more than MAX_LINKS symlinks or MAX_STEPS
        parts would have to be followed. `..` above the root stays at the root.
        """
        trail = [(b"", self.root)]
        pending = path.split(b"/")[::-1]
        links = steps = 0
        while pending:
            part = pending.pop()
            steps += 1
            if steps > MAX_STEPS or not trail[-1][1].is_directory:
                return None
            if part in (b"", b"."):
                continue
            if part == b"..":
                if len(trail) > 1:
                    trail.pop()
                continue
            above, directory = trail[-1]
            node = directory.children.get(part)
            if node is None:
                return None
            if node.entry.kind is Kind.SYMLINK:
                links += 1
                if links > MAX_LINKS:
                    return None
                target = node.entry.target
                if target.startswith(b"/"):
                    del trail[1:]
                pending.extend(target.split(b"/")[::-1])
            else:
                trail.append((above + b"/" + part if above else part, node))
        return trail[-1]

    def walk(self) -> Iterator[tuple[bytes, Node]]:
        """Every path with its node, directories before their children, names sorted by raw bytes."""
        pending: list[tuple[bytes, Node]] = [(b"", self.root)]
        while pending:
            path, node = pending.pop()
            yield path, node
            if node.children:
                prefix = path + b"/" if path else b""
                children = node.children
                pending.extend([(prefix + name, children[name]) for name in sorted(children, reverse=True)])
