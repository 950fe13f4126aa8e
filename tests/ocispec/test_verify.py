"""Bytes are bounded and hashed while they are read: nothing else can be read to its end."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest

from ocispec.digest import Digest
from ocispec.errors import DigestMismatchError
from ocispec.verify import Digester, Stream, VerifyingReader

DATA = os.urandom(1_000_000)
DIGEST = Digest.of(DATA)


class Slow(Stream):
    """Gives what it is asked for in small, odd pieces."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._source = io.BytesIO(data)

    def read(self, size: int | None = -1, /) -> bytes:
        return self._source.read(min(size or 0, 4099))


def reader(data: bytes, *, digest: Digest = DIGEST, size: int = len(DATA), threaded: bool = False) -> VerifyingReader:
    return VerifyingReader(io.BytesIO(data), digest=digest, size=size, what="blob b", threaded=threaded)


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("piece", [1000, 300_000, 999_999, 1_000_000, 2_000_000, -1])
def test_right_bytes_pass(piece: int, threaded: bool) -> None:
    with reader(DATA, threaded=threaded) as stream:
        pieces = []
        while chunk := stream.read(piece):
            pieces.append(chunk)
        assert b"".join(pieces) == DATA
        assert stream.verified
        assert stream.readable()
    assert stream.closed


def test_readinto_and_odd_pieces() -> None:
    stream = VerifyingReader(Slow(DATA), digest=DIGEST, size=len(DATA), what="blob b")
    buffer = bytearray(70_000)
    found = b""
    while count := stream.readinto(memoryview(buffer)):
        found += buffer[:count]
    assert found == DATA


def test_the_empty_blob() -> None:
    assert reader(b"", digest=Digest.of(b""), size=0).read() == b""
    with pytest.raises(DigestMismatchError, match="got more than 0 bytes"):
        reader(b"x", digest=Digest.of(b""), size=0).read(1)


def test_sha512_too() -> None:
    assert reader(DATA, digest=Digest.of(DATA, "sha512")).readall() == DATA


@pytest.mark.parametrize("threaded", [False, True])
def test_the_last_byte_is_not_given_out_before_the_digest_is_right(threaded: bool) -> None:
    wrong = DATA[:-1] + bytes([DATA[-1] ^ 1])
    stream = reader(wrong, threaded=threaded)
    assert stream.read(900_000)
    with pytest.raises(DigestMismatchError, match=f"blob b: digest mismatch: got sha256:[0-9a-f]*, want {DIGEST}"):
        stream.read(100_000)
    assert not stream.verified
    stream.close()


def test_too_long_and_too_short() -> None:
    with pytest.raises(DigestMismatchError, match="size mismatch: got more than 1000000 bytes"):
        reader(DATA + b"x").readall()
    # Noticed although the reader asks for no more than the size.
    with pytest.raises(DigestMismatchError, match="got more than 1000000 bytes"):
        reader(DATA + b"x").read(1_000_000)
    with pytest.raises(DigestMismatchError, match="size mismatch: got 999999, want 1000000"):
        reader(DATA[:-1]).readall()


def test_closing_ends_the_thread_and_closes_the_source(tmp_path: Path) -> None:
    path = tmp_path / "blob"
    path.write_bytes(DATA)
    with path.open("rb") as source:
        stream = VerifyingReader(source, digest=DIGEST, size=len(DATA), what="blob b", threaded=True)
        stream.read(500_000)
        stream.close()
        stream.close()
        assert source.closed
    with path.open("rb") as source:
        stream = VerifyingReader(source, digest=DIGEST, size=len(DATA), what="blob b", threaded=True)
        stream.read(500_000)
        stream.release()
        assert stream.closed
        assert not source.closed
    assert not [thread for thread in threading.enumerate() if thread.name == "digest"]


class Full(io.RawIOBase):
    """A raw file that takes 1,000 bytes at once, and whose disk is full after `room`."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.taken = bytearray()
        self.room = room

    def write(self, data: memoryview, /) -> int:  # type: ignore[override]  # the digester writes memoryviews
        if len(self.taken) >= self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.taken += data[:1000]
        return len(data[:1000])


@pytest.mark.parametrize("threaded", [False, True])
def test_a_digester_copies_what_it_hashes(threaded: bool) -> None:
    target = Full(10_000_000)
    binary: BinaryIO = target  # type: ignore[assignment]  # a raw file is enough
    digester = Digester("sha256", copy_to=binary, threaded=threaded)
    done: list[int] = []
    for start in range(0, len(DATA), 250_000):
        digester.feed(memoryview(DATA)[start : start + 250_000], lambda: done.append(1))
    assert digester.hexdigest() == hashlib.sha256(DATA).hexdigest()
    assert bytes(target.taken) == DATA
    assert len(done) == 4


@pytest.mark.parametrize("threaded", [False, True])
def test_a_full_disk_is_an_error_of_whoever_feeds(threaded: bool) -> None:
    binary: BinaryIO = Full(300_000)  # type: ignore[assignment]  # a raw file is enough
    digester = Digester("sha256", copy_to=binary, threaded=threaded)

    def feed_all() -> None:
        for _ in range(100):
            digester.feed(DATA)
        digester.hexdigest()

    try:
        with pytest.raises(OSError, match="No space left"):
            feed_all()
    finally:
        digester.close()
