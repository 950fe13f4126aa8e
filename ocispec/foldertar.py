"""A folder of this machine written as a layer: the same tree gives the same bytes, whoever writes it.

Members are sorted by their raw names, parents first, the root itself as `./`; times are cut to whole
seconds. Header fields are ustar's, with pax records where those do not hold a value (POSIX.1-2017, pax).
Sockets are left out, and what lies on another file system is only an empty directory, as GNU tar with
--one-file-system does. What the format allows and a layer must not hold is for `tar.py` to refuse.

The tree is walked by descriptors and never through a symlink, so a folder that changes meanwhile cannot
lead out of itself.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ocispec.errors import LimitError, SourceError
from ocispec.stream import ChunkStream
from ocispec.tarfields import WHITEOUT
from ocispec.verify import CHUNK

_TYPES: Final = {
    stat.S_IFREG: b"0",
    stat.S_IFLNK: b"2",
    stat.S_IFCHR: b"3",
    stat.S_IFBLK: b"4",
    stat.S_IFDIR: b"5",
    stat.S_IFIFO: b"6",
}
_HARD_LINK: Final = b"1"
_PAX: Final = b"x"
_HOST_ONLY: Final = ("security.selinux", "security.ima", "security.evm")
"""Attributes that belong to the host and not to the tree."""
_MAX_ID: Final = 0o7777777
_MAX_SIZE: Final = 0o77777777777
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

MAX_DEPTH: Final = 512
"""Folders within folders; each costs a descriptor while it is read, and a process has 1,024 by default."""


class FolderTar(ChunkStream):
    """The tar of `folder` as a stream, made while it is read."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._chunks = folder_chunks(folder)
        self._rest = memoryview(b"")

    def chunk(self, size: int) -> bytes:
        """See ChunkStream.

        Raises:
            SourceError: something in the folder cannot be read, cannot stand in a layer, or changed meanwhile.
        """
        while not self._rest:
            if (following := next(self._chunks, None)) is None:
                return b""
            self._rest = memoryview(following)
        chunk, self._rest = self._rest[:size], self._rest[size:]
        return bytes(chunk)

    def close(self) -> None:
        """Stop, and close what is open in the folder."""
        self._chunks.close()
        super().close()


@dataclass(slots=True)
class _Walk:
    device: int
    seen: dict[tuple[int, int], bytes] = field(default_factory=dict)  # hard links: the first name of each file


def folder_chunks(folder: Path) -> Generator[bytes, None, None]:
    """The tar of `folder` in pieces of at most CHUNK bytes.

    Raises:
        SourceError, LimitError: as FolderTar.chunk.
    """
    open_folders: list[int] = []
    try:
        open_folders.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        status = os.fstat(open_folders[0])
        walk = _Walk(device=status.st_dev)
        yield from _headers(b"./", b"5", status, _xattrs(f"/proc/self/fd/{open_folders[0]}", b"."))
        pending = [(0, b"", name) for name in _names(open_folders[0])]
        while pending:
            depth, parent, name = pending.pop()
            while len(open_folders) > depth + 1:
                os.close(open_folders.pop())
            path = parent + name
            status = os.stat(name, dir_fd=open_folders[depth], follow_symlinks=False)
            yield from _member(walk, open_folders[depth], name, path, status)
            if stat.S_ISDIR(status.st_mode) and status.st_dev == walk.device:
                if depth >= MAX_DEPTH:
                    raise LimitError(f"folder {folder}: {path[:80]!r} is deeper than {MAX_DEPTH} levels")
                open_folders.append(os.open(name, _DIRECTORY, dir_fd=open_folders[depth]))
                pending.extend((depth + 1, path + b"/", child) for child in _names(open_folders[-1]))
        yield bytes(1024)
    except OSError as error:
        raise SourceError(f"folder {folder}: cannot read it: {error}") from error
    finally:
        for descriptor in open_folders:
            os.close(descriptor)


def _names(folder: int) -> list[bytes]:
    # Sorted backwards: the walk takes them from the end.
    return sorted((os.fsencode(name) for name in os.listdir(folder)), reverse=True)


