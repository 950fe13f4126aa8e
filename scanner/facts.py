"""The facts of one layer, collected while it streams by: a function of its diff_id and FACTS_VERSION alone.

A `LayerScanner` is a visitor of the layer reader. It keeps the files that say what is installed, in reduced form
(`records.py`, `reduce.py`), and of every regular file an MD5, because that is what dpkg's database has, and of
files that Python packages have a SHA-256, because that is what RECORD has. MD5 tells here whether a database and
files belong together; what a layer is, its diff_id tells. A file is named by its offset in the tar, for the merge
may find it under another path than the layer spells.

In JSON, tables are packed and in base64: 24 bytes a file for MD5, 40 for SHA-256, 8 for an ELF file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, cast

from ocispec.digest import Digest
from ocispec.entry import Entry
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue
from ocispec.tar import Consumer
from scanner.errors import ScanError
from scanner.records import LIMITS, RecordKind, record_kind
from scanner.reduce import reduce_record

FACTS_VERSION: Final = 1
"""Goes up whenever the same layer may give other facts: facts are kept by it."""

MAX_RECORDS: Final = 200_000
"""Records of one layer; a system of 5,000 packages has about 20,000."""

MAX_RECORD_BYTES: Final = 128 * 1024 * 1024
"""Characters of all records of a layer together, reduced; a system of 5,000 packages has about 50 million."""

MAX_PROBLEMS: Final = 1_000
"""Records of a layer that could not be read and are named one by one; one more says that there are others."""

MAX_JSON: Final = 512 * 1024 * 1024
"""Bytes of a layer's facts in JSON."""

_MD5: Final = struct.Struct("<Q16s")
_SHA256: Final = struct.Struct("<Q32s")
_OFFSET: Final = struct.Struct("<Q")
_PYTHON_FOLDERS: Final = (b"site-packages/", b"dist-packages/", b".dist-info/")
_PYTHON_SUFFIXES: Final = (b".py", b".so")
_ELF: Final = b"\x7fELF"


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A file that says what is installed: `path` as the layer spells it, `text` as `reduce_record` left it."""

    offset: int
    kind: RecordKind
    path: bytes
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A record that could not be read, and why."""

    offset: int
    path: bytes
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """What a layer says. `md5`, `sha256` and `elf` are packed tables by offset: the methods unpack them."""

    diff_id: Digest
    records: tuple[Record, ...]
    problems: tuple[Problem, ...] = ()
    md5: bytes = b""
    sha256: bytes = b""
    elf: bytes = b""

    def md5_table(self) -> Mapping[int, bytes]:
        """The MD5 of each regular file that is not empty, by offset."""
        return dict(_MD5.iter_unpack(self.md5))

    def sha256_table(self) -> Mapping[int, bytes]:
        """The SHA-256 of each file that may be a Python package's and is not empty, by offset."""
        return dict(_SHA256.iter_unpack(self.sha256))

    def elf_offsets(self) -> frozenset[int]:
        """The files that are ELF programs or libraries, by offset."""
        return frozenset(offset for (offset,) in _OFFSET.iter_unpack(self.elf))


class LayerScanner:
    """A visitor of `ocispec.layer.read_layer`; `facts` gives what it saw once the layer was read to its end.

    Nothing that a layer holds makes it raise: what cannot be kept becomes a Problem, hence an Unknown.
    """

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._records: list[Record] = []
        self._problems: list[Problem] = []
        self._md5 = bytearray()
        self._sha256 = bytearray()
        self._elf = bytearray()
        self._record_bytes = 0

    def file(self, entry: Entry) -> Consumer | None:
        """What wants the data of a regular file: all of them are hashed."""
        kind = record_kind(entry.path)
        if not entry.size:
            if kind is not None:
                self._keep(entry, kind, b"")
            return None
        path = entry.path
        in_python = path.endswith(_PYTHON_SUFFIXES) or any(folder in path for folder in _PYTHON_FOLDERS)
        if kind is not None:
            if entry.size > LIMITS[kind]:
                self._problem(entry, f"it has {entry.size} bytes, expected at most {LIMITS[kind]} of a {kind}")
            else:
                return _RecordConsumer(self, entry, kind, in_python=in_python)
        return _FileConsumer(self, entry.offset, in_python=in_python)

    def facts(self, diff_id: Digest) -> LayerFacts:
        """The facts, after the layer was read and proven to be `diff_id`."""
        return LayerFacts(
            diff_id=diff_id,
            records=tuple(self._records),
            problems=tuple(self._problems),
            md5=bytes(self._md5),
            sha256=bytes(self._sha256),
            elf=bytes(self._elf),
        )

    def _hashed(self, offset: int, md5: bytes, sha256: bytes, *, elf: bool) -> None:
        self._md5 += _MD5.pack(offset, md5)
        if sha256:
            self._sha256 += _SHA256.pack(offset, sha256)
        if elf:
            self._elf += _OFFSET.pack(offset)

    def _keep(self, entry: Entry, kind: RecordKind, content: bytes) -> None:
        text, problem = reduce_record(kind, content)
        if problem:
            self._problem(entry, problem)
        self._record_bytes += len(text) + len(entry.path)
        if len(self._records) >= MAX_RECORDS or self._record_bytes > MAX_RECORD_BYTES:
            self._problem(entry, "the layer has more package records than we keep")
            return
        self._records.append(Record(offset=entry.offset, kind=kind, path=entry.path, text=text))

    def _problem(self, entry: Entry, detail: str) -> None:
        if len(self._problems) < MAX_PROBLEMS:
            self._problems.append(Problem(offset=entry.offset, path=entry.path, detail=detail))
        elif len(self._problems) == MAX_PROBLEMS:
            detail = f"more than {MAX_PROBLEMS} package records of the layer cannot be read"
            self._problems.append(Problem(offset=entry.offset, path=entry.path, detail=detail))


