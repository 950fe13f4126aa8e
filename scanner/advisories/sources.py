"""Where advisory data comes from: zips, folders and files on disk, read within bounds.

An archive is hostile input too (L5): the number of its members, the bytes of each and of all are capped as they are
inflated, whatever the archive's directory claims.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Final

from scanner.advisories.osv import MAX_RECORD
from scanner.errors import ScanError

MAX_RECORDS: Final = 2_000_000
"""Records of one source; the largest public export, of everything, has about 400,000."""

MAX_TOTAL: Final = 16 * 1024**3
"""Inflated bytes of one source."""


class SourceKind(StrEnum):
    """The forms of data that can be imported."""

    OSV = "osv"
    KEV = "kev"
    END_OF_LIFE = "endoflife"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Data to import. `path` is a zip or folder of records (OSV) or one JSON file; `name` is how a report calls it.

    `date` is when they were got: data are no newer than that. None is now.
    """

    kind: SourceKind
    name: str
    path: Path
    date: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One record as it was stored: its name there, and its bytes, or why they could not be had."""

    name: str
    raw: bytes = b""
    problem: str = ""


def sources_in(folder: Path) -> tuple[Source, ...]:
    """The sources that a folder holds, in the layout of the public exports.

    `osv/ECOSYSTEM/all.zip` or `osv/ECOSYSTEM/*.json`, `kev/*.json`, `endoflife/*.json`.

    Raises:
        ScanError: there is none.
    """
    found: list[Source] = []
    for place in sorted((folder / "osv").glob("*")):
        archive = place / "all.zip"
        if archive.is_file() or any(place.glob("*.json")):
            path = archive if archive.is_file() else place
            found.append(Source(kind=SourceKind.OSV, name=f"osv {place.name}", path=path))
    for kind in (SourceKind.KEV, SourceKind.END_OF_LIFE):
        files = sorted((folder / kind.value).glob("*.json"))
        found += [Source(kind=kind, name=kind.value, path=path) for path in files]
    if not found:
        raise ScanError(f"{folder}: no advisory data, expected osv/, kev/ or endoflife/ with records in it")
    return tuple(found)


def documents(source: Source) -> Iterator[Document]:
    """The documents of a source in the order of their names; one that cannot be read carries its problem.

    Raises:
        ScanError: the source as a whole cannot be read, or is beyond a bound.
    """
    try:
        if source.path.is_dir():
            yield from _from_folder(source.path)
        elif source.path.suffix == ".zip":
            yield from _from_zip(source.path)
        else:
            with source.path.open("rb") as file:
                yield Document(name=source.path.name, raw=file.read())
    except OSError as error:
        raise ScanError(f"{source.path}: {error.strerror or error}") from error


def _from_folder(folder: Path) -> Iterator[Document]:
    total = 0
    for count, path in enumerate(sorted(folder.rglob("*.json"))):
        _check_bounds(folder, count + 1, total)
        with path.open("rb") as file:
            raw = file.read(MAX_RECORD + 1)
        total += len(raw)
        yield _document(str(path.relative_to(folder)), raw)


def _from_zip(path: Path) -> Iterator[Document]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError) as error:
        raise ScanError(f"{path}: not a zip that can be read: {error}") from None
    with archive:
        members = sorted((info for info in archive.infolist() if not info.is_dir()), key=lambda info: info.filename)
        _check_bounds(path, len(members), 0)
        total = 0
        for info in members:
            document = _inflate(archive, info)
            total += len(document.raw)
            _check_bounds(path, 0, total)
            yield document


def _inflate(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Document:
    try:
        with archive.open(info) as member:
            return _document(info.filename, member.read(MAX_RECORD + 1))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, ValueError, EOFError) as error:
        # RuntimeError: encrypted; NotImplementedError: a compression that the library lacks.
        return Document(name=info.filename, problem=f"{info.filename}: cannot be inflated: {error}")


def _document(name: str, raw: bytes) -> Document:
    if len(raw) > MAX_RECORD:
        return Document(name=name, problem=f"{name}: more than {MAX_RECORD} bytes")
    return Document(name=name, raw=raw)


def _check_bounds(path: Path, count: int, total: int) -> None:
    if count > MAX_RECORDS:
        raise ScanError(f"{path}: got {count} records, expected at most {MAX_RECORDS}")
    if total > MAX_TOTAL:
        raise ScanError(f"{path}: more than {MAX_TOTAL} bytes when inflated")
