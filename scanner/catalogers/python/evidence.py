"""Do the files bear a distribution's metadata out? As for dpkg (`catalogers/dpkg/evidence.py`), by RECORD's checksums.

A distribution without checksums (egg-info, or no RECORD) cannot be checked. That counts against it where its
metadata took another version's place: an edited version number would look the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from typing import Final

from ocispec.entry import Kind
from ocispec.tree import Node
from scanner.catalogers.python.distributions import Distribution, RecordedFiles, record_lines
from scanner.model import Unknown
from scanner.records import RecordKind
from scanner.view import ImageView, shown

CODE: Final = "database-contradicts-files"
_EXAMPLES: Final = 3


def contradictions(
    view: ImageView, distribution: Distribution, recorded: RecordedFiles, purl: str
) -> Iterator[Unknown]:
    """What the files say against one distribution."""
    layer, files = distribution.origin, recorded.digests
    if recorded.problem:
        yield Unknown(code="unreadable-record", subject=purl, detail=recorded.problem, layer=layer)
    present = {
        path: node
        for path, digest in files.items()
        if digest and (node := view.node(path)) is not None and (view.sha256(node) or node.entry.kind is not Kind.FILE)
    }
    if not present:
        if distribution.before:
            detail = (
                f"version {distribution.version} took another's place in layer {layer}, and no checksum bears it out"
            )
            yield _unknown(purl, detail, layer)
        return
    changed = [path for path, node in present.items() if not _has(view, node, files[path])]
    if changed:
        where = max(present[path].layer for path in changed)
        detail = f"{len(changed)} of its {len(files)} files are not what RECORD says: {_some(changed)}"
        yield _unknown(purl, detail, where)
    older = [path for path, node in present.items() if node.layer < layer and path not in changed]
    if older:
        detail = (
            f"version {distribution.version} is new in layer {layer}, but {len(older)} of its {len(files)} files "
            f"were not written there: {_some(older)}"
        )
        yield _unknown(purl, detail, layer)


def abandoned(view: ImageView, vouched: Set[bytes]) -> Iterator[Unknown]:
    """Files that a RECORD of this image named, and that are nobody's now: their distribution's metadata were removed.

    `vouched` are the paths for which distributions of the merged tree have checksums, and those that packages own.
    """
    current = {placed.record.offset: placed.layer for placed in view.records(RecordKind.PYTHON_RECORD)}
    for layer, facts in enumerate(view.layers):
        for record in facts.records:
            if record.kind is not RecordKind.PYTHON_RECORD or current.get(record.offset) == layer:
                continue
            root = record.path.rpartition(b"/")[0].rpartition(b"/")[0]
            left = [
                canonical
                for path, digest in record_lines(record.text, root)[0].items()
                if digest
                and (canonical := view.canonical(path)) not in vouched
                and _is_left(view, canonical, layer, digest)
            ]
            if left:
                detail = f"{len(left)} files that it names are there, but it is not: {_some(left)}"
                yield _unknown(shown(record.path), detail, max(len(view.layers) - 1, 0))


def _is_left(view: ImageView, path: bytes, layer: int, digest: bytes) -> bool:
    node = view.files.get(path)
    return node is not None and node.layer <= layer and bool(node.entry.size) and _has(view, node, digest)


def _has(view: ImageView, node: Node, digest: bytes) -> bool:
    return node.entry.kind is Kind.FILE and view.sha256(node) == digest


def _unknown(subject: str, detail: str, layer: int) -> Unknown:
    return Unknown(code=CODE, subject=subject, detail=detail, layer=layer)


def _some(paths: Sequence[bytes]) -> str:
    ordered = sorted(paths)
    more = f" and {len(ordered) - _EXAMPLES} more" if len(ordered) > _EXAMPLES else ""
    return ", ".join(map(shown, ordered[:_EXAMPLES])) + more
