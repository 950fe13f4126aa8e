"""The contract on S3: moto's server, as a process on a loopback port."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from ocispec.digest import Digest
from registry.errors import StorageError
from registry.settings_storage import S3Settings
from registry.store import s3_bucket
from registry.store.interface import BlobStore
from registry.store.s3 import S3Store
from tests.registry.store.contract.blobs import BIG
from tests.registry.store.contract.whole import StoreContract
from tests.support.processes import free_port
from tests.support.s3 import bucket


@pytest.fixture
def settings(moto: str) -> S3Settings:
    """A new bucket."""
    return bucket(moto, f"test-{uuid.uuid4().hex}")


@pytest.fixture
def store(settings: S3Settings) -> S3Store:
    """A store in a new bucket."""
    return S3Store(settings)


class TestS3(StoreContract):
    """The contract."""

    @pytest.fixture
    def another(self, settings: S3Settings) -> Callable[[], BlobStore]:
        """A store on the same bucket, as in another process."""
        return lambda: S3Store(settings)


def test_an_upload_to_a_blob_that_broke_off_expires(store: S3Store, settings: S3Settings) -> None:
    sender = s3_bucket.Bucket(settings).sender("blobs/sha256/ab/never-finished")
    sender.write(BIG)
    found = s3_bucket.Bucket(settings)
    assert len(list(found.unfinished("blobs/"))) == 1
    store.expire(datetime.now(UTC) - timedelta(hours=1))
    assert len(list(found.unfinished("blobs/"))) == 1
    store.expire(datetime.now(UTC) + timedelta(hours=1))
    assert list(found.unfinished("blobs/")) == []


def test_a_commit_that_died_half_way_is_taken_up_again(store: S3Store, settings: S3Settings) -> None:
    upload = store.append(store.begin(), [BIG])
    assert upload.digest == Digest.of(BIG)
    # What a commit does before it copies: the multipart upload is completed, then the process dies.
    died = s3_bucket.Bucket(settings)
    (key, multipart, _), *_ = died.unfinished("uploads/")
    tail = [found.key for found in died.list("uploads/") if "tail" in found.key]
    sender = died.sender(key, multipart, tuple(_tags(upload.parts)))
    sender.write(died.read(tail[0]) or b"")
    sender.finish()
    assert store.size(Digest.of(BIG)) is None
    assert store.commit(upload, Digest.of(BIG)) == len(BIG)
    with store.open(Digest.of(BIG)) as stream:
        assert stream.read() == BIG


def test_an_object_too_large_for_one_copy_is_copied_in_ranges(
    settings: S3Settings,
) -> None:
    found = s3_bucket.Bucket(settings, max_copy=5 * 2**20)
    found.put("from", BIG)
    found.copy("from", "to", len(BIG))
    assert found.read("to") == BIG


def test_an_engine_that_is_not_there_is_one_clear_error() -> None:
    nobody = S3Settings(
        bucket="b", access_key="k", secret_key="s3cr3t-of-tests", endpoint=f"http://127.0.0.1:{free_port()}", timeout=1
    )
    with pytest.raises(StorageError, match="Could not connect"):
        S3Store(nobody).check()


def test_a_bucket_that_is_not_there_is_one_clear_error(moto: str) -> None:
    nowhere = S3Settings(bucket="no-such-bucket", access_key="k", secret_key="s3cr3t-of-tests", endpoint=moto)
    with pytest.raises(StorageError, match="the bucket no-such-bucket does not exist"):
        S3Store(nowhere).check()


def _tags(parts: str) -> list[str]:
    import json

    return list(json.loads(parts)[1])