def _member(walk: _Walk, folder: int, name: bytes, path: bytes, status: os.stat_result) -> Iterator[bytes]:
    kind = _TYPES.get(stat.S_IFMT(status.st_mode))
    is_directory = kind == b"5"
    if kind is None or (status.st_dev != walk.device and not is_directory):
        return
    if name.startswith(WHITEOUT):
        raise SourceError(f"folder: {path[:200]!r} is named as a whiteout, which no layer can hold as a file")
    if kind == b"0" and status.st_nlink > 1:
        first = walk.seen.setdefault((status.st_dev, status.st_ino), path)
        if first != path:
            yield from _headers(path, _HARD_LINK, status, (), link=first)
            return
    link = os.readlink(name, dir_fd=folder) if kind == b"2" else b""
    xattrs = _xattrs(f"/proc/self/fd/{folder}", name)
    yield from _headers(path + b"/" if is_directory else path, kind, status, xattrs, link=link)
    if kind == b"0":
        yield from _data(folder, name, path, status)


def _data(folder: int, name: bytes, path: bytes, expected: os.stat_result) -> Iterator[bytes]:
    descriptor = os.open(name, _FILE, dir_fd=folder)
    try:
        found = os.fstat(descriptor)
        left = expected.st_size
        if (found.st_dev, found.st_ino) != (expected.st_dev, expected.st_ino):
            raise SourceError(f"folder: {path[:200]!r} was replaced while it was read")
        while left:
            chunk = os.read(descriptor, min(left, CHUNK))
            if not chunk:
                raise SourceError(f"folder: {path[:200]!r} became shorter while it was read")
            left -= len(chunk)
            yield chunk
    finally:
        os.close(descriptor)
    yield bytes(-expected.st_size % 512)


def _xattrs(folder: str, name: bytes) -> tuple[tuple[bytes, bytes], ...]:
    path = f"{folder}/{os.fsdecode(name)}"
    return tuple(
        (os.fsencode(key), os.getxattr(path, key, follow_symlinks=False))
        for key in sorted(os.listxattr(path, follow_symlinks=False))
        if key not in _HOST_ONLY
    )


def _headers(
    path: bytes,
    kind: bytes,
    status: os.stat_result,
    xattrs: tuple[tuple[bytes, bytes], ...],
    *,
    link: bytes = b"",
) -> Iterator[bytes]:
    """A member's header, with a pax header in front where ustar's fields do not hold it all."""
    size = status.st_size if kind == b"0" else 0
    mtime = status.st_mtime_ns // 1_000_000_000
    records = {b"SCHILY.xattr." + key: value for key, value in xattrs}
    if len(path) > 100:
        records[b"path"] = path
    if len(link) > 100:
        records[b"linkpath"] = link
    if size > _MAX_SIZE:
        records[b"size"] = b"%d" % size
    if not 0 <= mtime <= _MAX_SIZE:
        records[b"mtime"] = b"%d" % mtime
    for key, value in ((b"uid", status.st_uid), (b"gid", status.st_gid)):
        if value > _MAX_ID:
            records[key] = b"%d" % value
    if records:
        if not (_is_text(path) and _is_text(link)):
            records[b"hdrcharset"] = b"BINARY"
        body = b"".join(_record(key, records[key]) for key in sorted(records))
        yield _block(b"././@PaxHeader", _PAX, size=len(body))
        yield body + bytes(-len(body) % 512)
    device = status.st_rdev if kind in b"34" else 0
    yield _block(
        path[:100],
        kind,
        mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid if status.st_uid <= _MAX_ID else 0,
        gid=status.st_gid if status.st_gid <= _MAX_ID else 0,
        size=size if size <= _MAX_SIZE else 0,
        mtime=mtime if 0 <= mtime <= _MAX_SIZE else 0,
        link=link[:100],
        major=os.major(device),
        minor=os.minor(device),
    )


def _block(
    name: bytes,
    kind: bytes,
    *,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    size: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    major: int = 0,
    minor: int = 0,
) -> bytes:
    """One ustar header block; the numbers fit their fields."""
    numbers = b"%07o\0%07o\0%07o\0%011o\0%011o\0" % (mode, uid, gid, size, mtime)
    devices = b"%07o\0%07o\0" % (major, minor)
    head = name.ljust(100, b"\0") + numbers
    tail = kind + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + devices + bytes(155 + 12)
    return head + b"%06o\0 " % (sum(head) + sum(tail) + 8 * 0x20) + tail


def _record(key: bytes, value: bytes) -> bytes:
    # The length counts its own digits.
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + len(str(len(rest)))
    while len(rest) + len(str(length)) != length:
        length = len(rest) + len(str(length))
    return b"%d" % length + rest


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
