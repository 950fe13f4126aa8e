"""A layer's list of members as bytes, to be kept by diff_id and READER_VERSION beside the layer.

    magic 8 | reader version 4 | diff_id 32 | layer size 8 | members 4 | body length 8 | sha256 32 | body

The checksum is of all else. The body, deflated, is a table of fixed records, one a member, and behind it
their strings: path, target and attributes of each in turn. What is loaded is checked as strictly as what
the reader makes, so a damaged or foreign listing is an error, and never another tree.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from typing import Final

from ocispec import pax, tarfields
from ocispec.digest import Digest
from ocispec.entry import Entry, HardLink, Kind, Member, Opaque, Whiteout
from ocispec.errors import SpecError
from ocispec.layer import READER_VERSION, LayerContent
from ocispec.limits import LIMITS
from ocispec.tar import BLOCK

MAGIC: Final = b"pqlist\0\1"

_HEADER = struct.Struct("<8sI32sQIQ")
_CHECKSUM: Final = 32
# code, mode; uid, gid; mtime, ns; size, offset; major, minor; lengths of path, target and attributes.
_RECORD = struct.Struct("<BHIIqIQQHIHHI")
_XATTR = struct.Struct("<BI")
_CODES: Final[dict[type, int]] = {HardLink: 16, Whiteout: 17, Opaque: 18}
_KINDS: Final = {int(kind): kind for kind in Kind}
_MAX_BODY: Final = LIMITS.entries * _RECORD.size + LIMITS.path_bytes + LIMITS.meta_total
_PART = rb"(?!\.{1,2}(?:/|\Z))[^/\0]{1,255}"
_PATH = re.compile(rb"(?:%s(?:/%s)*)?" % (_PART, _PART))
_LEVEL: Final = 1


def dump(content: LayerContent) -> bytes:
    """The listing of a layer."""
    pack = _RECORD.pack
    records: list[bytes] = []
    strings: list[bytes] = []
    for member in content.members:
        path = member.path
        if isinstance(member, Entry):
            _, kind, mode, uid, gid, mtime, size, offset, target, rdev, xattrs = member
            blob = _dump_xattrs(xattrs) if xattrs else b""
            records.append(pack(kind, mode, uid, gid, *mtime, size, offset, *rdev, len(path), len(target), len(blob)))
            strings += (path, target, blob)
        else:
            target = member.target if isinstance(member, HardLink) else b""
            code = _CODES[type(member)]
            records.append(pack(code, 0, 0, 0, 0, 0, 0, 0, 0, 0, len(path), len(target), 0))
            strings += (path, target)
    body = b"".join(records) + b"".join(strings)
    header = _HEADER.pack(
        MAGIC, READER_VERSION, bytes.fromhex(content.diff_id.hex), content.size, len(content.members), len(body)
    )
    deflated = zlib.compress(body, _LEVEL)
    return header + hashlib.sha256(header + deflated).digest() + deflated


def load(raw: bytes) -> LayerContent:
    """The layer whose listing `raw` is.

    Raises:
        SpecError: not a listing, of another version, or damaged.
    """
    begin = _HEADER.size + _CHECKSUM
    if len(raw) < begin:
        raise SpecError(f"listing: got {len(raw)} bytes, expected at least {begin}")
    magic, version, diff_id, size, count, length = _HEADER.unpack_from(raw)
    if magic != MAGIC or version != READER_VERSION:
        raise SpecError(
            f"listing: got magic {magic!r} and reader version {version}, expected {MAGIC!r} and {READER_VERSION}"
        )
    what = f"listing of layer sha256:{diff_id.hex()}"
    if hashlib.sha256(raw[: _HEADER.size] + raw[begin:]).digest() != raw[_HEADER.size : begin]:
        raise SpecError(f"{what}: its checksum is wrong")
    if count > LIMITS.entries or not count * _RECORD.size <= length <= _MAX_BODY or size % BLOCK:
        raise SpecError(f"{what}: {count} members in {length} bytes of a layer of {size} is not possible")
    body = _inflate(raw[begin:], length, what)
    try:
        members = _members(body, count, size)
    except (ValueError, struct.error, tarfields.FieldError) as error:
        raise SpecError(f"{what}: {error}") from None
    return LayerContent(diff_id=Digest("sha256", diff_id.hex()), size=size, members=members)


def _inflate(data: bytes, length: int, what: str) -> bytes:
    decoder = zlib.decompressobj()
    try:
        body = decoder.decompress(data, length + 1)
    except zlib.error as error:
        raise SpecError(f"{what}: {error}") from None
    if len(body) != length or not decoder.eof or decoder.unused_data:
        raise SpecError(f"{what}: its body has another length than {length} bytes")
    return body


def _members(body: bytes, count: int, layer_size: int) -> tuple[Member, ...]:
    members: list[Member] = []
    at = count * _RECORD.size
    end = len(body)
    heads: set[bytes] = set()
    for record in _RECORD.iter_unpack(memoryview(body)[:at]):
        code, mode, uid, gid, seconds, nanoseconds, size, offset, major, minor, path_size, target_size, rest = record
        path = body[at : at + path_size]
        at += path_size
        head, _, name = path.rpartition(b"/")
        # Most members share their directory with the one before: the whole path is checked once for it.
        if head not in heads or name in (b"", b".", b"..") or len(name) > tarfields.MAX_NAME or b"\0" in name:
            if _PATH.fullmatch(path) is None:
                raise ValueError(f"path {path[:80]!r} is not canonical")
            heads = {head} if head else set()
        target = b""
        xattrs: tuple[tuple[bytes, bytes], ...] = ()
        if target_size or rest:
            target = body[at : at + target_size]
            at += target_size
            xattrs = _load_xattrs(body[at : at + rest])
            at += rest
        kind = _KINDS.get(code)
        if at > end or path_size > tarfields.MAX_PATH:
            raise ValueError(f"path {path[:80]!r} is too long")
        if kind is None:
            members.append(_other(code, path, target))
            continue
        mtime, rdev = (seconds, nanoseconds), (major, minor)
        entry = Entry(path, kind, mode, uid, gid, mtime, size, offset, target, rdev, xattrs)
        if mode > 0o7777 or uid > tarfields.MAX_ID or gid > tarfields.MAX_ID or nanoseconds >= 10**9:
            raise ValueError(f"a number of {path[:80]!r} is out of bounds")
        if kind is not Kind.FILE:
            _check_special(entry)
        elif not path or target or major or minor or offset % BLOCK or offset + size > layer_size:
            raise ValueError(f"{path[:80]!r} is not a file within the layer")
        if xattrs:
            pax.check_kind(xattrs, kind)
        members.append(entry)
    if at != end:
        raise ValueError(f"{end - at} bytes are left over")
    return tuple(members)


def _check_special(entry: Entry) -> None:
    is_device = entry.kind in (Kind.CHARACTER, Kind.BLOCK)
    if (
        entry.size
        or entry.offset
        or bool(entry.target) != (entry.kind is Kind.SYMLINK)
        or b"\0" in entry.target
        or len(entry.target) > tarfields.MAX_PATH
        or is_device != (entry.rdev != (0, 0))
        or entry.rdev[0] > tarfields.MAX_MAJOR
        or entry.rdev[1] > tarfields.MAX_MINOR
        or (not entry.path and entry.kind is not Kind.DIRECTORY)
    ):
        raise ValueError(f"{entry.path[:80]!r} is not a {entry.kind.name.lower()} that a layer can hold")


def _other(code: int, path: bytes, target: bytes) -> Member:
    if code == _CODES[HardLink] and path and target and _PATH.fullmatch(target) is not None:
        return HardLink(path=path, target=target)
    if code == _CODES[Whiteout] and path and not target:
        return Whiteout(path=path)
    if code == _CODES[Opaque] and not target:
        return Opaque(path=path)
    raise ValueError(f"{path[:80]!r} is of no known kind ({code})")


def _dump_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> bytes:
    return b"".join(_XATTR.pack(len(name), len(value)) + name + value for name, value in xattrs)


def _load_xattrs(blob: bytes) -> tuple[tuple[bytes, bytes], ...]:
    found: list[tuple[bytes, bytes]] = []
    at = 0
    while at < len(blob):
        name_length, value_length = _XATTR.unpack_from(blob, at)
        name_end = at + _XATTR.size + name_length
        found.append((blob[at + _XATTR.size : name_end], blob[name_end : name_end + value_length]))
        at = name_end + value_length
    if at != len(blob):
        raise ValueError("attributes are cut short")
    return pax.attributes(found)
