"""Stored layers are inflated to their very end, and no further than the limits; both decoders alike."""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable

import pytest
from backports import zstd

from ocispec.errors import LimitError, SpecError, UnsupportedError
from ocispec.inflate import Inflater, ZlibDecoder, inflate
from ocispec.limits import LIMITS, Limits
from tests.support.tools import need

DATA = os.urandom(300_000) + bytes(700_000)
SKIPPABLE = b"\x5e\x2a\x4d\x18" + (7).to_bytes(4, "little") + b"skipped"


def _isal(stored: bytes, limits: Limits = LIMITS) -> Inflater:
    return Inflater(io.BytesIO(stored), "gzip", limits=limits, what="layer l")


def _zlib(stored: bytes, limits: Limits = LIMITS) -> Inflater:
    return Inflater(io.BytesIO(stored), "gzip", limits=limits, what="layer l", decoder=lambda _: ZlibDecoder())


def _zstd(stored: bytes, limits: Limits = LIMITS) -> Inflater:
    return Inflater(io.BytesIO(stored), "zstd", limits=limits, what="layer l")


def _gzip_of(data: bytes) -> bytes:
    return gzip.compress(data, 6)


def _zstd_of(data: bytes) -> bytes:
    return zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1})


Make = Callable[..., Inflater]
Pack = Callable[[bytes], bytes]
BOTH_GZIP = pytest.mark.parametrize("make", [_isal, _zlib])
ALL = pytest.mark.parametrize(("make", "pack"), [(_isal, _gzip_of), (_zlib, _gzip_of), (_zstd, _zstd_of)])


def drained(stream: Inflater, piece: int) -> bytes:
    pieces = []
    while chunk := stream.read(piece):
        assert piece < 0 or len(chunk) <= piece
        pieces.append(chunk)
    assert stream.read(piece) == b""
    return b"".join(pieces)


@ALL
@pytest.mark.parametrize("piece", [1000, 65_536, 3_000_000, -1])
def test_one_and_several_streams(make: Make, pack: Pack, piece: int) -> None:
    assert drained(make(pack(DATA)), piece) == DATA
    assert drained(make(pack(DATA) + pack(b"") + pack(b"end")), piece) == DATA + b"end"


@ALL
def test_readinto(make: Make, pack: Pack) -> None:
    stream, buffer, found = make(pack(DATA)), bytearray(12_345), b""
    while count := stream.readinto(memoryview(buffer)):
        found += buffer[:count]
    assert found == DATA
    stream.close()
    stream.close()
    assert stream.closed


def test_many_small_streams() -> None:
    # eStargz stores each file as a gzip member of its own.
    parts = [os.urandom(50) for _ in range(3000)]
    assert _isal(b"".join(map(_gzip_of, parts))).read() == b"".join(parts)
    assert _zstd(b"".join(map(_zstd_of, parts))).read() == b"".join(parts)


def test_skippable_frames() -> None:
    # zstd:chunked and eStargz keep their tables of contents in them (RFC 8878 section 3.1.2).
    assert _zstd(SKIPPABLE + _zstd_of(DATA) + SKIPPABLE + _zstd_of(b"end") + SKIPPABLE).read() == DATA + b"end"


@pytest.mark.parametrize("tool", ["gzip", "zstd"])
def test_what_the_commands_write(tool: str) -> None:
    stored = subprocess.run([need(tool), "-c"], input=DATA, capture_output=True, check=True).stdout
    assert inflate(io.BytesIO(stored), tool, what="layer l").read() == DATA


def test_none_is_the_stream_itself() -> None:
    stream = io.BytesIO(DATA)
    assert inflate(stream, "none", what="layer l") is stream
    with pytest.raises(UnsupportedError, match="layer l: compression 'bzip2' is not supported"):
        inflate(stream, "bzip2", what="layer l")


@ALL
def test_l2_trailing_garbage(make: Make, pack: Pack) -> None:
    # Go's reader, gzip(1) and zlib each do something else with it.
    for garbage in (b"\0", bytes(512), b"garbage", b"\x1f", b"\x28\xb5"):
        with pytest.raises(SpecError, match=r"layer l: at stored byte .* expected a .* header"):
            make(pack(DATA) + garbage).read()


