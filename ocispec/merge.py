"""One tree out of an image's layers, by one rule: each layer's members are applied in the tar's order.

Image specification 1.1, layer.md, "Applying Changesets" and "Whiteouts": a member replaces what has its
name, unless both are directories; a whiteout hides what lies in lower layers only, wherever it stands in
its tar. What the specification leaves open (parents that are symlinks, links into lower layers, parents
that no layer names, and so on) is decided in docs/layers.md.

The work is linear in the members and nodes: each directory is swept by a whiteout at most once a layer
(CVE-2026-95838: repeated opaque markers), and the steps through symlinks are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, NoReturn

from ocispec.entry import Entry, HardLink, Kind, Opaque, Whiteout
from ocispec.errors import LayerError, LayerLimitError
from ocispec.layer import LayerContent
from ocispec.limits import LIMITS, Limits
from ocispec.tree import MAX_LINKS, SYNTHETIC, Node, Tree

ChangeKind = Literal["replaced", "removed", "metadata"]

MAX_STEPS: Final = 2_000_000
"""Path components behind symlinks that one merge follows: real images need some thousands."""

_MOUNT_POINTS: Final = (
    (b"proc", Kind.DIRECTORY, 0o755),
    (b"sys", Kind.DIRECTORY, 0o755),
    (b"dev", Kind.DIRECTORY, 0o755),
    (b"run", Kind.DIRECTORY, 0o755),
    (b"etc", Kind.DIRECTORY, 0o755),
    (b"tmp", Kind.DIRECTORY, 0o1777),
    (b"etc/hosts", Kind.FILE, 0o644),
    (b"etc/hostname", Kind.FILE, 0o644),
    (b"etc/resolv.conf", Kind.FILE, 0o644),
)
"""Rule M1: what the runtime mounts over, so it must be there, and be what it looks like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What layer `layer` did to `path`, which the layers below it had, last written by `lower_layer`.

    `replaced`: written again, even with the same content, or removed and written. `removed`: gone, each
    path of a removed directory by itself. `metadata`: a directory's mode, owner or attributes are others;
    its time alone is not reported, for it changes with each file that is added.
    """

    path: bytes
    layer: int
    kind: ChangeKind
    lower_layer: int


def merge(layers: Sequence[LayerContent], *, limits: Limits = LIMITS) -> Tree:
    """The tree of an image, its layers lowest first, with the mount points of rule M1.

    Raises:
        LayerError: a layer does not fit on those below it, or a mount point is of another type.
        LayerLimitError: the tree is larger than `limits` allow.
    """
    return _Merger(layers, limits, record=False).run()


def merge_with_changes(layers: Sequence[LayerContent], *, limits: Limits = LIMITS) -> tuple[Tree, tuple[Change, ...]]:
    """Like `merge`, with what each layer did to those below it, by layer and path."""
    merger = _Merger(layers, limits, record=True)
    tree = merger.run()
    return tree, tuple(merger.changes)


def _directory_entry(path: bytes, mode: int = 0o755) -> Entry:
    return Entry(path, Kind.DIRECTORY, mode, 0, 0)


class _Merger:
    def __init__(self, layers: Sequence[LayerContent], limits: Limits, *, record: bool) -> None:
        self.changes: list[Change] = []
        self._layers = layers
        self._limits = limits
        self._record = record
        self._root = Node(_directory_entry(b""), SYNTHETIC)
        self._layer = 0
        self._path = b""  # of the member that is applied, for errors
        self._nodes = 0  # members of all layers, and implied directories
        self._implied_bytes = 0
        self._steps = 0
        self._links: dict[Node, list[bytes]] = {}  # every name that a node with more than one was given
        # The next six are of one layer.
        self._directories: dict[bytes, Node] = {}  # by their path as spelled, symlinks and all
        self._aliases: set[bytes] = set()  # those of its keys that are not the directory's path in the tree
        self._swept: set[Node] = set()  # directories that hold nothing of lower layers any more
        self._linked: set[tuple[Node, bytes]] = set()  # names given to files of lower layers
        self._below: dict[Node, int] = {}  # directories whose entry was replaced, and the layer that it was from
        self._found: dict[bytes, Change] = {}

    def run(self) -> Tree:
        for index, content in enumerate(self._layers):
            self._layer = index
            self._forget_directories()
            self._swept, self._linked, self._below, self._found = set(), set(), {}, {}
            self._apply(content)
            self.changes += [self._found[path] for path in sorted(self._found)]
        self._add_mount_points()
        tree = Tree(self._root)
        for node, names in self._links.items():
            if held := [name for name in names if tree.get(name) is node]:
                node.entry = node.entry._replace(path=min(held))
        return tree

    def _apply(self, content: LayerContent) -> None:
        # The loop over members that are new at their place is written for speed: they are nearly all.
        layer, record, directories, swept = self._layer, self._record, self._directories, self._swept
        aliases, directory_kind = self._aliases, Kind.DIRECTORY
        self._count_nodes(len(content.members))
        for member in content.members:
            self._path = path = member.path
            if not isinstance(member, Entry):
                self._apply_other(member)
                continue
            if not path:
                self._set_directory(self._root, member)
                continue
            parent_path, _, name = path.rpartition(b"/")
            parent = directories.get(parent_path) or self._directory(parent_path)
            entry = member
            if aliases and parent_path in aliases:
                entry = member._replace(path=_join(parent, name))
            node = parent.children.get(name)
            if node is None:
                if record:
                    self._record_return(entry.path)
                node = Node(entry, layer)
                parent.children[name] = node
                if entry.kind is directory_kind:
                    parent.nlink += 1
                    swept.add(node)
            elif entry.kind is directory_kind and node.is_directory:
                self._set_directory(node, entry)
            else:
                self._replace(parent, name, node, Node(entry, layer))

    def _apply_other(self, member: HardLink | Whiteout | Opaque) -> None:
        if isinstance(member, Opaque):
            self._sweep(self._directory(member.path))
            return
        parent_path, _, name = member.path.rpartition(b"/")
        parent = self._directory(parent_path)
        node = parent.children.get(name)
        if isinstance(member, Whiteout):
            if node is not None:
                self._white_out(parent, name, node)
            return
        path = _join(parent, name)
        if node is not None:
            self._drop(parent, name, node)
        source = self._find(member.target)
        if source is None or source.is_directory:
            found = "a directory" if source is not None else "nothing"
            self._refuse(
                f"a hard link to {member.target[:300]!r}, where {found} is",
                "name the link's target before the link, as a file of this layer or of one below",
            )
        parent.children[name] = source
        source.nlink += 1
        self._links.setdefault(source, [source.entry.path]).append(path)
        if source.layer < self._layer:
            self._linked.add((parent, name))
        if self._record:
            self._record_return(path)

    def _set_directory(self, node: Node, entry: Entry) -> None:
        before, layer = node.entry, node.layer
        node.entry = entry
        node.layer = self._layer
        if layer in (self._layer, SYNTHETIC):
            return
        self._below[node] = layer
        if self._record and before._replace(mtime=entry.mtime) != entry:
            self._note(entry.path, "metadata", layer)

    def _replace(self, parent: Node, name: bytes, old: Node, new: Node) -> None:
        self._drop(parent, name, old)
        parent.children[name] = new
        if new.is_directory:
            parent.nlink += 1
            self._swept.add(new)
        if self._record:
            self._record_return(new.entry.path)

    def _drop(self, parent: Node, name: bytes, node: Node) -> None:
        # The whole subtree goes, whichever layers it is from: a later member replaces it.
        del parent.children[name]
        if node.is_directory:
            parent.nlink -= 1
        if node.is_directory or node.entry.kind is Kind.SYMLINK:
            self._forget_directories()
        pending = [(parent, name, _join(parent, name), node)]
        while pending:
            above, own_name, path, gone = pending.pop()
            if gone.is_directory:
                pending += [(gone, key, path + b"/" + key, child) for key, child in gone.children.items()]
            else:
                gone.nlink -= 1
            self._note_removal(above, own_name, path, gone)

    def _white_out(self, parent: Node, name: bytes, node: Node) -> None:
        if not node.is_directory:
            if self._is_lower(parent, name, node):
                self._drop(parent, name, node)
            return
        self._sweep(node)
        if node.layer == self._layer:
            return
        if node.children:
            # This layer put something into it without naming it: as if nothing had been below.
            self._note_removal(parent, name, node.entry.path, node)
            self._record_return(node.entry.path)
            self._imply_again(node)
        else:
            self._drop(parent, name, node)

    def _imply_again(self, node: Node) -> None:
        self._below[node] = node.layer
        node.entry = _directory_entry(node.entry.path)
        node.layer = self._layer

    def _sweep(self, top: Node) -> None:
        """Remove what lower layers put below `top`, and keep what this layer did."""
        if top in self._swept:
            return
        self._forget_directories()
        # Directories in pre-order; walked backwards, children come before their parents.
        order = [top]
        for directory in order:
            self._swept.add(directory)
            order += [child for child in directory.children.values() if child.is_directory and child not in self._swept]
        lower = {node for node in order[1:] if node.layer != self._layer}
        for directory in reversed(order):
            for name, child in list(directory.children.items()):
                if child.is_directory:
                    if child not in lower:
                        continue
                    if child.children:
                        self._note_removal(directory, name, child.entry.path, child)
                        self._record_return(child.entry.path)
                        self._imply_again(child)
                        continue
                elif not self._is_lower(directory, name, child):
                    continue
                self._drop(directory, name, child)

    def _is_lower(self, parent: Node, name: bytes, node: Node) -> bool:
        return node.layer != self._layer and (parent, name) not in self._linked

    def _directory(self, path: bytes) -> Node:
        """The directory `path`, behind symlinks too; what is missing of it is made."""
        if (known := self._directories.get(path)) is not None:
            return known
        above_path, _, name = path.rpartition(b"/")
        above = self._directories.get(above_path)
        node = None if above is None else above.children.get(name)
        if node is None or not node.is_directory:
            node = self._walk(path.split(b"/"), create=True)
            assert node is not None  # noqa: S101  # for the type checker: with create, it is made or refused
        self._directories[path] = node
        if node.entry.path != path:
            self._aliases.add(path)
        return node

    def _forget_directories(self) -> None:
        # After a directory or symlink is gone, any path may lead elsewhere.
        self._directories.clear()
        self._aliases.clear()
        self._directories[b""] = self._root

    def _find(self, path: bytes) -> Node | None:
        """What is called `path`: symlinks are followed in its parents, not in its last part."""
        parent_path, _, name = path.rpartition(b"/")
        parent = self._directories.get(parent_path) or self._walk(parent_path.split(b"/"), create=False)
        return None if parent is None else parent.children.get(name)

    def _walk(self, parts: list[bytes], *, create: bool) -> Node | None:
        trail = [self._root]
        pending = parts[::-1]
        own = len(pending)  # parts of the path itself that are pending; those above them came from symlinks
        links = 0
        while pending:
            part = pending.pop()
            from_link = len(pending) >= own
            own = min(own, len(pending))
            if from_link:
                self._count_step()
                if part in (b"", b".", b".."):
                    # The reader refuses these in paths; targets of symlinks hold them.
                    del trail[max(1, len(trail) - (part == b"..")) :]
                    continue
            node = self._enter(trail[-1], part, from_link=from_link, create=create)
            if node is None:
                return None
            if node.is_directory:
                trail.append(node)
                continue
            links += 1
            if links > MAX_LINKS:
                self._refuse(f"it lies behind more than {MAX_LINKS} symlinks")
            if node.entry.target.startswith(b"/"):
                del trail[1:]
            pending += node.entry.target.split(b"/")[::-1]
        return trail[-1]

    def _enter(self, directory: Node, part: bytes, *, from_link: bool, create: bool) -> Node | None:
        """The directory or symlink `part`; None, or with `create` an error, if it is neither."""
        node = directory.children.get(part)
        if node is not None and (node.is_directory or node.entry.kind is Kind.SYMLINK):
            return node
        if not create:
            return None
        if node is not None:
            self._refuse(f"it lies in {_join(directory, part)[:300]!r}, which is no directory")
        if from_link:
            self._refuse(f"it lies behind a symlink that leads nowhere: {_join(directory, part)[:300]!r} is missing")
        return self._imply(directory, part)

    def _imply(self, parent: Node, name: bytes) -> Node:
        path = _join(parent, name)
        self._implied_bytes += len(path)
        self._count_nodes(1)
        if self._implied_bytes > self._limits.path_bytes:
            self._refuse_size(f"implied directories take more than {self._limits.path_bytes} bytes of paths")
        node = Node(_directory_entry(path), self._layer)
        parent.children[name] = node
        parent.nlink += 1
        self._swept.add(node)
        if self._record:
            self._record_return(path)
        return node

    def _count_nodes(self, count: int) -> None:
        self._nodes += count
        if self._nodes > self._limits.nodes:
            self._refuse_size(f"the image has more than {self._limits.nodes} members and implied directories")

    def _count_step(self) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            self._refuse_size(f"more than {MAX_STEPS} steps through symlinks")

    def _note_removal(self, parent: Node, name: bytes, path: bytes, node: Node) -> None:
        if not self._record:
            return
        found = self._found.get(path)
        layer = self._below.get(node, node.layer) if found is None else found.lower_layer
        if found is not None or (layer != self._layer and (parent, name) not in self._linked):
            self._note(path, "removed", layer)

    def _record_return(self, path: bytes) -> None:
        removed = self._found.get(path)
        if removed is not None and removed.kind == "removed":
            self._note(path, "replaced", removed.lower_layer)

    def _note(self, path: bytes, kind: ChangeKind, lower_layer: int) -> None:
        self._found[path] = Change(path=path, layer=self._layer, kind=kind, lower_layer=lower_layer)

    def _add_mount_points(self) -> None:
        for path, kind, mode in _MOUNT_POINTS:
            self._path = path
            parent_path, _, name = path.rpartition(b"/")
            parent = self._root.children[parent_path] if parent_path else self._root
            node = parent.children.get(name)
            if node is None:
                parent.children[name] = Node(Entry(path, kind, mode, 0, 0), SYNTHETIC)
                parent.nlink += kind is Kind.DIRECTORY
            elif node.entry.kind is not kind:
                self._layer = node.layer
                self._refuse(
                    f"a {node.entry.kind.name.lower()}, expected a {kind.name.lower()}: the runtime mounts over it",
                    f"remove /{path.decode()} from the image, or make it a {kind.name.lower()}",
                )

    def _refuse(self, problem: str, repair: str = "") -> NoReturn:
        raise LayerError(
            self._message(problem),
            offset=None,
            member=self._path,
            repair=repair or "name its directories in the layer, each before what lies in it",
        )

    def _refuse_size(self, problem: str) -> NoReturn:
        raise LayerLimitError(
            self._message(problem), offset=None, member=self._path, repair="split the image, or leave files out"
        )

    def _message(self, problem: str) -> str:
        return f"layer {self._layers[self._layer].diff_id}: member {self._path[:300]!r}: {problem}"


def _join(parent: Node, name: bytes) -> bytes:
    return parent.entry.path + b"/" + name if parent.entry.path else name
