"""Which files a package has: its list and checksums in the info folder, conffiles, and diversions.

dpkg-divert(1): a file that another package diverted lies under its new name, unless it is the diverting package's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from scanner.catalogers.dpkg.database import Package
from scanner.records import RecordKind
from scanner.view import ImageView, Placed

_CHECKSUM: Final = re.compile(rb"(\\?)([0-9a-f]{32}) [ *](.+)")
_ESCAPE: Final = re.compile(rb"\\(.)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFiles:
    """A package's files by path in the tree (see `ImageView.canonical`).

    `listed` is None where there is no list, as in distroless images; `checksums` has the MD5 that the database gives;
    `broken` counts lines that cannot be read.
    """

    listed: frozenset[bytes] | None
    checksums: Mapping[bytes, bytes]
    conffiles: frozenset[bytes]
    broken: int = 0


class InfoFolder:
    """dpkg's info folder in the merged tree."""

    def __init__(self, view: ImageView) -> None:
        """Index the records of `view` by package."""
        self._view = view
        self._lists = {stem_of(placed.path): placed for placed in view.records(RecordKind.DPKG_LIST)}
        self._checksums = {stem_of(placed.path): placed for placed in view.records(RecordKind.DPKG_CHECKSUMS)}
        self._conffiles = {stem_of(placed.path): placed for placed in view.records(RecordKind.DPKG_CONFFILES)}
        self._diversions = dict(_diversions(view))

    def files(self, package: Package) -> PackageFiles:
        """The files of `package`."""
        stems = package.stems
        listed = _first(self._lists, stems)
        checksums = _first(self._checksums, stems)
        conffiles = _first(self._conffiles, stems)
        sums, broken = checksum_lines(checksums.record.text) if checksums is not None else ({}, 0)
        return PackageFiles(
            listed=frozenset(self._paths(_lines(listed), package.name)) if listed is not None else None,
            checksums={self._path(path, package.name): md5 for path, md5 in sums.items()},
            conffiles=frozenset(map(self._view.canonical, (*package.conffiles, *_paths(_lines(conffiles))))),
            broken=broken,
        )

    def _paths(self, lines: list[bytes], package: str) -> Iterator[bytes]:
        for path in _paths(lines):
            yield self._path(path, package)

    def _path(self, path: bytes, package: str) -> bytes:
        canonical = self._view.canonical(path)
        target, owner = self._diversions.get(canonical, (canonical, package))
        return canonical if owner == package else target


def stem_of(path: bytes) -> str:
    """The package (`NAME` or `NAME:ARCH`) that a record in the info folder or in status.d is about."""
    name = path.rpartition(b"/")[2]
    return name.rpartition(b".")[0].decode("utf-8", "backslashreplace")


def checksum_lines(text: str) -> tuple[dict[bytes, bytes], int]:
    """The MD5 of each path in an md5sums file, and how many lines cannot be read."""
    sums: dict[bytes, bytes] = {}
    broken = 0
    for line in text.encode("utf-8", "surrogateescape").split(b"\n"):
        match = _CHECKSUM.fullmatch(line)
        if match is None:
            broken += bool(line.strip())
            continue
        escaped, md5, path = match.groups()
        # md5sum(1) puts a backslash in front of a line whose name it had to escape.
        if escaped:
            path = _ESCAPE.sub(lambda found: {b"n": b"\n", b"r": b"\r"}.get(found[1], found[1]), path)
        sums[path.removeprefix(b"./").lstrip(b"/")] = bytes.fromhex(md5.decode())
    return sums, broken


def _first(records: Mapping[str, Placed], stems: tuple[str, ...]) -> Placed | None:
    return next((records[stem] for stem in stems if stem in records), None)


def _lines(placed: Placed | None) -> list[bytes]:
    return placed.record.text.encode("utf-8", "surrogateescape").split(b"\n") if placed is not None else []


def _paths(lines: list[bytes]) -> Iterator[bytes]:
    for line in lines:
        if line.startswith(b"/") and line != b"/.":
            yield line[1:]


def _diversions(view: ImageView) -> Iterator[tuple[bytes, tuple[bytes, str]]]:
    """From a diverted path to where it lies, and to the package whose own file stays."""
    for placed in view.records(RecordKind.DPKG_DIVERSIONS):
        lines = _lines(placed)
        for position in range(0, len(lines) - 2, 3):
            path, target, package = lines[position : position + 3]
            name = package.decode("utf-8", "backslashreplace")
            yield view.canonical(path.lstrip(b"/")), (view.canonical(target.lstrip(b"/")), name)
