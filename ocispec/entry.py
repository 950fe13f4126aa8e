"""The canonical description of one file in a layer: what the reader yields, the merge joins and the index holds.

Every number and name in an Entry was bounded by the reader (`tar.py`), so nobody after it checks again.
Paths are raw bytes, relative, with single slashes, no `.` or `..` parts; the root is `b""`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple


class Kind(IntEnum):
    """What an entry is; the values are EROFS directory entry types (erofs_fs.h, `FT_*` of fs_types.h)."""

    FILE = 1
    DIRECTORY = 2
    CHARACTER = 3
    BLOCK = 4
    FIFO = 5
    SOCKET = 6
    SYMLINK = 7


class Entry(NamedTuple):
    """One member of a layer, hard links aside; sizes and offsets in bytes of the uncompressed tar.

    `mode` holds the permission bits only (12 bits); the type is `kind`. `offset` is where the data of a
    FILE begins in the tar, a multiple of 512; no two files of a layer share one. `xattrs` are sorted by
    name. `target` is a SYMLINK's. `rdev` is (major, minor) of a device. `mtime` is seconds and nanoseconds
    since the epoch, seconds may be negative.

    A NamedTuple, not a dataclass like all other values: an image has tens of thousands of them, and one
    takes 0.1 microseconds to make instead of 0.8 (Python 3.11). A changed copy is `entry._replace(...)`.
    """

    path: bytes
    kind: Kind
    mode: int
    uid: int
    gid: int
    mtime: tuple[int, int] = (0, 0)
    size: int = 0
    offset: int = 0
    target: bytes = b""
    rdev: tuple[int, int] = (0, 0)
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HardLink:
    """A second name, `path`, for what is called `target` when this member is met: an earlier member of the
    layer, or a file of the layers below. The reader checks the names only; the merge finds the file."""

    path: bytes
    target: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Whiteout:
    """`.wh.NAME`: the lower layers' `path` is gone."""

    path: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Opaque:
    """`.wh..wh..opq`: the lower layers' children of the directory `path` are gone."""

    path: bytes


Member = Entry | HardLink | Whiteout | Opaque
"""What a layer is a sequence of, in the order of the tar."""
