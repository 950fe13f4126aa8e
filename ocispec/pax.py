"""Extended headers: pax records (POSIX.1-2017, pax, "pax Extended Header"), the attributes in them, and GNU's
long names.

Each keyword is used, known to have no effect on Linux, or refused. Vendors' keywords that nobody reads
(`VENDOR.keyword`) have none; those of GNU, SCHILY and SUN that change how data is read are refused.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from ocispec import tarfields
from ocispec.entry import Kind
from ocispec.limits import Limits
from ocispec.tarfields import FieldError, FieldLimitError

_XATTR = b"SCHILY.xattr."
_USED = frozenset({b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"})
_WITHOUT_EFFECT = frozenset(
    {
        b"atime", b"ctime", b"comment", b"uname", b"gname", b"RHT.security.selinux",
        b"SCHILY.dev", b"SCHILY.ino", b"SCHILY.nlink", b"SCHILY.fflags",
        b"SCHILY.acl.access", b"SCHILY.acl.default", b"SCHILY.acl.ace",
    }
)  # fmt: skip
_CHARSETS = frozenset({b"BINARY", b"ISO-IR 10646 2000 UTF-8"})
_CHANGES_DATA = (b"GNU.", b"SCHILY.", b"SUN.")

MAX_VALUE: Final = 65_535
"""Bytes of an attribute's value: 16 bits in EROFS; Linux allows one more (linux/limits.h, XATTR_SIZE_MAX)."""

MAX_LIST: Final = 65_536
"""All names of one file, each with its NUL: beyond it listxattr fails (linux/limits.h, XATTR_LIST_MAX)."""

MAX_STORED: Final = 200_000
"""All attributes of one file together: EROFS counts them in 16 bits of 4 bytes, 262,148 bytes."""

ACCESS_ACL: Final = b"system.posix_acl_access"
DEFAULT_ACL: Final = b"system.posix_acl_default"
NAMESPACES: Final = (b"user.", b"trusted.", b"security.")

SPARSE_REPAIR: Final = "write the layer without sparse members: bsdtar --no-read-sparse, or tar without --sparse"
OVERLAY_REPAIR: Final = "make the layer from a mounted tree, or leave them out: tar --xattrs-exclude='*.overlay.*'"
_NAMESPACE_REPAIR = "leave it out: tar --xattrs-exclude='PATTERN'"

_ACL_HEADER = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_ORDER = {0x01: 0, 0x02: 1, 0x04: 2, 0x08: 3, 0x10: 4, 0x20: 5}
_ACL_NAMED = (0x02, 0x08)


@dataclass(frozen=True, slots=True, kw_only=True)
class Extended:
    """What an extended header says about the next member; None where it says nothing."""

    path: bytes | None = None
    target: bytes | None = None
    size: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: tuple[int, int] | None = None
    xattrs: tuple[tuple[bytes, bytes], ...] = ()


_NOTHING = Extended()


