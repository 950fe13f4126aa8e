"""What every store promises of upload sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ocispec.digest import Digest
from registry.errors import BlobMismatchError, UploadUnknownError
from registry.store.interface import BlobStore, Upload
from tests.registry.store.contract.blobs import BIG, pieces


class UploadContract:
    """Run with fixtures `store` and `another`: a second store on the same bytes, as in another process."""

    def test_a_session_becomes_a_blob(self, store: BlobStore) -> None:
        upload = store.append(store.begin(), [b"hel", b"lo"])
        assert (upload.size, upload.digest) == (5, Digest.of(b"hello"))
        assert list(store.digests()) == []
        assert store.commit(upload, Digest.of(b"hello")) == 5
        with store.open(Digest.of(b"hello")) as stream:
            assert stream.read() == b"hello"

    @pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
    def test_chunks_are_joined_in_order(self, store: BlobStore, algorithm: str) -> None:
        upload = store.begin()
        for chunk in pieces(BIG, 3_000_001):
            upload = store.append(upload, pieces(chunk, 999_999))
        assert upload.size == len(BIG)
        digest = Digest.of(BIG, algorithm)
        assert store.commit(upload, digest) == len(BIG)
        with store.open(digest) as stream:
            assert stream.read() == BIG

    def test_a_session_goes_on_in_another_process(self, store: BlobStore, another: Callable[[], BlobStore]) -> None:
        upload = store.append(store.begin(), [BIG[:6_000_000]])
        second = another()
        upload = second.append(upload, [BIG[6_000_000:9_000_000]])
        upload = another().append(upload, [BIG[9_000_000:]])
        assert upload.digest in {None, Digest.of(BIG)}
        assert another().commit(upload, Digest.of(BIG)) == len(BIG)
        with store.open(Digest.of(BIG)) as stream:
            assert stream.read() == BIG

    def test_what_a_dead_request_wrote_is_written_over(
        self, store: BlobStore, another: Callable[[], BlobStore]
    ) -> None:
        upload = store.append(store.begin(), [BIG[:6_000_000]])
        store.append(upload, [b"never acknowledged" * 1_000_000])
        upload = another().append(upload, [BIG[6_000_000:]])
        another().commit(upload, Digest.of(BIG))
        with store.open(Digest.of(BIG)) as stream:
            assert stream.read() == BIG

    def test_a_body_that_raises_leaves_the_session_where_it_was(self, store: BlobStore) -> None:
        upload = store.append(store.begin(), [b"first "])

        def broken() -> Iterator[bytes]:
            yield b"half of the"
            raise ConnectionError("gone")

        with pytest.raises(Exception, match="gone"):
            store.append(upload, broken())
        upload = store.append(upload, [b"second"])
        assert store.commit(upload, Digest.of(b"first second")) == 12

    def test_an_empty_chunk_changes_nothing(self, store: BlobStore) -> None:
        upload = store.append(store.begin(), [b"hello"])
        assert store.append(upload, []).size == 5
        assert store.commit(store.append(upload, [b""]), Digest.of(b"hello")) == 5

    def test_a_session_without_bytes_is_the_empty_blob(self, store: BlobStore) -> None:
        assert store.commit(store.begin(), Digest.of(b"")) == 0
        assert store.size(Digest.of(b"")) == 0

    @pytest.mark.parametrize("content", [b"small", BIG], ids=["one part", "many parts"])
    def test_r2_a_session_of_another_digest_is_dropped(self, store: BlobStore, content: bytes) -> None:
        upload = store.append(store.begin(), [content])
        with pytest.raises(BlobMismatchError, match="digest mismatch"):
            store.commit(upload, Digest.of(b"wanted"))
        assert list(store.digests()) == []
        with pytest.raises(UploadUnknownError):
            store.commit(upload, Digest.of(content))

    def test_an_unknown_digest_so_far_is_hashed_at_the_commit(self, store: BlobStore) -> None:
        upload = replace(store.append(store.begin(), [BIG]), digest=None)
        with pytest.raises(BlobMismatchError):
            store.commit(upload, Digest.of(b"wanted"))
        upload = replace(store.append(store.begin(), [BIG]), digest=None)
        assert store.commit(upload, Digest.of(BIG)) == len(BIG)

    @pytest.mark.parametrize("content", [b"small", BIG], ids=["one part", "many parts"])
    def test_a_cancelled_session_is_gone(self, store: BlobStore, content: bytes) -> None:
        upload = store.append(store.begin(), [content])
        store.cancel(upload.id)
        store.cancel(upload.id)
        with pytest.raises(UploadUnknownError):
            store.commit(upload, Digest.of(content))
        assert list(store.digests()) == []

    def test_r3_an_id_that_is_a_path_is_not_known(self, store: BlobStore) -> None:
        for hostile in ("../../etc/passwd", "", "a" * 33, "A" * 32, "a" * 31 + "/"):
            with pytest.raises(UploadUnknownError):
                store.cancel(hostile)
            with pytest.raises(UploadUnknownError):
                store.append(Upload(id=hostile), [b"x"])

    def test_old_sessions_expire(self, store: BlobStore) -> None:
        small = store.append(store.begin(), [b"small"])
        big = store.append(store.begin(), [BIG])
        now = datetime.now(UTC)
        assert store.expire(now - timedelta(hours=1)) == ()
        assert set(store.expire(now + timedelta(hours=1))) == {small.id, big.id}
        for upload in (small, big):
            with pytest.raises(UploadUnknownError):
                store.commit(upload, Digest.of(b"small") if upload is small else Digest.of(BIG))

    def test_a_growing_file_holds_what_came(self, store: BlobStore) -> None:
        upload = store.begin()
        growing = store.growing_file(upload.id)
        store.append(upload, [b"seen"])
        assert growing is None or growing.read_bytes() == b"seen"