@ALL
def test_cut_short(make: Make, pack: Pack) -> None:
    stored = pack(DATA)
    for length in (5, 100, len(stored) // 2, len(stored) - 1):
        with pytest.raises(SpecError, match="cut short"):
            make(stored[:length]).read()
    for length in (0, 1, 2):
        with pytest.raises(SpecError, match=r"expected a .* header"):
            make(stored[:length]).read()


@ALL
def test_spoilt_bytes(make: Make, pack: Pack) -> None:
    stored = bytearray(pack(DATA))
    stored[-2] ^= 1
    with pytest.raises(SpecError, match="near stored byte"):
        make(bytes(stored)).read()


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_another_format_than_the_media_type_says(compression: str) -> None:
    for stored in (
        bytes(1024),
        b"BZh91AY&SY",
        _zstd_of(DATA) if compression == "gzip" else _gzip_of(DATA),
        b"\x1f\x8b\x07",
    ):
        with pytest.raises(SpecError, match=f"at stored byte 0: got .*, expected a {compression} header"):
            inflate(io.BytesIO(stored), compression, what="layer l").read()


@BOTH_GZIP
def test_l2_reserved_flags_of_gzip(make: Make) -> None:
    # RFC 1952 section 2.3.1.2: a decoder must refuse them; isal alone does not.
    stored = bytearray(_gzip_of(DATA))
    stored[3] |= 0x80
    with pytest.raises(SpecError, match="expected a gzip header"):
        make(bytes(stored)).read()


@BOTH_GZIP
def test_optional_fields_of_gzip(make: Make) -> None:
    head = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x03\0abc" + b"name\0" + b"comment\0"
    head += (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    body = zlib.compressobj(wbits=-15)
    stored = head + body.compress(DATA) + body.flush()
    stored += zlib.crc32(DATA).to_bytes(4, "little") + len(DATA).to_bytes(4, "little")
    assert make(stored).read() == DATA


@ALL
def test_l5_a_bomb_by_ratio(make: Make, pack: Pack) -> None:
    limits = Limits(ratio=50, ratio_free=1_000_000)
    assert len(make(pack(bytes(900_000)), limits).read()) == 900_000
    made = 0
    stream = make(pack(bytes(30_000_000)), limits)

    def read_all() -> None:
        nonlocal made
        while chunk := stream.read(100_000):
            made += len(chunk)

    with pytest.raises(LimitError, match="stored bytes inflate to"):
        read_all()
    # Stopped as soon as the limit was passed, not at the end.
    assert made <= 1_000_000 + 50 * 131_072


@ALL
def test_l5_a_bomb_by_size(make: Make, pack: Pack) -> None:
    with pytest.raises(LimitError, match="inflates to more than 500000 bytes"):
        make(pack(DATA), Limits(tar=500_000)).read()


@ALL
def test_l5_a_bomb_of_streams(make: Make, pack: Pack) -> None:
    with pytest.raises(LimitError, match=r"more than 100 .* streams"):
        make(pack(b"") * 101, Limits(streams=100)).read()


def test_l5_a_bomb_by_window() -> None:
    # A frame that says it needs 1 GiB of memory to be decoded; the header alone must not take it.
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 30})
    stored = compressor.compress(b"x" * 100) + compressor.flush()
    tracemalloc.start()
    with pytest.raises(SpecError, match="too much memory"):
        _zstd(stored).read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10_000_000


def test_l5_a_bomb_of_bombs_is_one_layer() -> None:
    # Nested archives are files: nothing inside a layer is ever unpacked.
    inner = _gzip_of(bytes(10_000_000))
    assert _isal(_gzip_of(inner)).read() == inner


def test_l2_a_decoder_that_stands_still_is_not_asked_for_ever() -> None:
    class Stuck(ZlibDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.fed = False

        @property
        def needs_input(self) -> bool:
            return not self.fed

        def decompress(self, data: bytes | memoryview, max_length: int = -1, /) -> bytes:
            self.fed = True
            return b""

    stream = Inflater(io.BytesIO(_gzip_of(DATA)), "gzip", limits=LIMITS, what="layer l", decoder=lambda _: Stuck())
    with pytest.raises(SpecError, match="stands still"):
        stream.read()
