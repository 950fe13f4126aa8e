"""Installed distributions: the core metadata, and RECORD (PyPA specifications, "Recording installed projects")."""

from __future__ import annotations

import base64
import binascii
import csv
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scanner.facts import Record
from scanner.model import Unknown
from scanner.records import RecordKind
from scanner.view import ImageView, Placed

_NAME: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?", re.ASCII)
_VERSION: Final = re.compile(r"[!-~]{1,255}", re.ASCII)
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """An installed distribution. `root` is the folder that its files are named from, in the merged tree.

    `origin` is the first layer of an unbroken run in which this version's metadata stand at this path; `before` is true
    if a lower layer had another version of it in the same folder.
    """

    name: str
    version: str
    licences: str
    root: bytes
    record: Placed
    origin: int
    before: bool

    @property
    def normal_name(self) -> str:
        """The name as PyPI compares it (PEP 503)."""
        return normal_name(self.name)


def normal_name(name: str) -> str:
    """A distribution's name as PyPI compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distributions(view: ImageView) -> tuple[list[Distribution], list[Unknown]]:
    """The distributions of the merged tree, and what of them cannot be read."""
    found: list[Distribution] = []
    unknowns: list[Unknown] = []
    versions = _all_versions(view)
    for placed in view.records(RecordKind.PYTHON_METADATA):
        name, version, licences = metadata_of(placed.record)
        if not placed.record.text:
            continue  # told by ImageView.unread
        if _NAME.fullmatch(name) is None or _VERSION.fullmatch(version) is None:
            detail = f"name {name!r:.80} and version {version!r:.80} cannot be a distribution's"
            unknowns.append(
                Unknown(code="unreadable-record", subject=placed.location, detail=detail, layer=placed.layer)
            )
            continue
        root = _root(placed.path)
        others = versions.get((root, normal_name(name)), set())
        found.append(
            Distribution(
                name=name,
                version=version,
                licences=licences,
                root=root,
                record=placed,
                origin=_origin(view, placed, name, version),
                before=any(layer < placed.layer and other != version for layer, other in others),
            )
        )
    return found, unknowns


def metadata_of(record: Record) -> tuple[str, str, str]:
    """Name, version and licence expression of a distribution, from its reduced metadata; empty if unreadable."""
    name, version, licences = [*record.text.split("\n"), "", "", ""][:3]
    return name, version, licences


def _root(path: bytes) -> bytes:
    folder = posixpath.dirname(path)
    # "x.egg-info" may be a file, and lies in the folder; PKG-INFO lies in "x.egg-info" or in "x.egg/EGG-INFO".
    return folder if path.endswith(b".egg-info") else posixpath.dirname(folder)


def _all_versions(view: ImageView) -> Mapping[tuple[bytes, str], set[tuple[int, str]]]:
    """Each layer's versions of each distribution, by folder and name."""
    found: dict[tuple[bytes, str], set[tuple[int, str]]] = {}
    for layer, facts in enumerate(view.layers):
        for record in facts.records:
            if record.kind is RecordKind.PYTHON_METADATA:
                name, version, _ = metadata_of(record)
                key = (_root(view.canonical(record.path)), normal_name(name))
                found.setdefault(key, set()).add((layer, version))
    return found


def _origin(view: ImageView, placed: Placed, name: str, version: str) -> int:
    origin = placed.layer
    for layer, record in reversed([item for item in view.history(placed.path) if item[0] <= placed.layer]):
        if metadata_of(record)[:2] != (name, version):
            break
        origin = layer
    return origin


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedFiles:
    """The files of a distribution by path in the tree, with their SHA-256, b"" where the list names none.

    `problem` says why the list cannot be read to its end, "" if it can.
    """

    digests: Mapping[bytes, bytes]
    problem: str = ""


def recorded_files(view: ImageView, distribution: Distribution) -> RecordedFiles:
    """The files that a distribution's RECORD names, or pip's older list beside an egg-info."""
    folder = posixpath.dirname(distribution.record.path)
    placed = view.record(folder + b"/RECORD")
    if placed is not None and placed.record.kind is RecordKind.PYTHON_RECORD:
        lines, problem = record_lines(placed.record.text, distribution.root)
        return RecordedFiles(digests={view.canonical(path): digest for path, digest in lines.items()}, problem=problem)
    placed = view.record(folder + b"/installed-files.txt")
    if placed is not None and placed.record.kind is RecordKind.PYTHON_FILES:
        # Relative to the egg-info folder itself.
        names = filter(None, map(bytes.strip, placed.record.text.encode("utf-8", "surrogateescape").split(b"\n")))
        return RecordedFiles(digests={view.canonical(_join(folder, name)): b"" for name in names})
    return RecordedFiles(digests={})


def record_lines(text: str, root: bytes) -> tuple[dict[bytes, bytes], str]:
    """The paths in a RECORD with their SHA-256 or b"", and why it cannot be read to its end ("" if it can)."""
    found: dict[bytes, bytes] = {}
    try:
        for row in csv.reader(text.split("\n")):
            if row and row[0]:
                path = row[0].encode("utf-8", "surrogateescape")
                found[_join(root, path)] = _digest(row[1] if len(row) > 1 else "")
    except csv.Error as error:
        return found, f"RECORD cannot be read: {error}"
    return found, ""


def _digest(text: str) -> bytes:
    algorithm, _, encoded = text.partition("=")
    if algorithm != "sha256":
        return b""
    try:
        digest = base64.urlsafe_b64decode(encoded + "=" * (-len(encoded) % 4))
    except (binascii.Error, ValueError):
        return b""
    return digest if len(digest) == _DIGEST else b""


def _join(root: bytes, path: bytes) -> bytes:
    joined = posixpath.normpath(path if path.startswith(b"/") else root + b"/" + path)
    while joined.startswith(b"../"):
        joined = joined[3:]
    return joined.lstrip(b"/")