class ExtendedHeaders:
    """The extended headers before a member: at most one `x`, or one `L` and one `K`; and global ones.

    A mixture would be taken for different names by different readers (L2).
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._total = 0
        self._kind = b""
        self._data = bytearray()
        self._extended: Extended | None = None
        self._names: dict[bytes, bytes] = {}

    @property
    def pending(self) -> bool:
        """One was read, and its member was not."""
        return self._extended is not None or bool(self._names)

    def begin(self, kind: bytes, size: int) -> None:
        """A header of type `kind` begins, whose data will come by `chunk`.

        Raises:
            FieldError: it cannot stand here.
            FieldLimitError: it is too large.
        """
        if (self._extended is not None) or (self._names and (kind in b"xg" or kind in self._names)):
            raise FieldError(f"a second extended header ({kind.decode()}) for one member")
        self._total += size
        if size > self._limits.meta or self._total > self._limits.meta_total:
            raise FieldLimitError(
                f"extended header of {size} bytes, {self._total} with those before it, "
                f"expected at most {self._limits.meta} and {self._limits.meta_total}"
            )
        self._kind = kind

    def chunk(self, chunk: memoryview | bytes) -> None:
        """Take data of the header that began; `b""` is its end.

        Raises:
            FieldError: it is refused.
        """
        if len(chunk):
            self._data += chunk
            return
        data, self._data = bytes(self._data), bytearray()
        if self._kind == b"x":
            self._extended = parse(data)
        elif self._kind == b"g":
            check_global(data)
        else:
            name = data.removesuffix(b"\0")
            if not name or b"\0" in name:
                raise FieldError(f"long name {name[:80]!r} is empty or holds a NUL")
            self._names[self._kind] = name

    def take(self, name: bytes, link: bytes) -> tuple[Extended, bytes, bytes]:
        """What they say about a member whose header has `name` and `link`; nothing is pending afterwards."""
        extended = self._extended or _NOTHING
        name = self._names.get(b"L", name) if extended.path is None else extended.path
        link = self._names.get(b"K", link) if extended.target is None else extended.target
        self._extended = None
        self._names.clear()
        return extended, name, link


def records(data: bytes) -> dict[bytes, bytes]:
    """The records `LENGTH KEYWORD=VALUE\\n` of a header.

    Raises:
        FieldError: another form, or a keyword twice.
    """
    found: dict[bytes, bytes] = {}
    position = 0
    while position < len(data):
        space = data.find(b" ", position, position + 8)
        digits = data[position : max(space, position)]
        if not digits.isdigit() or digits[:1] == b"0":
            raise FieldError(f"pax record at byte {position} does not begin with its length")
        end = position + int(digits)
        keyword, equals, value = data[space + 1 : end].partition(b"=")
        if end > len(data) or not equals or not keyword or data[end - 1] != 0x0A or end - 1 < space + 2:
            raise FieldError(f"pax record at byte {position} is not LENGTH KEYWORD=VALUE and a line feed")
        if keyword in found:
            raise FieldError(f"pax keyword {keyword[:80]!r} occurs twice")
        found[keyword] = value[:-1]
        position = end
    return found


def parse(data: bytes) -> Extended:
    """What the data of an `x` header says.

    Raises:
        FieldError: malformed, beyond a bound, or a keyword that changes what we would read.
    """
    found = records(data)
    xattrs: list[tuple[bytes, bytes]] = []
    for keyword, value in found.items():
        if keyword.startswith(_XATTR):
            xattrs.append((keyword[len(_XATTR) :], value))
        elif keyword in _USED:
            if not value:
                raise FieldError(f"pax {keyword.decode()} is empty")
        elif keyword not in _WITHOUT_EFFECT:
            _check_unused(keyword, value)
    ids = (0, tarfields.MAX_ID)
    mtime, size = found.get(b"mtime"), found.get(b"size")
    uid, gid = found.get(b"uid"), found.get(b"gid")
    return Extended(
        path=found.get(b"path"),
        target=found.get(b"linkpath"),
        size=None if size is None else tarfields.decimal(size, "size", 0, 2**62),
        uid=None if uid is None else tarfields.decimal(uid, "uid", *ids),
        gid=None if gid is None else tarfields.decimal(gid, "gid", *ids),
        mtime=None if mtime is None else tarfields.time(mtime),
        xattrs=attributes(xattrs),
    )


def check_global(data: bytes) -> None:
    """A `g` header may hold comments only, as git archive writes: anything else would hold for every member.

    Raises:
        FieldError: something else.
    """
    for keyword in records(data):
        if keyword != b"comment":
            raise FieldError(
                f"global pax header sets {keyword[:80]!r}, expected comments only", "write it for each member"
            )


def check_kind(xattrs: tuple[tuple[bytes, bytes], ...], kind: Kind) -> None:
    """Refuse attributes that Linux would list on such a file but not give out (xattr(7)).

    Raises:
        FieldError: `user.` on what is neither file nor directory, or an ACL where none can be.
    """
    for name, _ in xattrs:
        if (
            (name.startswith(b"user.") and kind not in (Kind.FILE, Kind.DIRECTORY))
            or (name == ACCESS_ACL and kind is Kind.SYMLINK)
            or (name == DEFAULT_ACL and kind is not Kind.DIRECTORY)
        ):
            raise FieldError(f"attribute {name!r} on a {kind.name.lower()}, where it cannot be", _NAMESPACE_REPAIR)


def _check_unused(keyword: bytes, value: bytes) -> None:
    if keyword == b"hdrcharset":
        if value not in _CHARSETS:
            raise FieldError(f"pax hdrcharset is {value[:40]!r}, expected BINARY or UTF-8")
        return
    if keyword.startswith(_CHANGES_DATA):
        sparse = keyword.startswith(b"GNU.sparse.") or keyword in (b"SCHILY.realsize", b"SUN.holesdata")
        raise FieldError(
            f"pax keyword {keyword[:80]!r}" + (": a sparse member" if sparse else " is not supported"),
            SPARSE_REPAIR if sparse else "",
        )
    vendor, dot, _ = keyword.partition(b".")
    if not dot or not vendor.isupper():
        raise FieldError(f"pax keyword {keyword[:80]!r} is not known")


def attributes(xattrs: list[tuple[bytes, bytes]]) -> tuple[tuple[bytes, bytes], ...]:
    """One file's extended attributes, checked and sorted by name.

    Raises:
        FieldError: one that Linux would not store, or that steers overlayfs, or too many.
    """
    if not xattrs:
        return ()
    for name, value in xattrs:
        _check_attribute(name, value)
    if sum(len(name) + 1 for name, _ in xattrs) > MAX_LIST:
        raise FieldError(f"attribute names take more than {MAX_LIST} bytes")
    if sum(len(name) + len(value) + 8 for name, value in xattrs) > MAX_STORED:
        raise FieldError(f"attributes take more than {MAX_STORED} bytes")
    return tuple(sorted(xattrs))


def _check_attribute(name: bytes, value: bytes) -> None:
    if len(name) > tarfields.MAX_NAME or b"\0" in name:
        raise FieldError(f"attribute name {name[:80]!r} is longer than {tarfields.MAX_NAME} bytes or holds a NUL")
    if len(value) > MAX_VALUE:
        raise FieldError(f"attribute {name!r} has {len(value)} bytes, expected at most {MAX_VALUE}")
    if name.startswith((b"trusted.overlay.", b"user.overlay.")):
        # They would tell overlayfs to hide or redirect what lies below (L4).
        raise FieldError(f"attribute {name!r} steers overlayfs", OVERLAY_REPAIR)
    if name in (ACCESS_ACL, DEFAULT_ACL):
        _check_acl(name, value)
    elif not name.startswith(NAMESPACES) or name in NAMESPACES:
        raise FieldError(f"attribute {name!r} is in no namespace of Linux", _NAMESPACE_REPAIR)


def _check_acl(name: bytes, value: bytes) -> None:
    # linux/posix_acl_xattr.h: version 2, then tag, permissions, id. The kernel gives an ACL back rewritten,
    # so only what it would write itself is taken.
    problem = FieldError(f"attribute {name!r} is not an ACL as Linux writes it")
    if len(value) < 12 or (len(value) - 4) % 8 or _ACL_HEADER.unpack_from(value) != (2,):
        raise problem
    last = (-1, 2**32)  # so that an unknown tag, of place -1, is refused
    for tag, permissions, identity in _ACL_ENTRY.iter_unpack(value[4:]):
        named = tag in _ACL_NAMED
        place = (_ACL_ORDER.get(tag, -1), identity if named else 0)
        if permissions > 7 or place <= last or (identity > tarfields.MAX_ID if named else identity != 2**32 - 1):
            raise problem
        last = place
