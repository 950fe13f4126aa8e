"""What a person hands in as advisory data, recognised: exports in a folder, one zip, one JSON file, a snapshot."""

from __future__ import annotations

import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pratique.exits import UsageError

if TYPE_CHECKING:
    from scanner.advisories.sources import Source

_SQLITE: Final = b"SQLite format 3\0"
_KEV: Final = re.compile(rb'"cveID"')
_END_OF_LIFE: Final = re.compile(rb'"releases"\s*:')
_HEAD: Final = 256 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was given: sources to import, and snapshot files, which are complete already."""

    sources: tuple[Source, ...]
    snapshots: tuple[Path, ...]


def recognise(paths: list[Path]) -> Found:
    """What `paths` are. A prefix says what cannot be seen: `osv=`, `kev=` or `endoflife=`.

    A folder with `osv/ECOSYSTEM/`, `kev/` and `endoflife/` in it is all of these; any other folder, and a zip, holds
    OSV records; a JSON file says by its content what it is.

    Raises:
        ScanError: a folder of exports holds none.
        UsageError: nothing that we know.
    """
    from scanner.advisories.sources import sources_in

    sources: list[Source] = []
    snapshots: list[Path] = []
    for given in paths:
        kind, path = _named(given)
        if kind:
            sources.append(_source(kind, path))
        elif path.is_dir() and any((path / name).is_dir() for name in ("osv", "kev", "endoflife")):
            sources += sources_in(path)
        elif path.is_dir():
            sources.append(_source("osv", path))
        elif not path.is_file():
            raise UsageError(f"{path}: no such file or folder")
        elif _head(path).startswith(_SQLITE):
            snapshots.append(path)
        elif zipfile.is_zipfile(path):
            sources.append(_source("osv", path))
        else:
            sources.append(_source(_kind_of_json(path), path))
    return Found(sources=tuple(sources), snapshots=tuple(snapshots))


def _named(given: Path) -> tuple[str, Path]:
    kind, equals, rest = str(given).partition("=")
    return (kind, Path(rest)) if equals and kind in {"osv", "kev", "endoflife"} else ("", given)


def _source(kind: str, path: Path) -> Source:
    from scanner.advisories.sources import Source, SourceKind

    if kind != "osv":
        return Source(kind=SourceKind(kind), name=kind, path=path)
    # As the public export has it: osv/ECOSYSTEM/all.zip; reports and policies call it by the ecosystem.
    name = path.parent.name if path.name == "all.zip" else path.name.removesuffix(path.suffix)
    cleaned = re.sub(r"[^A-Za-z0-9 :._+-]", "-", name) or "records"
    return Source(kind=SourceKind.OSV, name=f"osv {cleaned}", path=path)


def _kind_of_json(path: Path) -> str:
    head = _head(path)
    if not head.lstrip().startswith((b"{", b"[")):
        raise UsageError(f"{path}: neither zip, JSON nor a snapshot")
    if _KEV.search(head):
        return "kev"
    if b'"affected"' in head or (b'"schema_version"' in head and b'"modified"' in head):
        return "osv"
    if _END_OF_LIFE.search(head) or b'"result"' in head:
        return "endoflife"
    raise UsageError(f"{path}: not seen what it is; expected osv=, kev= or endoflife= in front of it")


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)