class _FileConsumer:
    """Hashes one file."""

    __slots__ = ("_elf", "_md5", "_offset", "_scanner", "_sha256")

    def __init__(self, scanner: LayerScanner, offset: int, *, in_python: bool) -> None:
        self._scanner = scanner
        self._offset = offset
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._sha256 = hashlib.sha256() if in_python else None
        self._elf: bool | None = None

    def __call__(self, chunk: memoryview | bytes) -> None:
        if not chunk:
            sha256 = self._sha256.digest() if self._sha256 is not None else b""
            self._scanner._hashed(self._offset, self._md5.digest(), sha256, elf=bool(self._elf))
            return
        if self._elf is None:
            self._elf = _is_program(bytes(chunk[:18]))
        self._md5.update(chunk)
        if self._sha256 is not None:
            self._sha256.update(chunk)


class _RecordConsumer(_FileConsumer):
    """Hashes one file, and keeps what it says."""

    __slots__ = ("_content", "_entry", "_kind")

    def __init__(self, scanner: LayerScanner, entry: Entry, kind: RecordKind, *, in_python: bool) -> None:
        super().__init__(scanner, entry.offset, in_python=in_python)
        self._entry = entry
        self._kind = kind
        self._content = bytearray()

    def __call__(self, chunk: memoryview | bytes) -> None:
        super().__call__(chunk)
        self._content += chunk
        if not chunk:
            self._scanner._keep(self._entry, self._kind, bytes(self._content))


def _is_program(head: bytes) -> bool:
    """True for ELF files that the kernel or the dynamic loader would run: elf.h, e_type ET_EXEC or ET_DYN."""
    if head[:4] != _ELF or len(head) < 18:
        return False
    order = ">" if head[5] == 2 else "<"
    return struct.unpack_from(f"{order}H", head, 16)[0] in (2, 3)


def dump(facts: LayerFacts) -> bytes:
    """The facts as JSON, in ASCII; the same facts give the same bytes."""
    members = {
        "version": FACTS_VERSION,
        "diffId": str(facts.diff_id),
        "records": [[item.offset, item.kind, _text(item.path), item.text] for item in facts.records],
        "problems": [[item.offset, _text(item.path), item.detail] for item in facts.problems],
        "md5": base64.b64encode(facts.md5).decode(),
        "sha256": base64.b64encode(facts.sha256).decode(),
        "elf": base64.b64encode(facts.elf).decode(),
    }
    return json.dumps(members, separators=(",", ":")).encode()


def load(raw: bytes, diff_id: Digest) -> LayerFacts:
    """The facts of the layer `diff_id` that `dump` wrote.

    Raises:
        ScanError: they are of another version or layer, or not what `dump` writes: the layer must be read again.
    """
    what = f"facts of layer {diff_id}"
    if len(raw) > MAX_JSON:
        raise ScanError(f"{what}: got {len(raw)} bytes, expected at most {MAX_JSON}")
    try:
        # Not the strict parser: path and text hold any bytes (as surrogates), and there are many brackets.
        members = cast("dict[str, JsonValue]", json.loads(raw))
        if members["version"] != FACTS_VERSION or members["diffId"] != str(diff_id):
            raise ScanError(
                f"{what}: got version {members['version']!r:.20} of {members['diffId']!r:.90}, expected {FACTS_VERSION}"
            )
        return LayerFacts(
            diff_id=diff_id,
            records=tuple(map(_record, cast("list[list[JsonValue]]", members["records"]))),
            problems=tuple(map(_read_problem, cast("list[list[JsonValue]]", members["problems"]))),
            md5=_table(members["md5"], _MD5),
            sha256=_table(members["sha256"], _SHA256),
            elf=_table(members["elf"], _OFFSET),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, binascii.Error, SpecError) as error:
        raise ScanError(f"{what}: not what the scanner writes: {type(error).__name__}: {error!s:.120}") from None


def _record(item: list[JsonValue]) -> Record:
    offset, kind, path, text = item
    if not isinstance(offset, int) or not isinstance(text, str):
        raise TypeError("a record is not [offset, kind, path, text]")
    return Record(offset=offset, kind=RecordKind(cast(str, kind)), path=_bytes(cast(str, path)), text=text)


def _read_problem(item: list[JsonValue]) -> Problem:
    offset, path, detail = item
    if not isinstance(offset, int) or not isinstance(detail, str):
        raise TypeError("a problem is not [offset, path, detail]")
    return Problem(offset=offset, path=_bytes(cast(str, path)), detail=detail)


def _table(value: JsonValue, row: struct.Struct) -> bytes:
    table = base64.b64decode(cast(str, value), validate=True)
    if len(table) % row.size:
        raise ValueError(f"a table of {len(table)} bytes, expected a multiple of {row.size}")
    return table


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


def _bytes(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")
