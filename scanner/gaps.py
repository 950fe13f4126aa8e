"""What is in an image and no cataloger understands: other ecosystems, and programs that no package owns.

A scanner that is silent about what it cannot read is believed to have found it healthy. So each ecosystem, and each
layer with unowned programs, is told once, with a count and examples: enough to refuse, not a flood.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from scanner.model import Unknown
from scanner.view import ImageView, shown

_WHOLE: Final[Mapping[bytes, str]] = {
    b"lib/apk/db/installed": "apk",
    b"usr/lib/apk/db/installed": "apk",
    b"var/lib/rpm/Packages": "rpm",
    b"var/lib/rpm/Packages.db": "rpm",
    b"var/lib/rpm/rpmdb.sqlite": "rpm",
    b"usr/lib/sysimage/rpm/Packages.db": "rpm",
    b"usr/lib/sysimage/rpm/rpmdb.sqlite": "rpm",
    b"usr/share/rpm/rpmdb.sqlite": "rpm",
    b"var/lib/pacman/local/ALPM_DB_VERSION": "pacman",
}
_PATTERNS: Final = (
    ("npm", b"package.json", re.compile(rb"(?:^|/)node_modules/(?:@[^/]+/)?[^/]+/package\.json")),
    ("maven", b"ar", re.compile(rb"\.[jwe]ar")),
    ("gem", b".gemspec", re.compile(rb"/specifications/(?:default/)?[^/]+\.gemspec")),
    ("composer", b"installed.json", re.compile(rb"/composer/installed\.json")),
    ("conda", b".json", re.compile(rb"(?:^|/)conda-meta/[^/]+\.json")),
)
_EXAMPLES: Final = 3


def gaps(view: ImageView, owned: Mapping[bytes, str]) -> Iterator[Unknown]:
    """One Unknown for each ecosystem that is not catalogued, and for each layer with programs that nobody owns."""
    ecosystems: dict[str, list[bytes]] = {}
    programs: dict[int, list[bytes]] = {}
    for path, node in view.files.items():
        if path in owned:
            continue
        ecosystem = _ecosystem(path)
        if ecosystem:
            ecosystems.setdefault(ecosystem, []).append(path)
        if view.is_elf(node):
            programs.setdefault(node.layer, []).append(path)
    for ecosystem, paths in sorted(ecosystems.items()):
        detail = f"{len(paths)} packages or databases of this kind, which are not read: {_some(paths)}"
        layer = min(view.files[path].layer for path in paths)
        yield Unknown(code="unsupported-ecosystem", subject=ecosystem, detail=detail, layer=layer)
    for layer, paths in sorted(programs.items()):
        detail = f"{len(paths)} ELF programs and libraries of this layer belong to no package: {_some(paths)}"
        yield Unknown(code="unowned-executable", subject=shown(min(paths)), detail=detail, layer=layer)


def _ecosystem(path: bytes) -> str:
    if path in _WHOLE:
        return _WHOLE[path]
    for name, suffix, pattern in _PATTERNS:
        if path.endswith(suffix):
            found = pattern.search(path)
            if found is not None and found.end() == len(path):
                return name
    return ""


def _some(paths: list[bytes]) -> str:
    more = f" and {len(paths) - _EXAMPLES} more" if len(paths) > _EXAMPLES else ""
    return ", ".join(map(shown, sorted(paths)[:_EXAMPLES])) + more
