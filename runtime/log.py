"""A container's output, kept: one JSON object a line, as docker's json-file driver writes it, within bounds.

    {"log": "hello\\n", "stream": "stdout", "time": "2026-11-24T09:00:00.123456Z"}

A line without its newline is a part: its next part follows under the same stream. Bytes that are not UTF-8
become U+FFFD.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import parse_object
from runtime.model import LogLimits

Stream = Literal["stdout", "stderr"]
PART: Final = 16 * 1024
"""Bytes after which a line is written in parts."""
_PAUSE: Final = 0.1
"""Seconds between two looks of a reader that follows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One line of output, or a part of one; `time` is RFC 3339 in UTC."""

    stream: Stream
    time: str
    text: str


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as RFC 3339 in UTC, with microseconds."""
    whole = int(seconds)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((seconds - whole) * 1e6):06d}Z"


class LogWriter:
    """Writes a container's log. A full disk loses output, never the container: `lost` counts the bytes."""

    def __init__(self, folder: Path, limits: LogLimits) -> None:
        """Begin the log in `folder`, appending to what is there."""
        self._path = folder / "log"
        self._limits = limits
        self._file = self._open()
        self._size = self._path.stat().st_size
        self._rest: dict[Stream, bytes] = {"stdout": b"", "stderr": b""}
        self.lost = 0

    def write(self, stream: Stream, data: bytes) -> None:
        """Add output as it came; whole lines are written, the rest waits for its newline."""
        *lines, rest = (self._rest[stream] + data).split(b"\n")
        for line in lines:
            self._parts(stream, line + b"\n")
        while len(rest) >= PART:
            self._line(stream, rest[:PART])
            rest = rest[PART:]
        self._rest[stream] = rest

    def close(self) -> None:
        """Write what waits and close the file."""
        for stream, rest in self._rest.items():
            if rest:
                self._parts(stream, rest)
        self._file.close()

    def _parts(self, stream: Stream, line: bytes) -> None:
        for start in range(0, len(line), PART):
            self._line(stream, line[start : start + PART])

    def _line(self, stream: Stream, data: bytes) -> None:
        entry = {"log": data.decode("utf-8", "replace"), "stream": stream, "time": timestamp(time.time())}
        raw = json.dumps(entry).encode() + b"\n"
        try:
            if self._size + len(raw) > self._limits.max_bytes:
                self._rotate()
            self._file.write(raw)
        except OSError:
            self.lost += len(data)
        else:
            self._size += len(raw)

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._limits.files - 1, 0, -1):
            source = self._path if number == 1 else self._path.with_name(f"log.{number - 1}")
            with contextlib.suppress(FileNotFoundError):
                source.replace(self._path.with_name(f"log.{number}"))
        self._path.unlink(missing_ok=True)
        self._file = self._open()
        self._size = 0

    def _open(self) -> BinaryIO:
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        return os.fdopen(fd, "ab", buffering=0)


def read_log(folder: Path, *, follow: bool = False, ended: Callable[[], bool] = lambda: True) -> Iterator[LogLine]:
    """The log in `folder`, oldest line first.

    With `follow`, wait for more until `ended()` says that nobody writes any more.
    """
    older = sorted(folder.glob("log.[0-9]*"), key=lambda path: -int(path.suffix[1:]))
    for path in older:
        with path.open("rb") as old:
            yield from _lines(old)
    while (file := _open_log(folder)) is not None:
        with file:
            more = yield from _tail(folder, file, follow=follow, ended=ended)
        if not more:
            return


def _open_log(folder: Path) -> BinaryIO | None:
    try:
        return (folder / "log").open("rb")
    except FileNotFoundError:
        return None


def _tail(folder: Path, file: BinaryIO, *, follow: bool, ended: Callable[[], bool]) -> Generator[LogLine, None, bool]:
    """Read `file` to its end; return True if it was rotated away and the next one is to be read."""
    while True:
        last = ended()  # asked before reading: what was written before the end is read
        yield from _lines(file)
        try:
            rotated = (folder / "log").stat().st_ino != os.fstat(file.fileno()).st_ino
        except FileNotFoundError:
            return False
        if rotated:
            yield from _lines(file)
            return True
        if not follow or last:
            return False
        time.sleep(_PAUSE)


def _lines(file: BinaryIO) -> Iterator[LogLine]:
    """Whole lines from here on; a line that is still being written is left for the next time."""
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        yield _parse(line)


def _parse(line: bytes) -> LogLine:
    try:
        members = parse_object(line, what="log line")
        return LogLine(
            stream="stderr" if members.get("stream") == "stderr" else "stdout",
            time=fields.text(members, "time", what="log line"),
            text=fields.text(members, "log", what="log line"),
        )
    except SpecError:
        return LogLine(stream="stderr", time="", text="(a damaged line of the log)\n")
