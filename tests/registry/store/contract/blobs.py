"""What every store promises of blobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from ocispec.digest import Digest
from registry.errors import BlobMismatchError, BlobUnknownError
from registry.store.interface import BlobStore

BIG = bytes(range(256)) * 4096 * 12  # 12 MiB: three parts of the smallest size that S3 allows


class BlobContract:
    """Run with a fixture `store`."""

    def test_a_blob_comes_back_whole(self, store: BlobStore) -> None:
        digest = Digest.of(b"hello")
        assert store.put(digest, [b"hel", b"", b"lo"], size=5) == 5
        assert store.size(digest) == 5
        with store.open(digest) as stream:
            assert stream.read() == b"hello"
        assert list(store.digests()) == [digest]

    def test_a_blob_of_many_parts_comes_back_whole(self, store: BlobStore) -> None:
        digest = Digest.of(BIG, "sha512")
        assert store.put(digest, pieces(BIG, 700_001)) == len(BIG)
        with store.open(digest) as stream:
            assert Digest.of(stream.read(), "sha512") == digest

    def test_the_empty_blob_is_a_blob(self, store: BlobStore) -> None:
        digest = Digest.of(b"")
        assert store.put(digest, []) == 0
        assert store.size(digest) == 0
        with store.open(digest) as stream:
            assert stream.read() == b""

    @pytest.mark.parametrize(("start", "length"), [(0, 3), (2, None), (2, 2), (4, 100), (0, 0), (5, None), (9, 1)])
    def test_a_range_of_a_blob(self, store: BlobStore, start: int, length: int | None) -> None:
        digest = Digest.of(b"hello")
        store.put(digest, [b"hello"])
        with store.open(digest, start=start, length=length) as stream:
            assert stream.read() == b"hello"[start:][:length]

    def test_a_range_is_read_in_any_steps(self, store: BlobStore) -> None:
        digest = Digest.of(BIG)
        store.put(digest, [BIG])
        with store.open(digest, start=1000, length=3_000_000) as stream:
            got = b"".join(iter(lambda: stream.read(65_537), b""))
        assert got == BIG[1000:3_001_000]

    def test_r2_bytes_of_another_digest_are_never_visible(self, store: BlobStore) -> None:
        digest = Digest.of(b"wanted")
        with pytest.raises(BlobMismatchError, match="digest mismatch"):
            store.put(digest, [b"other!"])
        assert store.size(digest) is None
        assert list(store.digests()) == []

    @pytest.mark.parametrize("size", [4, 6])
    def test_another_size_than_promised_is_refused(self, store: BlobStore, size: int) -> None:
        digest = Digest.of(b"hello")
        with pytest.raises(BlobMismatchError, match="size mismatch"):
            store.put(digest, [b"hello"], size=size)
        assert store.size(digest) is None

    def test_a_body_that_breaks_off_leaves_nothing(self, store: BlobStore) -> None:
        digest = Digest.of(BIG)

        def broken() -> Iterator[bytes]:
            yield BIG[: 11 * 2**20]
            raise ConnectionError("gone")

        with pytest.raises(Exception, match="gone"):
            store.put(digest, broken())
        assert store.size(digest) is None

    def test_a_second_put_of_a_blob_is_no_error(self, store: BlobStore) -> None:
        digest = Digest.of(b"twice")
        store.put(digest, [b"twice"])
        store.put(digest, [b"twice"])
        assert list(store.digests()) == [digest]

    def test_a_deleted_blob_is_gone(self, store: BlobStore) -> None:
        digest = Digest.of(b"bye")
        store.put(digest, [b"bye"])
        assert store.delete(digest)
        assert not store.delete(digest)
        assert store.size(digest) is None
        with pytest.raises(BlobUnknownError, match=str(digest)):
            store.open(digest)

    def test_many_blobs_are_listed_once_each(self, store: BlobStore) -> None:
        contents = [str(number).encode() for number in range(30)]
        for content in contents:
            store.put(Digest.of(content), [content])
        assert sorted(store.digests()) == sorted(Digest.of(content) for content in contents)

    def test_a_listing_has_sizes_and_times(self, store: BlobStore) -> None:
        before = datetime.now(UTC) - timedelta(seconds=2)
        store.put(Digest.of(b"hello"), [b"hello"])
        store.put(Digest.of(BIG, "sha512"), [BIG])
        listed = {found.digest: found for found in store.listing()}
        assert {digest: found.size for digest, found in listed.items()} == {
            Digest.of(b"hello"): 5,
            Digest.of(BIG, "sha512"): len(BIG),
        }
        after = datetime.now(UTC) + timedelta(seconds=2)
        assert all(before <= found.changed <= after for found in listed.values())

    def test_a_blob_that_was_uploaded_in_a_session_is_dated_by_its_commit(self, store: BlobStore) -> None:
        upload = store.append(store.begin(), [BIG])
        time.sleep(1.1)  # S3 lists whole seconds
        committed = datetime.now(UTC).replace(microsecond=0)
        store.commit(upload, Digest.of(BIG))
        (found,) = store.listing()
        assert found.changed >= committed

    def test_a_store_that_works_passes_its_check(self, store: BlobStore) -> None:
        store.check()
        assert list(store.digests()) == []


def pieces(content: bytes, size: int) -> Iterator[bytes]:
    """`content` in pieces of `size` bytes."""
    for start in range(0, len(content), size):
        yield content[start : start + size]
