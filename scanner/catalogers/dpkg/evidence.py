"""Do the files bear the package database out? (layers.md, "Evidence that can be forged"; attack L8)

No package owns the database, so whoever writes it can say anything. What it says of a package is believed if, by
the database's own checksums:

1. each file of it that is there has the content that the checksum names;
2. each file of it that is there was written in the layer in which its version appeared, or above: an edited
   version number changes no file;
3. something of it is there, and each listed file that is there has a checksum;
4. what lower layers' databases called its files and is still there, unchanged, is somebody's: a package taken
   out of the database, or out of its own checksums, leaves files behind.

Files that are missing are no contradiction: documentation, translations and the like are left out by
`path-exclude`, and images are slimmed by deleting files. Conffiles may be edited; diverted files are looked for where
they were diverted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Final

from ocispec.entry import Kind
from ocispec.tree import Node
from scanner.catalogers.dpkg.database import Package
from scanner.catalogers.dpkg.files import PackageFiles, checksum_lines, stem_of
from scanner.model import Unknown
from scanner.records import RecordKind
from scanner.view import ImageView, shown

CODE: Final = "database-contradicts-files"

EXCLUDABLE: Final = tuple(
    b"usr/share/" + name + b"/"
    for name in (b"doc", b"man", b"info", b"locale", b"lintian", b"linda", b"groff", b"doc-base", b"help", b"i18n")
)
"""Where `path-exclude` settings of slim images leave files out: a package of such files alone may lack them all."""

_OS_RELEASE: Final = b"usr/lib/os-release"

MAX_TOLD_APART: Final = 10
"""Packages taken out of the database that are told one by one; beyond, they are told in one Unknown."""

_EXAMPLES: Final = 3


def contradictions(view: ImageView, package: Package, files: PackageFiles, purl: str) -> Iterator[Unknown]:
    """What the files say against one package's entry (points 1 to 3)."""
    layer = package.record.layer
    if files.listed is None and not files.checksums:
        yield _unknown(purl, "nothing in the database says which files it has", layer)
        return
    if files.broken:
        yield _unknown(purl, f"{files.broken} lines of its checksums cannot be read", layer)
    present = {
        path: node for path in files.checksums if path not in files.conffiles and (node := view.node(path)) is not None
    }
    changed = [path for path, node in present.items() if not _has(view, node, files.checksums[path])]
    if changed:
        where = max(present[path].layer for path in changed)
        detail = f"{len(changed)} of its {len(files.checksums)} files are not what its checksums say: {_some(changed)}"
        yield _unknown(purl, detail, where)
    older = [path for path, node in present.items() if node.layer < package.origin and path not in changed]
    if older:
        detail = (
            f"version {package.version} is new in layer {package.origin}, but {len(older)} of its "
            f"{len(files.checksums)} files were not written there: {_some(older)}"
        )
        yield _unknown(purl, detail, package.origin)
    yield from _incomplete(view, files, purl, layer, anything=bool(present))
    yield from _other_system(view, files, purl)


def _incomplete(view: ImageView, files: PackageFiles, purl: str, layer: int, *, anything: bool) -> Iterator[Unknown]:
    lacking = [path for path in files.checksums if path not in files.conffiles and not path.startswith(EXCLUDABLE)]
    if lacking and not anything:
        yield _unknown(purl, f"none of its {len(files.checksums)} files is there: {_some(lacking)}", layer)
    listed = [path for path in files.listed or () if path in view.files]
    unproven = [path for path in listed if path not in files.checksums and path not in files.conffiles]
    if unproven:
        detail = f"{len(unproven)} of its {len(listed)} listed files have no checksum: {_some(unproven)}"
        yield _unknown(purl, detail, layer)


def _other_system(view: ImageView, files: PackageFiles, purl: str) -> Iterator[Unknown]:
    """The os-release that counts is etc's, and in a package it is a symlink, which has no checksum (L6)."""
    expected = files.checksums.get(_OS_RELEASE)
    found = view.tree.resolve(b"etc/os-release")
    if expected is not None and found is not None and not _has(view, found[1], expected):
        yield _unknown(purl, f"{shown(found[0])} is not the os-release that it ships", found[1].layer)


def abandoned(view: ImageView, packages: Sequence[Package], vouched: Set[bytes]) -> Iterator[Unknown]:
    """Files that a database of this image called a package's, and that are nobody's now (point 4).

    `vouched` are the paths that the packages of the database in force have checksums for.
    """
    present = {stem for package in packages for stem in package.stems}
    left: dict[str, list[bytes]] = {}
    for layer, stem, text in _other_checksums(view, present):
        for path, md5 in checksum_lines(text)[0].items():
            canonical = view.canonical(path)
            node = view.files.get(canonical)
            if node is not None and canonical not in vouched and node.layer <= layer and _has(view, node, md5):
                left.setdefault(stem, []).append(canonical)
    if len(left) > MAX_TOLD_APART:
        names = sorted(left)
        detail = (
            f"{len(left)} packages of lower layers are not in the database, but their files are there: "
            f"{', '.join(names[:_EXAMPLES])} and so on"
        )
        yield _unknown("var/lib/dpkg/status", detail, _database_layer(view))
        return
    for stem, paths in sorted(left.items()):
        what = "its own checksums" if stem in present else "the database"
        detail = f"{stem}: {len(paths)} of its files are there, but were taken out of {what}: {_some(paths)}"
        yield _unknown(f"var/lib/dpkg/info/{stem}", detail, _database_layer(view))


def _other_checksums(view: ImageView, present: Set[str]) -> Iterator[tuple[int, str, str]]:
    """Every layer's checksums, as (layer, package, text), but for those in force of packages that are `present`."""
    in_force = {
        (placed.layer, placed.record.offset)
        for placed in view.records(RecordKind.DPKG_CHECKSUMS)
        if stem_of(placed.path) in present
    }
    for layer, facts in enumerate(view.layers):
        for record in facts.records:
            if record.kind is RecordKind.DPKG_CHECKSUMS and (layer, record.offset) not in in_force:
                yield layer, stem_of(record.path), record.text


def _database_layer(view: ImageView) -> int:
    """The highest layer that wrote the database; 0 if none is left."""
    return max((placed.layer for placed in view.records(RecordKind.DPKG_STATUS)), default=len(view.layers) - 1)


def _has(view: ImageView, node: Node, md5: bytes) -> bool:
    return node.entry.kind is Kind.FILE and view.md5(node) == md5


def _unknown(subject: str, detail: str, layer: int) -> Unknown:
    return Unknown(code=CODE, subject=subject, detail=detail, layer=max(layer, 0))


def _some(paths: Sequence[bytes]) -> str:
    ordered = sorted(paths)
    more = f" and {len(ordered) - _EXAMPLES} more" if len(ordered) > _EXAMPLES else ""
    return ", ".join(map(shown, ordered[:_EXAMPLES])) + more
