"""dpkg's status: which packages are installed, in which state (dpkg(1), "Package states"), and since which layer."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from scanner.deb822 import Deb822Error, paragraphs
from scanner.model import Unknown
from scanner.records import RecordKind
from scanner.view import ImageView, Placed, shown

STATUS: Final = b"var/lib/dpkg/status"

ABSENT: Final = frozenset({"not-installed", "config-files"})
"""The states in which nothing of a package is there but perhaps its configuration (matching.md, case 6)."""

_STATES: Final = ABSENT | {
    "half-installed",
    "unpacked",
    "half-configured",
    "triggers-awaited",
    "triggers-pending",
    "installed",
}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]{0,254}", re.ASCII)
_ARCHITECTURE: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,63}", re.ASCII)
_VERSION: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_SOURCE: Final = re.compile(r"([a-z0-9][a-z0-9+.-]{0,254})(?: \(([!-~]{1,255})\))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """An installed package: `origin` is the first layer of an unbroken run in which this version is installed,
    `record` is where it stands."""

    name: str
    version: str
    architecture: str
    source: str = ""
    source_version: str = ""
    same: bool = False
    conffiles: frozenset[bytes] = field(default=frozenset(), repr=False)
    origin: int = 0
    record: Placed

    @property
    def stems(self) -> tuple[str, ...]:
        """What its files in the info folder may be called, best first (dpkg: Multi-Arch same has the architecture)."""
        names = (f"{self.name}:{self.architecture}", self.name)
        return names if self.same else names[::-1]


_Key = tuple[str, str]


def installed(view: ImageView) -> tuple[list[Package], list[Unknown]]:
    """The packages that the merged tree's databases call installed, and what of them cannot be read."""
    packages: list[Package] = []
    unknowns: list[Unknown] = []
    for placed in (*view.records(RecordKind.DPKG_STATUS), *view.records(RecordKind.DPKG_STATUS_D)):
        older = [
            {_key(entry): entry["version"] for entry in _readable(record.text)}
            for layer, record in view.history(placed.path)
            if layer <= placed.layer
        ]
        layers = [layer for layer, _ in view.history(placed.path) if layer <= placed.layer]
        seen: set[_Key] = set()
        for entry in _entries(placed, unknowns):
            key = _key(entry)
            if key in seen:
                unknowns.append(_unknown(placed, f"{key[0]} for {key[1]} stands in it twice"))
            seen.add(key)
            packages.append(_package(entry, placed, _origin(key, entry["version"], older, layers, placed.layer)))
    return packages, unknowns


def _origin(key: _Key, version: str, older: list[dict[_Key, str]], layers: list[int], default: int) -> int:
    origin = default
    for layer, packages in zip(reversed(layers), reversed(older), strict=True):
        if packages.get(key) != version:
            break
        origin = layer
    return origin


def _key(entry: Mapping[str, str]) -> _Key:
    return entry["package"], entry["architecture"]


def _entries(placed: Placed, unknowns: list[Unknown]) -> Iterator[Mapping[str, str]]:
    """The paragraphs of packages that are there; those that cannot be read go to `unknowns`."""
    for number, paragraph in enumerate(paragraphs(placed.record.text), start=1):
        if not paragraph:
            continue
        problem = _problem(paragraph, needs_status=placed.record.kind is RecordKind.DPKG_STATUS)
        if problem:
            name = _shown(paragraph.get("package", ""))[:80] or f"paragraph {number}"
            unknowns.append(_unknown(placed, f"{name}: {problem}"))
        elif _state(paragraph) not in ABSENT:
            yield paragraph


def _readable(text: str) -> Iterator[Mapping[str, str]]:
    try:
        for paragraph in paragraphs(text):
            if not _problem(paragraph, needs_status=False) and _state(paragraph) not in ABSENT:
                yield paragraph
    except Deb822Error:
        return


def _problem(paragraph: Mapping[str, str], *, needs_status: bool) -> str:
    for name, pattern in (("package", _NAME), ("version", _VERSION), ("architecture", _ARCHITECTURE)):
        value = paragraph.get(name)
        if value is None and _state(paragraph) in ABSENT and "status" in paragraph:
            continue
        if value is None or pattern.fullmatch(value) is None:
            return f"{name} is {value!r:.80}, which cannot be"
    if needs_status and "status" not in paragraph:
        return "its status is missing"
    if "status" in paragraph and _state(paragraph) not in _STATES:
        return f"its status is {paragraph['status']!r:.80}, which dpkg does not know"
    if "source" in paragraph and _SOURCE.fullmatch(paragraph["source"]) is None:
        return f"its source is {paragraph['source']!r:.80}, expected NAME or NAME (VERSION)"
    return ""


def _state(paragraph: Mapping[str, str]) -> str:
    return paragraph.get("status", "install ok installed").rpartition(" ")[2]


def _shown(text: str) -> str:
    # Records hold any bytes; what is told of them is text.
    return shown(text.encode("utf-8", "surrogateescape"))


def _unknown(placed: Placed, detail: str) -> Unknown:
    return Unknown(code="unreadable-record", subject=placed.location, detail=detail, layer=placed.layer)


def _package(paragraph: Mapping[str, str], placed: Placed, origin: int) -> Package:
    source = _SOURCE.fullmatch(paragraph.get("source", paragraph["package"]))
    name, version = source.groups() if source is not None else (paragraph["package"], None)
    return Package(
        name=paragraph["package"],
        version=paragraph["version"],
        architecture=paragraph["architecture"],
        source=name,
        source_version=version or paragraph["version"],
        same=paragraph.get("multi-arch", "") == "same",
        conffiles=frozenset(_conffiles(paragraph.get("conffiles", ""))),
        origin=origin,
        record=placed,
    )


def _conffiles(text: str) -> Iterator[bytes]:
    # " /etc/x MD5", and "obsolete" or "remove-on-upgrade" behind it.
    for line in text.split("\n"):
        path, space, _ = line.strip().partition(" ")
        if space and path.startswith("/"):
            yield path[1:].encode("utf-8", "surrogateescape")
