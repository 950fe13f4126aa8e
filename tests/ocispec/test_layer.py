"""A layer is read once: digests and sizes checked, listed, copied, shown to a visitor."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import threading
from pathlib import Path
from typing import BinaryIO

import pytest
from backports import zstd

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.entry import Entry
from ocispec.errors import DigestMismatchError, LayerError, LimitError, SpecError, UnsupportedError
from ocispec.layer import READER_VERSION, read_layer, read_stored_layer
from ocispec.limits import Limits
from ocispec.tar import Consumer
from tests.support.layers import archive, member

BLOB = os.urandom(3_000_000)
TAR = archive(member(b"etc/", b"5"), member(b"etc/blob", data=BLOB), member(b"etc/x", data=b"x"), member(b".wh.y"))


class Hasher:
    """A visitor that hashes each file."""

    def __init__(self) -> None:
        self.found: dict[bytes, str] = {}

    def file(self, entry: Entry) -> Consumer | None:
        state = hashlib.sha256()

        def take(chunk: memoryview | bytes) -> None:
            state.update(chunk)
            if not len(chunk):
                self.found[entry.path] = state.hexdigest()

        return take


class OnlyRead:
    """A stream that has nothing but read(), as a response of an HTTP client may."""

    def __init__(self, data: bytes) -> None:
        self._source = io.BytesIO(data)

    def read(self, size: int) -> bytes:
        return self._source.read(min(size, 7777))


def described(stored: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(stored), size=len(stored))


def test_the_reader_has_a_version() -> None:
    assert READER_VERSION >= 1


def test_a_tar_is_hashed_listed_copied_and_shown() -> None:
    visitor, copy = Hasher(), io.BytesIO()
    content = read_layer(io.BytesIO(TAR), visitor=visitor, copy_to=copy, what="layer l")
    assert (content.diff_id, content.size) == (Digest.of(TAR), len(TAR))
    assert [member.path for member in content.members] == [b"etc", b"etc/blob", b"etc/x", b"y"]
    assert copy.getvalue() == TAR
    assert visitor.found == {b"etc/blob": hashlib.sha256(BLOB).hexdigest(), b"etc/x": hashlib.sha256(b"x").hexdigest()}
    assert "members" not in repr(content)


def test_a_stream_with_read_alone() -> None:
    stream: BinaryIO = OnlyRead(TAR)  # type: ignore[assignment]  # read() is all that is used
    assert read_layer(stream, what="layer l").diff_id == Digest.of(TAR)


@pytest.mark.parametrize(
    ("media_type", "stored"),
    [
        (MediaType.OCI_LAYER, TAR),
        (MediaType.OCI_LAYER_GZIP, gzip.compress(TAR, 1)),
        (MediaType.DOCKER_LAYER_GZIP, gzip.compress(TAR[:5000], 1) + gzip.compress(TAR[5000:], 1)),
        (MediaType.OCI_LAYER_ZSTD, zstd.compress(TAR)),
    ],
)
def test_stored_layers(media_type: str, stored: bytes) -> None:
    copy, source = io.BytesIO(), io.BytesIO(stored)
    content = read_stored_layer(source, described(stored, media_type), Digest.of(TAR), copy_to=copy)
    assert (content.diff_id, content.size, copy.getvalue()) == (Digest.of(TAR), len(TAR), TAR)
    assert not source.closed
    assert read_stored_layer(io.BytesIO(stored), described(stored, media_type), None) == content


def test_l5_declared_size_and_both_digests_are_checked() -> None:
    stored = gzip.compress(TAR, 1)
    right = described(stored, MediaType.OCI_LAYER_GZIP)
    short = Descriptor(media_type=right.media_type, digest=right.digest, size=right.size - 1)
    with pytest.raises(DigestMismatchError, match="size mismatch"):
        read_stored_layer(io.BytesIO(stored), short, None)
    long = Descriptor(media_type=right.media_type, digest=right.digest, size=right.size + 1)
    with pytest.raises(DigestMismatchError, match="size mismatch"):
        read_stored_layer(io.BytesIO(stored), long, None)
    again = gzip.compress(TAR, 9, mtime=1)  # the same tar, compressed otherwise
    other = Descriptor(media_type=right.media_type, digest=right.digest, size=len(again))
    with pytest.raises(DigestMismatchError, match="digest mismatch"):
        read_stored_layer(io.BytesIO(again), other, None)
    with pytest.raises(DigestMismatchError, match=f"diff_id mismatch: got {Digest.of(TAR)}, want {Digest.of(b'')}"):
        read_stored_layer(io.BytesIO(stored), right, Digest.of(b""))


def test_unsupported_types() -> None:
    with pytest.raises(UnsupportedError, match="is not a layer that we read"):
        read_stored_layer(io.BytesIO(TAR), described(TAR, MediaType.OCI_FOREIGN), None)
    with pytest.raises(UnsupportedError, match="is not a sha256"):
        read_stored_layer(io.BytesIO(TAR), described(TAR, MediaType.OCI_LAYER), Digest.of(TAR, "sha512"))


def test_l5_more_than_a_tar_may_have() -> None:
    with pytest.raises(LimitError, match="layer l: got more than 2000000 bytes"):
        read_layer(io.BytesIO(TAR), limits=Limits(tar=2_000_000), what="layer l")


def test_a_tar_of_odd_length() -> None:
    with pytest.raises(SpecError, match="expected a multiple of 512"):
        read_layer(io.BytesIO(TAR + b"\0"), what="layer l")


def test_a_refused_tar_leaves_no_thread() -> None:
    with pytest.raises(LayerError):
        read_layer(io.BytesIO(TAR[:-1024] + b"!" * 1024), what="layer l")
    assert not [thread for thread in threading.enumerate() if thread.name == "digest"]


def test_a_visitors_own_error_passes() -> None:
    class Broken:
        def file(self, entry: Entry) -> Consumer | None:
            raise RuntimeError(entry.path.decode())

    with pytest.raises(RuntimeError, match="etc/blob"):
        read_layer(io.BytesIO(TAR), visitor=Broken(), what="layer l")


def test_a_full_disk() -> None:
    # /dev/full answers every write with ENOSPC.
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left") as caught:
        read_layer(io.BytesIO(TAR), copy_to=full, what="layer l")
    assert caught.value.errno == errno.ENOSPC
