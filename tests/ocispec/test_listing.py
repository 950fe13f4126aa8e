"""A layer's listing comes back as it was, and a damaged one does not come back at all."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.digest import Digest
from ocispec.entry import Entry, HardLink, Kind, Member, Opaque, Whiteout
from ocispec.errors import SpecError
from ocispec.layer import LayerContent
from ocispec.listing import MAGIC, dump, load
from tests.support.layers import archive, content, member

_HEADER = struct.Struct("<8sI32sQIQ")
_BODY = _HEADER.size + 32

FULL = archive(
    member(b"./", b"5"),
    member(b"a", data=b"x" * 700, uid=2**32 - 2, mtime=-(2**33), xattrs={b"user.a": b"1", b"security.b": b"\0" * 3000}),
    member(b"b", b"1", link=b"a"),
    member(b"c/l", b"2", link=b"../a"),
    member(b"tty", b"3", device=(4095, 2**20 - 1)),
    member(b"p", b"6", extended={b"mtime": b"1.999999999"}),
    member(b"c/.wh.x"),
    member(b"c/.wh..wh..opq"),
    member(b".wh..wh..opq"),
    member(b"n" * 255 + b"/\xff\n"),
)


def test_every_kind_of_member_comes_back() -> None:
    layer = content(FULL)
    assert load(dump(layer)) == layer
    assert load(dump(content(archive()))) == content(archive())


def test_it_is_compact_and_always_the_same() -> None:
    layer = content(archive(*[member(b"usr/share/doc/package-%d/copyright" % index) for index in range(2000)]))
    assert dump(layer) == dump(layer)
    assert len(dump(layer)) < 40 * 2000


def changed(layer: LayerContent, members: Sequence[Member], size: int | None = None) -> LayerContent:
    return LayerContent(diff_id=layer.diff_id, size=layer.size if size is None else size, members=tuple(members))


_FILE = Entry(b"a", Kind.FILE, 0o644, 0, 0, (0, 0), 1, 512)


@pytest.mark.parametrize(
    "wrong",
    [
        _FILE._replace(path=b"../a"),
        _FILE._replace(path=b"a//b"),
        _FILE._replace(path=b"a/./b"),
        _FILE._replace(path=b"/a"),
        _FILE._replace(path=b"a/"),
        _FILE._replace(path=b"a\0"),
        _FILE._replace(path=b"n" * 256),
        _FILE._replace(path=b"n/" * 2048 + b"n"),
        _FILE._replace(path=b""),
        _FILE._replace(mode=0o10000),
        _FILE._replace(uid=2**32 - 1),
        _FILE._replace(gid=2**32 - 1),
        _FILE._replace(mtime=(0, 10**9)),
        _FILE._replace(offset=513),
        _FILE._replace(offset=1 << 40),
        _FILE._replace(size=10_000),
        _FILE._replace(target=b"x"),
        _FILE._replace(rdev=(1, 1)),
        _FILE._replace(xattrs=((b"trusted.overlay.opaque", b"y"),)),
        _FILE._replace(xattrs=((b"nowhere.a", b"y"),)),
        Entry(b"d", Kind.DIRECTORY, 0o755, 0, 0, size=1),
        Entry(b"d", Kind.DIRECTORY, 0o755, 0, 0, offset=512),
        Entry(b"", Kind.FIFO, 0o755, 0, 0),
        Entry(b"l", Kind.SYMLINK, 0o777, 0, 0),
        Entry(b"l", Kind.SYMLINK, 0o777, 0, 0, target=b"\0"),
        Entry(b"l", Kind.SYMLINK, 0o777, 0, 0, target=b"t" * 4096),
        Entry(b"p", Kind.FIFO, 0o777, 0, 0, target=b"t"),
        Entry(b"c", Kind.CHARACTER, 0o777, 0, 0),
        Entry(b"c", Kind.CHARACTER, 0o777, 0, 0, rdev=(4096, 0)),
        Entry(b"c", Kind.BLOCK, 0o777, 0, 0, rdev=(1, 2**20)),
        Entry(b"s", Kind.SYMLINK, 0o777, 0, 0, target=b"t", xattrs=((b"user.a", b""),)),
        HardLink(path=b"a", target=b""),
        HardLink(path=b"a", target=b"../b"),
        HardLink(path=b"", target=b"b"),
        Whiteout(path=b""),
        Opaque(path=b"a/.."),
    ],
)
def test_what_the_reader_would_not_make_is_not_loaded(wrong: Member) -> None:
    # The checksum is right: whoever wrote it wrote it so.
    layer = changed(content(archive(member(b"a", data=b"1"))), [wrong])
    with pytest.raises(SpecError, match="listing of layer sha256:"):
        load(dump(layer))
    # Also behind a member of the same directory.
    before = _FILE._replace(path=wrong.path.rpartition(b"/")[0] + b"/b", size=0)
    with pytest.raises(SpecError, match="listing of layer sha256:"):
        load(dump(changed(layer, [before, wrong])))


def packed(layer: LayerContent, body: bytes, **changes: object) -> bytes:
    values: dict[str, object] = {
        "magic": MAGIC,
        "version": 1,
        "diff_id": bytes.fromhex(layer.diff_id.hex),
        "size": layer.size,
        "count": len(layer.members),
        "length": len(body),
        **changes,
    }
    header, deflated = _HEADER.pack(*values.values()), zlib.compress(body)
    return header + hashlib.sha256(header + deflated).digest() + deflated


def test_headers_that_lie() -> None:
    layer = content(FULL)
    raw = dump(layer)
    body = zlib.decompress(raw[_BODY:])
    assert load(packed(layer, body)) == layer
    lies: list[dict[str, object]] = [
        {"magic": b"pqlist\0\2"},
        {"version": 2},
        {"size": layer.size + 1},
        {"size": 1024},
        {"count": len(layer.members) + 1},
        {"count": len(layer.members) - 1},
        {"count": 2**32 - 1},
        {"length": len(body) - 1},
        {"length": len(body) + 1},
        {"length": 2**63},
    ]
    for lie in lies:
        with pytest.raises(SpecError, match="listing"):
            load(packed(layer, body, **lie))
    for spoilt in (b"", raw[:50], raw[:-1], raw + b"x", raw[:_BODY] + b"not deflated"):
        with pytest.raises(SpecError, match="listing"):
            load(spoilt)
    for other in (body + b"x", body[:-1], body[:-40]):
        with pytest.raises(SpecError, match="listing"):
            load(packed(layer, other))


def test_unknown_kinds_and_cut_attributes() -> None:
    layer = content(archive(member(b"a", xattrs={b"user.a": b"123"})))
    body = bytearray(zlib.decompress(dump(layer)[_BODY:]))
    body[0] = 99
    with pytest.raises(SpecError, match="no known kind"):
        load(packed(layer, bytes(body)))
    body[0] = int(Kind.FILE)
    body[body.index(b"user.a") - 4] += 1
    with pytest.raises(SpecError, match="cut short"):
        load(packed(layer, bytes(body)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_flipped_byte_is_noticed(data: st.DataObject) -> None:
    layer = content(FULL)
    raw = bytearray(dump(layer))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SpecError, match="listing"):
        load(bytes(raw))


def test_the_diff_id_comes_back() -> None:
    assert load(dump(content(FULL))).diff_id == Digest.of(FULL)
