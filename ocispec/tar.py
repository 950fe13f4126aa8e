"""The one strict reader of layer tars (L1, L2): every consumer of a layer sees what this module saw.

A push parser over buffers of whole blocks: nothing is read ahead, nothing kept but the members and one
extended header. What two readers could understand differently is refused, with offset, member and repair;
the decisions on the open cases stand in docs/layers.md. Formats: POSIX.1-2017, pax, "ustar Interchange
Format"; GNU tar manual, "Basic Tar Format"; libarchive, tar(5).

The loop over plain files (`_blocks`) is written for speed: about 3 microseconds a member. All that is not
a plain file goes through small methods.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from ocispec import pax, tarfields
from ocispec.entry import Entry, HardLink, Kind, Member, Opaque, Whiteout
from ocispec.errors import LayerError, LayerLimitError
from ocispec.limits import Limits
from ocispec.tarfields import FieldError, FieldLimitError

Consumer = Callable[[memoryview | bytes], None]
"""Takes a file's data in chunks, in order, then `b""` at its end. A chunk is valid during the call only."""


class Visitor(Protocol):
    """Whoever wants to see file contents while a layer is read."""

    def file(self, entry: Entry) -> Consumer | None:
        """Called at each regular file, before its data; None if they are not wanted.

        `entry.path` is as the layer spells it: the merge may find it behind a symlink, or replaced by a
        later member. Layer and `entry.offset` together name the file for good.
        """


BLOCK: Final = 512
_POSIX: Final = b"ustar\x0000"
_GNU: Final = b"ustar  \0"
_V7: Final = bytes(8)
_MAGICS: Final = (_POSIX, _GNU)

# name 100, mode+uid+gid 3*8, size 12, mtime 12, checksum 8, type 1, linkname 100, magic+version 8,
# uname+gname 2*32 (never used), devmajor+devminor 2*8, prefix 155 and the rest 12.
_HEADER = struct.Struct("100s24s12s12s8sc100s8s64x16s167s")
# The same without what a plain file does not use.
_PLAIN = struct.Struct("100s24s12s12s8sc100x8s247x")
_Fields = tuple[bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes, bytes]
_NO_TAIL = bytes(167)
_ZEROS = tuple(bytes(count) for count in range(BLOCK + 1))
_DOT = ord(".")
_CACHE: Final = 8192
"""Parsed fields of each kind that are kept; hostile layers repeat nothing."""

_KINDS: Final[dict[bytes, Kind]] = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER,
    b"4": Kind.BLOCK,
    b"5": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_LINK: Final = b"1"
_META: Final = b"xgLK"
_V7_TYPES: Final = b"\x000125"
_OCTAL_SIZE: Final = 8 * 1024**3
"""What eleven octal digits cannot hold any more."""

_NO_DATA: Final = "it has {} bytes of data, and its type has none"
_PADDING: Final = "the padding behind its data is not zero"
REWRITE: Final = "write the layer again from its tree: tar --format=pax --numeric-owner -C TREE -cf LAYER ."
_SMALLER: Final = "split the layer, or leave out what does not belong into an image"
WHITEOUT_REPAIR: Final = "write a removal as an empty regular file named .wh.NAME"


