"""The format of a backup: lines of JSON, compressed by gzip, the same whatever database the catalogue is on.

    {"format": "pratique-backup", "version": 1, "registry": …, "revision": …, "made": …, …}     the head
    {"table": "accounts", "columns": ["name", …]}           then its rows, in the order of what refers to what
    ["admin", …]                                            numbers, texts, true, false, null; bytes {"base64": …}
    {"rows": {"accounts": 1, …}, "sha256": …}               the end: the digest of all lines before it

Times are whole seconds since the epoch and digests texts, as in the catalogue's columns. A file that is cut off,
changed or longer than its end is refused before anything of it is used.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, Self

from registry.errors import BackupError

FORMAT: Final = "pratique-backup"
VERSION: Final = 1

MAX_LINE: Final = 64 * 2**20
"""Bytes of a line: the largest row is a manifest of 4 MiB, or evidence of a Decision."""

Value = int | str | bool | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What a backup says of itself.

    `records` and `chain` are the number and the hash of the newest audit record; `memory` and `generation` are the
    signer's memory and how far it was, "" and 0 where there was none to be read.
    """

    registry: str
    revision: str
    made: str
    records: int
    chain: str
    memory: str
    generation: int


class Writer:
    """Writes a backup to a stream."""

    def __init__(self, stream: BinaryIO, head: Head) -> None:
        """Begin with the head."""
        self._stream = stream
        self._hash = hashlib.sha256()
        self._rows: dict[str, int] = {}
        self._line({"format": FORMAT, "version": VERSION, **asdict(head)})

    def table(self, name: str, columns: Sequence[str]) -> None:
        """Go on with the rows of a table."""
        self._table = name
        self._rows[name] = 0
        self._line({"table": name, "columns": list(columns)})

    def row(self, values: Sequence[Value]) -> None:
        """One row of it."""
        self._rows[self._table] += 1
        self._line([_shown(value) for value in values])

    def end(self) -> int:
        """Write the end; returns how many rows there are."""
        self._line({"rows": self._rows, "sha256": self._hash.hexdigest()})
        return sum(self._rows.values())

    def _line(self, members: object) -> None:
        line = json.dumps(members, ensure_ascii=True, separators=(",", ":")).encode() + b"\n"
        self._hash.update(line)
        self._stream.write(line)


@contextmanager
def written(path: Path) -> Iterator[BinaryIO]:
    """A new compressed file for its owner alone, which gets its name when the block ends, and is on the disk then.

    Raises:
        BackupError: it cannot be written, or there is a file of that name.
    """
    beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        if path.exists():
            raise BackupError(f"backup {path}: is there already, and is not written over")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            with gzip.GzipFile(filename="", mode="wb", fileobj=file, compresslevel=6, mtime=0) as stream:
                yield stream  # type: ignore[misc]  # a writable stream, whatever its class is called
            file.flush()
            os.fsync(file.fileno())
        beside.rename(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise BackupError(f"backup {path}: {error.strerror or error}") from error
    finally:
        with suppress(OSError):
            beside.unlink(missing_ok=True)


class Reader:
    """A backup that was looked through: its digest is right, and all of it is there."""

    def __init__(self, path: Path) -> None:
        """Look through the file at `path`.

        Raises:
            BackupError: it is no backup, of a later format, damaged, or cannot be read.
        """
        self._path = path
        for _ in self.rows():
            pass

    @classmethod
    def open(cls, path: Path) -> Self:
        """See above."""
        return cls(path)

    @property
    def head(self) -> Head:
        """What it says of itself."""
        return self._head

    @property
    def total(self) -> int:
        """How many rows it has."""
        return self._total

    def rows(self) -> Iterator[tuple[str, tuple[str, ...], list[Value]]]:
        """Each row, with its table and the columns of that.

        Raises:
            BackupError: as above.
        """
        running = hashlib.sha256()
        counts: dict[str, int] = {}
        table = ""
        columns: tuple[str, ...] = ()
        lines = self._lines()
        self._head = self._head_of(next(lines, b""), running)
        for line in lines:
            parsed = self._parsed(line)
            if isinstance(parsed, list):
                if not table or len(parsed) != len(columns):
                    raise self._problem(f"a row of {len(parsed)} values, expected {len(columns)} of table {table!r}")
                counts[table] += 1
                yield table, columns, [self._value(value) for value in parsed]
            elif "table" in parsed:
                table, columns = str(parsed["table"]), tuple(map(str, parsed["columns"]))
                counts[table] = 0
            else:
                self._check_end(parsed, running.hexdigest(), counts)
                if next(lines, None) is not None:
                    raise self._problem("goes on behind its end")
                self._total = sum(counts.values())
                return
            running.update(line)
        raise self._problem("is cut off: it has no end")

    def _head_of(self, line: bytes, running: Any) -> Head:
        running.update(line)
        members = self._parsed(line)
        if not isinstance(members, dict) or members.pop("format", None) != FORMAT:
            raise self._problem("is no backup of a registry's catalogue")
        if (version := members.pop("version", None)) != VERSION:
            raise self._problem(f"is of format version {str(version)[:20]}, this release knows {VERSION}")
        try:
            found = Head(**members)
        except TypeError as error:
            raise self._problem(f"its head is not understood ({error})") from error
        if any(type(getattr(found, each.name)).__name__ != each.type for each in fields(Head)):
            raise self._problem("its head is not understood")
        return found

    def _check_end(self, end: dict[str, Any], digest: str, counts: dict[str, int]) -> None:
        if end.get("sha256") != digest:
            raise self._problem(f"digest mismatch: got {digest}, want {str(end.get('sha256'))[:80]}")
        if end.get("rows") != counts:
            raise self._problem("holds another number of rows than it says")

    def _lines(self) -> Iterator[bytes]:
        try:
            with gzip.open(self._path, "rb") as stream:
                while line := stream.readline(MAX_LINE + 1):
                    if len(line) > MAX_LINE:
                        raise self._problem(f"a line of more than {MAX_LINE} bytes")
                    yield line
        except (OSError, EOFError, zlib.error) as error:
            raise self._problem(str(getattr(error, "strerror", None) or error)) from error

    def _parsed(self, line: bytes) -> Any:
        try:
            return json.loads(line)
        except (ValueError, RecursionError) as error:
            raise self._problem(f"a line is not JSON ({error})") from error

    def _value(self, value: Any) -> Value:
        if isinstance(value, dict):
            try:
                return base64.b64decode(value["base64"], validate=True)
            except (KeyError, TypeError, ValueError) as error:
                raise self._problem(f"bytes that are not base64 ({error})") from error
        if value is None or isinstance(value, str | int):
            return value
        raise self._problem(f"a value of type {type(value).__name__}")

    def _problem(self, what: str) -> BackupError:
        return BackupError(f"backup {self._path}: {what}")


def file_digest(path: Path) -> str:
    """The digest of a file as it lies on the disk, as sha256sum says it."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _shown(value: Value) -> object:
    return {"base64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
