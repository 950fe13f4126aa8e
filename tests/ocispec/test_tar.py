"""The strict reader of tars: what it takes, what it refuses, and that it says where and why.

Tests named L1, L2, L4, L5 and R11 are attacks; the tars are made byte by byte (tests/support/layers.py).
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.entry import Entry, HardLink, Kind, Opaque, Whiteout
from ocispec.errors import LayerError, LayerLimitError, LimitError, SpecError
from ocispec.limits import LIMITS, Limits
from ocispec.tar import Consumer, TarParser
from tests.support.layers import (
    GNU,
    MTIME,
    POSIX,
    V7,
    archive,
    content,
    header,
    long_name,
    member,
    members,
    padded,
    pax,
    record,
)


class Keeper:
    """A visitor that keeps the data of every file that `wants`, as it came."""

    def __init__(self, wants: Callable[[Entry], bool] = lambda _: True) -> None:
        self.wants = wants
        self.seen: list[Entry] = []
        self.data: dict[int, bytes] = {}
        self.ended: list[int] = []

    def file(self, entry: Entry) -> Consumer | None:
        self.seen.append(entry)
        if not self.wants(entry):
            return None
        self.data[entry.offset] = b""

        def take(chunk: memoryview | bytes) -> None:
            assert entry.offset not in self.ended
            if len(chunk):
                self.data[entry.offset] += bytes(chunk)
            else:
                self.ended.append(entry.offset)

        return take


def fed(tar: bytes, size: int, visitor: Keeper | None = None, limits: Limits = LIMITS) -> list[object]:
    """The members, from buffers of `size` bytes instead of a megabyte."""
    parser = TarParser(what="layer test", limits=limits, visitor=visitor)
    for start in range(0, len(tar), size):
        piece = tar[start : start + size]
        parser.feed(bytearray(piece), len(piece))
    parser.finish()
    return list(parser.members)


def one(tar: bytes) -> Entry:
    """The one entry of a tar."""
    (entry,) = members(tar)
    assert isinstance(entry, Entry)
    return entry


def refusal(tar: bytes, limits: Limits = LIMITS) -> LayerError:
    """The error that a tar is refused with; it must be complete."""
    with pytest.raises(LayerError) as caught:
        content(tar, limits=limits)
    error = caught.value
    assert str(error).startswith(f"layer test: offset {error.offset}: member {error.member[:300]!r}: ")
    assert error.repair
    return error


def test_each_type_is_read_whole() -> None:
    long_path = b"deep/" * 30 + b"file"
    tar = archive(
        member(b"./", b"5", mode=0o1777),
        member(b"a", data=b"hello", uid=1000, gid=1001, mode=0o4755),
        member(b"dir/", b"5", xattrs={b"user.x": b"1", b"trusted.t": b"\0\xff="}),
        member(b"dir/link", b"2", link=b"../a"),
        member(b"tty", b"3", device=(5, 1), mode=0o620),
        member(b"disk", b"4", device=(4095, 2**20 - 1)),
        member(b"pipe", b"6"),
        member(b"hard", b"1", link=b"./a"),
        member(long_path, data=b"x" * 512),
        member(b"old\xff\nname", b"\0"),
    )
    found = members(tar)
    assert found[0] == Entry(b"", Kind.DIRECTORY, 0o1777, 0, 0, (MTIME, 0))
    assert found[1] == Entry(b"a", Kind.FILE, 0o4755, 1000, 1001, (MTIME, 0), 5, 1024)
    assert found[2] == Entry(
        b"dir", Kind.DIRECTORY, 0o755, 0, 0, (MTIME, 0), xattrs=((b"trusted.t", b"\0\xff="), (b"user.x", b"1"))
    )
    assert found[3] == Entry(b"dir/link", Kind.SYMLINK, 0o777, 0, 0, (MTIME, 0), target=b"../a")
    assert found[4] == Entry(b"tty", Kind.CHARACTER, 0o620, 0, 0, (MTIME, 0), rdev=(5, 1))
    assert found[5] == Entry(b"disk", Kind.BLOCK, 0o644, 0, 0, (MTIME, 0), rdev=(4095, 2**20 - 1))
    assert found[6] == Entry(b"pipe", Kind.FIFO, 0o644, 0, 0, (MTIME, 0))
    assert found[7] == HardLink(path=b"hard", target=b"a")
    last = found[8]
    assert isinstance(last, Entry)
    assert (last.path, last.size, tar[last.offset : last.offset + 512]) == (long_path, 512, b"x" * 512)
    assert found[9].path == b"old\xff\nname"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_the_formats_of_the_standard_library_agree(form: int) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for name in ("a", "n" * 100, "d/" * 40 + "f" * 60, "p/" * 60 + "x"):
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.mtime = 700, 0o7777777, MTIME
            tar.addfile(info, io.BytesIO(bytes(700)))
    for entry, name in zip(
        members(buffer.getvalue()), ["a", "n" * 100, "d/" * 40 + "f" * 60, "p/" * 60 + "x"], strict=True
    ):
        assert isinstance(entry, Entry)
        assert (entry.path, entry.size, entry.uid, entry.mtime) == (name.encode(), 700, 0o7777777, (MTIME, 0))


def test_gnu_long_names_and_numbers() -> None:
    name, target = b"n/" * 120 + b"f", b"t" * 300
    tar = archive(
        long_name(name),
        header(
            name[:100], magic=GNU, fields={108: b"\x80" + (2**32 - 2).to_bytes(7, "big"), 136: b"\xff" * 11 + b"\xfe"}
        ),
        long_name(target, b"K"),
        long_name(b"l" * 200),
        header(b"l" * 100, b"2", link=target, magic=GNU),
    )
    first, second = members(tar)
    assert isinstance(first, Entry)
    assert (first.path, first.uid, first.mtime) == (name, 2**32 - 2, (-2, 0))
    assert isinstance(second, Entry)
    assert (second.path, second.target) == (b"l" * 200, target)


def test_pax_records_override_the_header() -> None:
    tar = archive(
        pax({b"comment": b"git archive writes one"}, b"g"),
        member(
            b"short",
            extended={
                b"path": b"./long//name",
                b"uid": b"4294967294",
                b"gid": b"7",
                b"mtime": b"-1.25",
                b"atime": b"0",
                b"LIBARCHIVE.xattr.user.x": b"eA==",
                b"hdrcharset": b"BINARY",
                b"SCHILY.acl.access": b"user::rwx",
                b"BAZEL.thing": b"",
            },
        ),
        member(b"l", b"2", link=b"short", extended={b"linkpath": b"longer"}),
    )
    first, second = members(tar)
    assert isinstance(first, Entry)
    assert (first.path, first.uid, first.gid, first.mtime) == (b"long/name", 2**32 - 2, 7, (-2, 750_000_000))
    assert isinstance(second, Entry)
    assert second.target == b"longer"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0", (0, 0)),
        (b"1.5", (1, 500_000_000)),
        (b"1.", (1, 0)),
        (b"1.0000000019", (1, 1)),
        (b"-3", (-3, 0)),
        (b"-0.000000001", (-1, 999_999_999)),
        (b"17179869184", (2**34, 0)),
        (b"-8589934592", (-(2**33), 0)),
    ],
)
def test_pax_times(text: bytes, expected: tuple[int, int]) -> None:
    assert one(archive(member(b"a", extended={b"mtime": text}))).mtime == expected


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"/etc/x", b"etc/x"),
        (b"a//b", b"a/b"),
        (b"./././a", b"a"),
        (b"a/./b", b"a/b"),
        (b"//a", b"a"),
        (b"a...b/..c", b"a...b/..c"),
    ],
)
def test_absolute_and_doubled_slashes_are_made_canonical(name: bytes, path: bytes) -> None:
    assert one(archive(member(name))).path == path


@pytest.mark.parametrize("name", [b"./", b".", b"/", b"//", b"./."])
def test_the_root_may_be_named(name: bytes) -> None:
    entry = one(archive(member(name, b"5", mode=0o700)))
    assert (entry.path, entry.mode) == (b"", 0o700)


def test_v7_headers_are_read_where_all_readers_agree() -> None:
    tar = archive(header(b"a", b"\0", magic=V7), header(b"d/", b"5", magic=V7), header(b"l", b"2", link=b"a", magic=V7))
    assert [entry.path for entry in members(tar)] == [b"a", b"d", b"l"]
    assert "without magic" in str(refusal(archive(header(b"p", b"6", magic=V7))))
    assert "not zero" in str(refusal(archive(header(b"p", magic=V7, fields={345: b"prefix"}))))


def test_type_bits_in_the_mode_are_dropped() -> None:
    assert one(archive(header(b"a", mode=0o100644))).mode == 0o644


@pytest.mark.parametrize("size", [512, 1024, 1536, 4096, 1 << 20])
def test_a_visitor_gets_every_byte_whatever_the_buffers(size: int) -> None:
    blobs = [bytes([65 + index]) * length for index, length in enumerate([0, 1, 511, 512, 513, 5000, 1024, 0])]
    tar = archive(
        *[member(b"f%d" % index, data=blob) for index, blob in enumerate(blobs)],
        pax({b"path": b"long/" * 200 + b"x"}),
        header(b"x"),
    )
    keeper = Keeper()
    found = fed(tar, size, keeper)
    assert found == list(members(tar))
    assert [keeper.data[entry.offset] for entry in keeper.seen] == [*blobs, b""]
    assert keeper.ended == [entry.offset for entry in keeper.seen]
    some = Keeper(lambda entry: entry.path == b"f5")
    fed(tar, size, some)
    assert list(some.data.values()) == [blobs[5]]


def test_whiteouts_are_no_files() -> None:
    keeper = Keeper()
    tar = archive(
        member(b"d/.wh.gone"),
        member(b".wh.top"),
        member(b"d/.wh..wh..opq"),
        member(b".wh..wh..opq"),
        member(b"d/x.wh.y"),
        member(b"d/.whx"),
    )
    assert content(tar, visitor=keeper).members[:4] == (
        Whiteout(path=b"d/gone"),
        Whiteout(path=b"top"),
        Opaque(path=b"d"),
        Opaque(path=b""),
    )
    assert [entry.path for entry in keeper.seen] == [b"d/x.wh.y", b"d/.whx"]


@pytest.mark.parametrize(
    ("tar", "problem"),
    [
        (archive(member(b".wh.")), "whiteout of no file"),
        (archive(member(b".wh..")), "whiteout of no file"),
        (archive(member(b"d/.wh...")), "whiteout of no file"),
        (archive(member(b".wh..wh.plnk")), "whiteout of no file"),
        (archive(member(b".wh..wh..wh.x")), "whiteout of no file"),
        (archive(member(b".wh.d/x")), "directory named as a whiteout"),
        (archive(member(b"a/.wh.d/.wh.x")), "directory named as a whiteout"),
        (archive(member(b".wh..wh..opq/x")), "directory named as a whiteout"),
        (archive(member(b".wh.x", data=b"1")), "not an empty regular file"),
        (archive(member(b".wh.x", b"2", link=b"a")), "not an empty regular file"),
        (archive(member(b".wh.x/", b"5")), "not an empty regular file"),
        (archive(member(b"x", b"1", link=b".wh.a")), "is no file"),
        (archive(member(b"x", b"3", device=(0, 0))), "0:0"),
        (archive(member(b"x", b"4", device=(0, 0))), "0:0"),
        (archive(member(b"x", xattrs={b"trusted.overlay.opaque": b"y"})), "steers overlayfs"),
        (archive(member(b"x/", b"5", xattrs={b"user.overlay.redirect": b"/etc"})), "steers overlayfs"),
    ],
)
def test_l4_whiteouts_that_are_more_than_a_name(tar: bytes, problem: str) -> None:
    assert problem in str(refusal(tar))


@pytest.mark.parametrize(
    ("tar", "problem"),
    [
        (archive(member(b"../x")), "'..' part"),
        (archive(member(b"a/../../x")), "'..' part"),
        (archive(member(b"..")), "'..' part"),
        (archive(member(b"a/..", b"5")), "'..' part"),
        (archive(member(b"x", extended={b"path": b"a/../b"})), "'..' part"),
        (archive(long_name(b"../" * 50 + b"x"), header(b"x", magic=GNU)), "'..' part"),
        (archive(member(b"x", b"1", link=b"../y")), "'..' part"),
        (archive(member(b"x", b"1", link=b"x")), "link to itself"),
        (archive(member(b"x", b"1", link=b"/")), "is no file"),
        (archive(member(b"./", b"2", link=b"/etc")), "name is a directory's"),
        (archive(member(b"/", b"0")), "name is a directory's"),
        (archive(member(b"d/", b"0")), "name is a directory's"),
        (archive(member(b"d/", b"\0")), "name is a directory's"),
        (archive(member(b"l/", b"2", link=b"x")), "name is a directory's"),
        (archive(member(b"", b"0")), "name is a directory's"),
    ],
)
def test_l1_names_that_leave_the_tree(tar: bytes, problem: str) -> None:
    assert problem in str(refusal(tar))


@pytest.mark.parametrize(
    ("tar", "problem"),
    [
        # Two names for one member: readers take the first or the last.
        (archive(pax({b"path": b"a"}), pax({b"path": b"b"}), header(b"c")), "second extended header (x)"),
        (archive(pax({b"path": b"a"}), long_name(b"b"), header(b"c")), "second extended header (L)"),
        (archive(long_name(b"b"), pax({b"path": b"a"}), header(b"c")), "second extended header (x)"),
        (archive(long_name(b"a"), long_name(b"b"), header(b"c")), "second extended header (L)"),
        (archive(long_name(b"a", b"K"), long_name(b"b", b"K"), header(b"c", b"2")), "second extended header (K)"),
        (archive(pax({b"path": b"a"}), pax({b"comment": b"c"}, b"g"), header(b"c")), "second extended header (g)"),
        (archive(pax({b"path": b"a"}, b"g"), header(b"c")), "comments only"),
        (
            archive(
                header(b"PaxHeaders", b"x", size=20) + padded(record(b"uid", b"1") * 2 + b"11 uid=2\n")[:512],
                header(b"c"),
            ),
            "",
        ),
        (archive(member(b"a", extended={b"GNU.sparse.major": b"1"})), "a sparse member"),
        (archive(member(b"a", extended={b"SCHILY.realsize": b"100"})), "a sparse member"),
        (archive(header(b"a", b"S", magic=GNU)), "a sparse member"),
        (archive(member(b"a", extended={b"SCHILY.filetype": b"dir"})), "is not supported"),
        (archive(member(b"a", extended={b"GNU.volume.label": b"x"})), "is not supported"),
        (archive(member(b"a", extended={b"unknown": b"x"})), "is not known"),
        (archive(member(b"a", extended={b"vendor.x": b"x"})), "is not known"),
        (archive(member(b"a", extended={b"hdrcharset": b"EBCDIC"})), "hdrcharset"),
        (archive(member(b"a", extended={b"path": b""})), "is empty"),
        (archive(member(b"a", extended={b"path": b"a\0b"})), "holds a NUL"),
        (archive(long_name(b"a\0b"), header(b"c")), "holds a NUL"),
        (archive(long_name(b""), header(b"c")), "is empty"),
        (archive(header(b"a\0b")), "behind its NUL"),
        (archive(header(b"a", link=b"b\0c", kind=b"2")), "behind its NUL"),
        (archive(header(b"a", prefix=b"p\0q")), "behind its NUL"),
        # Data that another reader would take for members, or skip.
        (archive(member(b"a", extended={b"size": b"1024"}), padded(b"x" * 1024)), "pax size"),
        (archive(header(b"d/", b"5", size=512), bytes(512)), "its type has none"),
        (archive(header(b"l", b"1", link=b"x", size=512), bytes(512)), "its type has none"),
        (archive(header(b"l", b"2", link=b"x", size=1), bytes(512)), "its type has none"),
        (archive(header(b"a", size=1) + b"1" + bytes(510) + b"!"), "padding"),
        (archive(header(b"a", b"7")), "type b'7'"),
        (archive(header(b"a", b"D")), "type b'D'"),
        (archive(header(b"a", b"X")), "type b'X'"),
        (archive(header(b"a", magic=b"ustar\0 \0")), "magic"),
        (archive(header(b"a", fields={345: b"p", 500: b"1"})), "not zero"),
        (archive(header(b"a", magic=GNU, fields={345: b"00000000000\0"})), "not zero"),
        (archive(header(b"a", fields={508: b"tar\0"})), "not zero"),
        # Ends.
        (archive(member(b"a"), end=b""), "without two blocks"),
        (archive(member(b"a"), end=bytes(512)), "without two blocks"),
        (b"", "without two blocks"),
        (archive(member(b"a"), end=bytes(512) + member(b"b") + bytes(1024)), "end of the archive"),
        (archive(member(b"a")) + member(b"b"), "end of the archive"),
        (archive(pax({b"path": b"a"})), "followed by the end"),
        (archive(pax({b"path": b"a"}), end=b""), "ends inside this member"),
        (archive(member(b"a", data=b"x" * 600))[:1024], "ends inside this member"),
        # A checksum of signed bytes, as some old systems wrote.
        (
            archive(
                header(
                    b"\xff", checksum=b"%06o\0 " % (sum(header(b"\xff")) - sum(header(b"\xff")[148:156]) + 256 - 256)
                )
            ),
            "checksum",
        ),
        (archive(header(b"a", checksum=b"000000\0 ")), "checksum"),
        (archive(header(b"a", checksum=b"not one!")), "octal digits"),
    ],
)
def test_l2_what_two_readers_would_read_differently(tar: bytes, problem: str) -> None:
    assert problem in str(refusal(tar))


@pytest.mark.parametrize(
    ("tar", "problem"),
    [
        (archive(header(b"a", fields={108: b"0o000017"})), "octal digits"),
        (archive(header(b"a", fields={108: b"+000017\0"})), "octal digits"),
        (archive(header(b"a", fields={108: b"00_0017\0"})), "octal digits"),
        (archive(header(b"a", fields={108: b"0000018\0"})), "octal digits"),
        (archive(header(b"a", fields={108: b"00\0 017\0"})), "octal digits"),
        (archive(header(b"a", fields={124: b"00000000008\0"})), "octal digits"),
        (archive(header(b"a", fields={124: b"0000000000 \0"})), ""),
        (archive(header(b"a", fields={124: b"-0000000001\0"})), "octal digits"),
        # A negative size sends a reader backwards, for ever (CVE-2025-8194).
        (archive(header(b"a", fields={124: b"\xff" * 12})), "size is -1"),
        (archive(header(b"a", fields={124: b"\x80" + b"\xff" * 11})), "size is"),
        (archive(header(b"a", fields={124: b"\x81" + bytes(11)})), "octal digits"),
        (archive(header(b"a", fields={108: b"\x80" + (2**32 - 1).to_bytes(7, "big")})), "uid is 4294967295"),
        (archive(header(b"a", fields={116: b"\x80" + (2**32).to_bytes(7, "big")})), "gid is 4294967296"),
        (archive(header(b"a", fields={116: b"\xff" * 8})), "gid is -1"),
        (archive(header(b"a", fields={136: b"\x80" + (2**40).to_bytes(11, "big")})), "mtime is"),
        (archive(header(b"a", fields={100: b"7777777\0"})), "mode is"),
        (archive(header(b"a", b"3", fields={329: b"0010000\0"})), "devmajor is 4096"),
        (archive(header(b"a", b"3", fields={337: b"4000000\0"})), "devminor is 1048576"),
        (archive(member(b"a", extended={b"uid": b"4294967295"})), "uid is 4294967295"),
        (archive(member(b"a", extended={b"uid": b"-1"})), "decimal digits"),
        (archive(member(b"a", extended={b"gid": b"1_0"})), "decimal digits"),
        (archive(member(b"a", extended={b"gid": b"9" * 30})), "decimal digits"),
        (archive(member(b"a", extended={b"size": b"9" * 20})), "size is"),
        (archive(member(b"a", extended={b"mtime": b"1e9"})), "decimal number"),
        (archive(member(b"a", extended={b"mtime": b"1.-5"})), "decimal number"),
        (archive(member(b"a", extended={b"mtime": b"99999999999"})), "mtime is"),
        (archive(member(b"a", extended={b"mtime": b"-99999999999"})), "mtime is"),
        (archive(member(b"a", extended={b"mtime": b"1." + b"0" * 100})), "decimal number"),
    ],
)
def test_r11_numbers_that_are_no_numbers_or_too_large(tar: bytes, problem: str) -> None:
    assert problem in str(refusal(tar)) if problem else content(tar)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"8 uid=1\n x", "does not begin with its length"),
        (b"08 uid=1\n", "does not begin with its length"),
        (b"uid=1\n", "does not begin with its length"),
        (b"99999999 uid=1\n", "does not begin with its length"),
        (b"9 uid=1\n", "is not LENGTH"),
        (b"7 uid=1\n", "is not LENGTH"),
        (b"4 =1\n", "is not LENGTH"),
        (b"8 uidx1\n", "is not LENGTH"),
        (b"0 uid=1\n", "does not begin with its length"),
        (b"3 u", "is not LENGTH"),
        (b"8 uid=1\n8 uid=2\n", "occurs twice"),
    ],
)
def test_l2_pax_records_are_exact(data: bytes, problem: str) -> None:
    # CVE-2019-20907: a record of length zero is read for ever.
    tar = archive(header(b"PaxHeaders", b"x", size=len(data)) + padded(data), header(b"a"))
    assert problem in str(refusal(tar))


_ACL = b"\2\0\0\0"
_OWNER, _GROUP, _OTHER = b"\1\0\6\0\xff\xff\xff\xff", b"\4\0\4\0\xff\xff\xff\xff", b"\x20\0\4\0\xff\xff\xff\xff"
_BOB, _MASK = b"\2\0\6\0\x0a\0\0\0", b"\x10\0\6\0\xff\xff\xff\xff"


def test_attributes_are_kept_exactly() -> None:
    acl = _ACL + _OWNER + _BOB + _GROUP + _MASK + _OTHER
    xattrs = {
        b"system.posix_acl_access": acl,
        b"security.capability": bytes(20),
        b"user.empty": b"",
        b"user.a=b": b"",
        b"user.large": b"v" * 65_535,
    }
    del xattrs[b"user.a=b"]
    entry = one(archive(member(b"a", xattrs=xattrs)))
    assert entry.xattrs == tuple(sorted(xattrs.items()))
    directory = one(archive(member(b"d/", b"5", xattrs={b"system.posix_acl_default": acl})))
    assert directory.xattrs == ((b"system.posix_acl_default", acl),)


@pytest.mark.parametrize(
    ("kind", "xattrs", "problem"),
    [
        (b"0", {b"com.apple.provenance": b""}, "no namespace"),
        (b"0", {b"system.nfs4_acl": b""}, "no namespace"),
        (b"0", {b"user.": b""}, "no namespace"),
        (b"0", {b"": b""}, "no namespace"),
        (b"0", {b"user." + b"n" * 251: b""}, "longer than 255"),
        (b"0", {b"user.a\0b": b""}, "holds a NUL"),
        (b"0", {b"user.a": b"v" * 65_536}, "65536 bytes"),
        (b"0", {b"user.%d" % index: b"v" * 60_000 for index in range(4)}, "take more than"),
        (b"0", {b"user.%d" % index + b"n" * 245: b"" for index in range(300)}, "names take more"),
        (b"2", {b"user.a": b""}, "on a symlink"),
        (b"6", {b"user.a": b""}, "on a fifo"),
        (b"2", {b"system.posix_acl_access": _ACL + _OWNER + _GROUP + _OTHER}, "on a symlink"),
        (b"0", {b"system.posix_acl_default": _ACL + _OWNER + _GROUP + _OTHER}, "on a file"),
        (b"0", {b"system.posix_acl_access": b""}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": _ACL}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": b"\1\0\0\0" + _OWNER}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": _ACL + _OWNER + b"x"}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": _ACL + _GROUP + _OWNER}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": _ACL + _BOB + _BOB}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": _ACL + b"\3\0\4\0\xff\xff\xff\xff"}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": _ACL + b"\1\0\x08\0\xff\xff\xff\xff"}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": _ACL + b"\1\0\4\0\1\0\0\0"}, "not an ACL"),
        (b"0", {b"system.posix_acl_access": _ACL + b"\2\0\4\0\xff\xff\xff\xff"}, "not an ACL"),
    ],
)
def test_attributes_that_linux_would_not_give_back(kind: bytes, xattrs: dict[bytes, bytes], problem: str) -> None:
    assert problem in str(refusal(archive(member(b"a", kind, link=b"t" if kind == b"2" else b"", xattrs=xattrs))))


@pytest.mark.parametrize(
    ("tar", "limits", "problem"),
    [
        (archive(*[member(b"%d" % index) for index in range(11)]), Limits(entries=10), "more than 10 members"),
        (
            archive(*[member(b"n" * 90 + b"%d" % index) for index in range(11)]),
            Limits(path_bytes=900),
            "paths and link",
        ),
        (archive(member(b"l", b"2", link=b"t" * 3000)), Limits(path_bytes=900), "paths and link"),
        (archive(member(b"a", extended={b"comment": b"c" * 5000})), Limits(meta=4096), "extended header of"),
        (
            archive(*[member(b"%d" % i, extended={b"comment": b"c" * 500}) for i in range(9)]),
            Limits(meta_total=4096),
            "extended header of",
        ),
        (archive(header(b"a", b"x", size=2**33 - 1)), LIMITS, "extended header of"),
        (archive(header(b"a", fields={124: b"\x80" + (2**40).to_bytes(11, "big")})), LIMITS, "1099511627776 bytes"),
    ],
)
def test_l5_more_than_the_limits(tar: bytes, limits: Limits, problem: str) -> None:
    error = refusal(tar, limits)
    assert problem in str(error)
    assert isinstance(error, LayerLimitError)
    assert isinstance(error, LimitError)


@pytest.mark.parametrize(
    ("tar", "problem"),
    [
        (archive(member(b"p/" * 2048 + b"x")), "expected at most 4095"),
        (archive(member(b"n" * 256)), "a part of 256 bytes"),
        (archive(member(b"l", b"2", link=b"t" * 4096)), "target has 4096 bytes"),
        (archive(member(b"l", b"2", link=b"")), "target has 0 bytes"),
        (archive(member(b"l", b"2", extended={b"linkpath": b"a\0b"})), "none of them 0"),
    ],
)
def test_names_that_linux_could_not_hold(tar: bytes, problem: str) -> None:
    assert problem in str(refusal(tar))


def test_names_at_their_limits_pass() -> None:
    path = b"/".join([b"n" * 255] * 15) + b"/" + b"m" * 255
    assert len(path) == 4095
    assert one(archive(member(path))).path == path
    assert one(archive(member(b"l", b"2", link=b"t" * 4095))).target == b"t" * 4095


def test_a_refusal_names_offset_member_and_repair() -> None:
    error = refusal(archive(member(b"good", data=b"1"), member(b"usr/bad", b"3", device=(0, 0))))
    assert (error.offset, error.member) == (1024, b"usr/bad")
    assert ".wh.NAME" in error.repair
    sparse = refusal(archive(member(b"big", extended={b"GNU.sparse.realsize": b"9"})))
    assert "--no-read-sparse" in sparse.repair


def test_caches_are_bounded() -> None:
    # Nothing repeats: every cache of parsed fields starts again, and answers stay right.
    tar = archive(*[header(b"d%d/f" % index, uid=index, mtime=index) for index in range(9000)])
    for index, entry in enumerate(members(tar)):
        assert isinstance(entry, Entry)
        assert (entry.path, entry.uid, entry.mtime) == (b"d%d/f" % index, index, (index, 0))


_SEEDS = [
    archive(
        member(b"./", b"5"),
        member(b"etc/", b"5", xattrs={b"user.a": b"1"}),
        member(b"etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n"),
        member(b"etc/link", b"2", link=b"passwd"),
        member(b"etc/hard", b"1", link=b"etc/passwd"),
        long_name(b"n" * 200),
        header(b"n" * 100, magic=GNU),
        member(b"dev/null", b"3", device=(1, 3)),
        member(b"usr/.wh.bin"),
    ),
    archive(pax({b"comment": b"x"}, b"g"), member(b"a" * 150, data=b"y" * 1500, uid=2**31, mtime=-5)),
]


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(_SEEDS), st.data())
def test_l2_mutants_are_refused_or_read_the_same_in_every_buffer(seed: bytes, data: st.DataObject) -> None:
    mutant = bytearray(seed)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(mutant) - 1))
        mutant[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        # A right checksum on every block that has one, so that mutants get past it.
        for start in range(0, len(mutant), 512):
            block = mutant[start : start + 512]
            if block[257:262] == b"ustar":
                block[148:156] = b" " * 8
                mutant[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    tar = bytes(mutant)
    outcomes = []
    for size in (512, 1024, 1 << 20):
        try:
            outcomes.append(fed(tar, size))
        except LayerError as error:
            outcomes.append([str(error)])
    assert outcomes[0] == outcomes[1] == outcomes[2]


@given(st.binary(max_size=3000))
def test_l2_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(SpecError):
        content(noise)


def test_posix_magic_is_what_tools_write() -> None:
    assert POSIX == b"ustar\x00" + b"00"