class TarParser:
    """Takes a tar in buffers of whole blocks (`feed`), then `finish`; `members` are what it held so far.

    After an error it must not be used again.
    """

    def __init__(self, *, what: str, limits: Limits, visitor: Visitor | None = None) -> None:
        self.members: list[Member] = []
        self._what = what
        self._limits = limits
        self._visitor = visitor
        self._offset = 0  # of the next buffer in the tar
        self._member_offset = 0  # of the header that is being read
        self._name = b""  # of its member, raw
        self._left = 0  # bytes of the current member's data still to come
        self._padding = 0  # zero bytes behind them
        self._consumer: Consumer | None = None
        self._extended = pax.ExtendedHeaders(limits)
        self._end_at = -1  # offset of the first zero block
        self._path_bytes = 0
        self._heads: dict[bytes, bytes] = {}
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        self._times: dict[bytes, tuple[int, int]] = {}

    def feed(self, buffer: bytearray, length: int) -> None:
        """Parse the first `length` bytes of `buffer`, a multiple of 512.

        Raises:
            LayerError: a member is refused.
        """
        position = 0
        try:
            if self._left:
                position = self._data(buffer, 0, length)
            if self._end_at < 0:
                position = self._blocks(buffer, position, length)
            self._check_limits()
        except FieldError as error:
            self._refuse(error)
        if self._end_at >= 0 and not buffer.startswith(bytes(length - position), position):
            self._member_offset, self._name = self._end_at, b""
            self._refuse(FieldError("something other than zeros follows the end of the archive"))
        self._offset += length

    def finish(self) -> None:
        """The tar ended.

        Raises:
            LayerError: it is cut short: in a member, or without its two blocks of zeros.
        """
        if self._left or self._extended.pending:
            self._refuse(FieldError(f"the tar ends inside this member, at byte {self._offset}"))
        if self._end_at < 0 or self._offset - self._end_at < 2 * BLOCK:
            self._name, self._member_offset = b"", self._offset
            self._refuse(FieldError("the tar ends without two blocks of zeros"))

    def _check_limits(self) -> None:
        # Once a buffer is often enough: it holds at most 2,048 members.
        if len(self.members) > self._limits.entries:
            raise FieldLimitError(f"more than {self._limits.entries} members")
        if self._path_bytes > self._limits.path_bytes:
            raise FieldLimitError(f"paths and link targets take more than {self._limits.path_bytes} bytes")

    def _blocks(self, buffer: bytearray, position: int, length: int) -> int:
        # One pass is one header. Fields repeat from member to member, so what was parsed is kept; nothing is
        # called for a plain file or directory that was not called for its neighbours.
        owners, times, heads, members = self._owners, self._times, self._heads, self.members
        unpack, adler32, make, start = _PLAIN.unpack_from, zlib.adler32, tuple.__new__, self._offset
        file, directory, visitor = Kind.FILE, Kind.DIRECTORY, self._visitor
        pending, path_bytes = self._extended.pending, 0
        while position < length:
            header = buffer[position : position + BLOCK]
            self._member_offset = start + position
            name, owner, size_field, time_field, checksum, kind, magic = unpack(header)
            # adler32's lower half is 1 + the sum of the bytes mod 65,521; 512 ASCII bytes sum to 65,024 at most.
            total = (adler32(header) & 0xFFFF) - 1 if header.isascii() else sum(header)
            # The sum counts its own field as eight blanks.
            if b"%06o\0 " % (total - sum(checksum) + 256) != checksum:
                if total == 0:
                    self._end(start + position)
                    break
                self._check_checksum(total, checksum, name)
            position += BLOCK
            self._name = raw = name.rstrip(b"\0")
            is_directory = kind == b"5"
            head, _, last = (raw[:-1] if is_directory and raw.endswith(b"/") else raw).rpartition(b"/")
            digits = size_field[:11]
            if (
                pending
                or not (kind == b"0" or is_directory)
                or not last
                or last[0] == _DOT
                or b"\0" in raw
                or not digits.isdigit()
                or size_field[11] not in b"\0 "
                or magic not in _MAGICS
                or not header.endswith(_NO_TAIL)
            ):
                position = self._other(buffer, position, length, header)
                pending = self._extended.pending
                continue
            path = (heads.get(head) or self._head(head)) + last
            path_bytes += len(path)
            mode, uid, gid = owners.get(owner) or self._owner(owner)
            mtime = times.get(time_field) or self._time(time_field)
            try:
                size = int(digits, 8)
            except ValueError:
                raise FieldError(f"size field is {size_field!r}, expected octal digits") from None
            if is_directory:
                if size:
                    raise FieldError(_NO_DATA.format(size))
                # What Entry(...) does, without a call of Python's: a fifth of this loop.
                members.append(make(Entry, (path, directory, mode, uid, gid, mtime, 0, 0, b"", (0, 0), ())))
                continue
            entry = make(Entry, (path, file, mode, uid, gid, mtime, size, start + position, b"", (0, 0), ()))
            members.append(entry)
            end = position + size
            if visitor is None and end + BLOCK <= length:
                # The whole of its data is in this buffer, and nobody wants it.
                position = (end + 511) & ~511
                if not buffer.startswith(_ZEROS[position - end], end):
                    raise FieldError(_PADDING)
            else:
                position = self._begin(entry, buffer, position, length)
        self._path_bytes += path_bytes
        return position

    def _other(self, buffer: bytearray, position: int, length: int, header: bytearray) -> int:
        # Whatever is not a plain file or directory with a short name.
        fields: _Fields = _HEADER.unpack(header)
        _, owner_field, size_field, time_field, _, kind, link_field, _, devices, _ = fields
        if kind == b"S":
            # GNU's own; its map of the file lies where others have names.
            raise FieldError("a sparse member", pax.SPARSE_REPAIR)
        raw = self._name = self._header_name(header, fields)
        size = tarfields.number(size_field, "size", 0, 2**62)
        if kind in _META:
            self._extended.begin(kind, size)
            self._consumer, self._left = self._extended.chunk, size
            return self._data(buffer, position, length)
        extended, raw, link = self._extended.take(raw, tarfields.text(link_field, "linkname"))
        self._name = raw
        size = self._size(size, extended)
        if (known := _KINDS.get(kind)) is None and kind != _LINK:
            raise FieldError(f"type {kind!r} is not supported")
        path = tarfields.path(raw)
        self._path_bytes += len(path) + len(link)
        is_directory = known is Kind.DIRECTORY
        if (not path or raw.endswith((b"/", b"/."))) and not is_directory:
            raise FieldError("its name is a directory's, and its type is not")
        if size and known is not Kind.FILE:
            raise FieldError(_NO_DATA.format(size))
        if b".wh." in path and self._whiteout(path, known, size):
            return position
        if known is None:
            self.members.append(HardLink(path=path, target=self._link_target(link, path)))
            return position
        mode, uid, gid = self._owners.get(owner_field) or self._owner(owner_field)
        mtime = self._times.get(time_field) or self._time(time_field)
        if extended.xattrs:
            pax.check_kind(extended.xattrs, known)
        entry = Entry(
            path,
            known,
            # Linux gives every symlink this mode; writers put anything there.
            0o777 if known is Kind.SYMLINK else mode,
            uid if extended.uid is None else extended.uid,
            gid if extended.gid is None else extended.gid,
            mtime if extended.mtime is None else extended.mtime,
            size,
            self._offset + position if known is Kind.FILE else 0,
            self._symlink_target(link) if known is Kind.SYMLINK else b"",
            _device(devices) if known in (Kind.CHARACTER, Kind.BLOCK) else (0, 0),
            extended.xattrs,
        )
        self.members.append(entry)
        return self._begin(entry, buffer, position, length) if known is Kind.FILE else position

    def _header_name(self, header: bytearray, fields: _Fields) -> bytes:
        kind, magic, rest = fields[5], fields[7], fields[9]
        name, prefix = tarfields.text(fields[0], "name"), b""
        if magic == _POSIX:
            prefix, rest = tarfields.text(rest[:155], "prefix"), rest[155:]
        elif magic == _V7:
            # Before ustar there were five types, and nothing behind byte 257; then all readers agree on it.
            rest = bytes(header[257:])
            if kind not in _V7_TYPES:
                raise FieldError(f"type {kind!r} in a header without magic")
        elif magic != _GNU:
            raise FieldError(f"magic is {magic!r}, expected {_POSIX!r} or {_GNU!r}")
        if rest.strip(b"\0"):
            # GNU's access and change times, star's prefix, or rubbish: readers take it for different things.
            raise FieldError("the end of the header is not zero")
        return prefix + b"/" + name if prefix else name

    def _size(self, size: int, extended: pax.Extended) -> int:
        if extended.size is not None:
            if extended.size != size and extended.size < _OCTAL_SIZE:
                # A reader that knows only one of the two would see other members in this one's data.
                raise FieldError(f"its header says {size} bytes, its pax size {extended.size}")
            size = extended.size
        if size > self._limits.tar:
            raise FieldLimitError(f"{size} bytes, expected at most {self._limits.tar}")
        return size

    def _whiteout(self, path: bytes, kind: Kind | None, size: int) -> bool:
        head, _, last = path.rpartition(b"/")
        self._refuse_whiteout_parent(head)
        if not last.startswith(tarfields.WHITEOUT):
            return False
        if kind is not Kind.FILE or size:
            raise FieldError("it is named as a whiteout, but is not an empty regular file", WHITEOUT_REPAIR)
        if last == tarfields.OPAQUE:
            self.members.append(Opaque(path=head))
            return True
        name = last[len(tarfields.WHITEOUT) :]
        if name in (b"", b".", b"..") or name.startswith(tarfields.WHITEOUT):
            raise FieldError("it is a whiteout of no file", WHITEOUT_REPAIR)
        self.members.append(Whiteout(path=head + b"/" + name if head else name))
        return True

    def _refuse_whiteout_parent(self, head: bytes) -> None:
        if b".wh." in head and any(part.startswith(tarfields.WHITEOUT) for part in head.split(b"/")):
            raise FieldError("it lies in a directory named as a whiteout", WHITEOUT_REPAIR)

    def _link_target(self, raw: bytes, path: bytes) -> bytes:
        target = tarfields.path(raw, "link target")
        if not target or any(part.startswith(tarfields.WHITEOUT) for part in target.split(b"/")):
            raise FieldError(f"it is a hard link to {raw!r}, which is no file")
        if target == path:
            raise FieldError("it is a hard link to itself")
        return target

    def _symlink_target(self, target: bytes) -> bytes:
        if not target or len(target) > tarfields.MAX_PATH or b"\0" in target:
            raise FieldError(f"its target has {len(target)} bytes, expected 1 to {tarfields.MAX_PATH}, none of them 0")
        return target

    def _begin(self, entry: Entry, buffer: bytearray, position: int, length: int) -> int:
        if self._visitor is not None:
            self._consumer = self._visitor.file(entry)
        self._left = entry.size
        return self._data(buffer, position, length)

    def _data(self, buffer: bytearray, position: int, length: int) -> int:
        take = min(self._left, length - position)
        if take:
            if self._consumer is not None:
                self._consumer(memoryview(buffer)[position : position + take].toreadonly())
            self._left -= take
            position += take
        if not self._left:
            # Its padding is in this buffer too, which holds whole blocks.
            padding = -position & (BLOCK - 1)
            if not buffer.startswith(_ZEROS[padding], position):
                raise FieldError(_PADDING)
            position += padding
            consumer, self._consumer = self._consumer, None
            if consumer is not None:
                consumer(b"")
        return position

    def _head(self, head: bytes) -> bytes:
        if len(self._heads) >= _CACHE:
            self._heads.clear()
        path = tarfields.path(head)
        self._refuse_whiteout_parent(path)
        known = self._heads[head] = path + b"/" if path else b""
        return known

    def _owner(self, field: bytes) -> tuple[int, int, int]:
        if len(self._owners) >= _CACHE:
            self._owners.clear()
        known = self._owners[field] = (
            tarfields.number(field[:8], "mode", 0, tarfields.MAX_MODE) & 0o7777,
            tarfields.number(field[8:16], "uid", 0, tarfields.MAX_ID),
            tarfields.number(field[16:], "gid", 0, tarfields.MAX_ID),
        )
        return known

    def _time(self, field: bytes) -> tuple[int, int]:
        if len(self._times) >= _CACHE:
            self._times.clear()
        known = self._times[field] = (
            tarfields.number(field, "mtime", tarfields.MIN_TIME, tarfields.MAX_TIME),
            0,
        )
        return known

    def _check_checksum(self, total: int, field: bytes, name: bytes) -> None:
        self._name = name.rstrip(b"\0")
        expected = total - sum(field) + 8 * 0x20
        if (found := tarfields.number(field, "checksum", 0, 2**24)) != expected:
            raise FieldError(f"header checksum is {found}, expected {expected}")

    def _end(self, offset: int) -> None:
        if self._extended.pending:
            raise FieldError("an extended header is followed by the end of the archive")
        self._end_at = offset

    def _refuse(self, error: FieldError) -> NoReturn:
        is_limit = isinstance(error, FieldLimitError)
        raise (LayerLimitError if is_limit else LayerError)(
            f"{self._what}: offset {self._member_offset}: member {self._name[:300]!r}: {error}",
            offset=self._member_offset,
            member=self._name,
            repair=error.repair or (_SMALLER if is_limit else REWRITE),
        ) from None


def _device(field: bytes) -> tuple[int, int]:
    major = tarfields.number(field[:8], "devmajor", 0, tarfields.MAX_MAJOR)
    minor = tarfields.number(field[8:], "devminor", 0, tarfields.MAX_MINOR)
    if (major, minor) == (0, 0):
        # overlayfs takes a character device 0:0 for a whiteout (L4).
        raise FieldError("a device 0:0, which overlayfs takes for a whiteout", WHITEOUT_REPAIR)
    return major, minor
