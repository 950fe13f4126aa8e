"""How an engine is reached, and how it is told to encrypt: what of `storage.s3` shows in requests to a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from ocispec.digest import Digest
from registry.errors import StorageError
from registry.settings_storage import S3Settings
from registry.store.keys import DerivedKey
from registry.store.s3 import S3Store
from registry.store.s3_bucket import Bucket
from tests.support.certificates import Authority, authority
from tests.support.s3 import SECRET, bucket, s3_server

SMALL = b"small"
LARGE = b"large" * (2**20 + 100)
"""More than one part."""


def _fill(store: S3Store) -> None:
    """Put one object in each way in which a store puts some, and get them back."""
    for content in (SMALL, LARGE):
        store.put(Digest.of(content), [content])
        upload = store.append(store.begin(), [content, b"!"])
        store.commit(upload, Digest.of(content + b"!"))
    key = DerivedKey(Digest.of(SMALL), "listing")
    store.put_derived(key, b"derived")
    for content in (SMALL, LARGE, SMALL + b"!", LARGE + b"!"):
        with store.open(Digest.of(content)) as stream:
            assert stream.read() == content
    assert store.get_derived(key) == b"derived"
    store.check()


def _new(endpoint: str, **settings: Any) -> S3Settings:
    return bucket(endpoint, f"settings-{uuid.uuid4().hex}", **settings)


# ---- encryption -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"encryption": "AES256"}, ("AES256", None)),
        ({"encryption": "aws:kms"}, ("aws:kms", None)),
        ({"encryption": "aws:kms", "kms_key": "key-of-the-test"}, ("aws:kms", "key-of-the-test")),
    ],
)
def test_every_object_is_encrypted_as_told(moto: str, settings: dict[str, str], shown: tuple[str, str | None]) -> None:
    made = _new(moto, **settings)
    _fill(S3Store(made))
    # An object too large for one copy is put together from copied parts.
    halves = Bucket(made, max_copy=5 * 2**20)
    halves.put("from", LARGE + LARGE)
    halves.copy("from", "to", 2 * len(LARGE))
    client = _client(moto)
    keys = [item["Key"] for item in client.list_objects_v2(Bucket=made.bucket)["Contents"]]
    assert len(keys) == 8
    for key in keys:
        head = client.head_object(Bucket=made.bucket, Key=key)
        assert (head["ServerSideEncryption"], head.get("SSEKMSKeyId")) == shown, key


def test_without_a_setting_nothing_is_said_of_encryption(moto: str) -> None:
    made = _new(moto)
    S3Store(made).put(Digest.of(SMALL), [SMALL])
    sent = Bucket(made)._encryption()
    assert sent == {}


def _client(endpoint: str) -> Any:
    keys = {"aws_access_key_id": "tester", "aws_secret_access_key": SECRET}
    return boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)


# ---- how it is reached ----------------------------------------------------------------------------------------------


def test_a_bucket_named_in_the_host(moto: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = _new(moto)
    # No name below this one can be looked up: requests go to the proxy of the environment, which is the engine.
    monkeypatch.setenv("http_proxy", moto)
    virtual = replace(made, endpoint="http://s3.amazonaws.com", addressing="virtual", redirects=30)
    store = S3Store(virtual)
    _fill(store)
    address = store.redirect(Digest.of(SMALL))
    assert address is not None
    assert address.startswith(f"http://{made.bucket}.s3.amazonaws.com/blobs/sha256/")
    assert {found.digest for found in store.listing()} == {found.digest for found in S3Store(made).listing()}
    by_path = S3Store(replace(virtual, addressing="path")).redirect(Digest.of(SMALL))
    assert by_path is not None
    assert by_path.startswith(f"http://s3.amazonaws.com/{made.bucket}/blobs/sha256/")


def test_registries_with_a_prefix_each_do_not_see_each_other(moto: str) -> None:
    made = _new(moto)
    first, second = (S3Store(replace(made, prefix=prefix)) for prefix in ("one/", "two/"))
    first.put(Digest.of(SMALL), [SMALL])
    assert [found.digest for found in first.listing()] == [Digest.of(SMALL)]
    assert list(second.listing()) == []
    assert second.size(Digest.of(SMALL)) is None


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that the system does not know."""
    return authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secure(ours: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An engine behind TLS."""
    with s3_server(tmp_path_factory.mktemp("secure"), tls=ours.issue("engine", "127.0.0.1")) as endpoint:
        yield endpoint


def test_an_engine_behind_tls_is_known_by_the_authority_of_the_settings(secure: str, ours: Authority) -> None:
    made = _new(secure, ca_file=ours.file)
    _fill(S3Store(made))


def test_an_engine_that_nobody_vouches_for_is_not_used(secure: str, ours: Authority, tmp_path: Path) -> None:
    made = _new(secure, ca_file=ours.file)
    other = authority(tmp_path, "somebody else").file
    for file in (None, other):
        with pytest.raises(StorageError, match=r"tmp/check: .*certificate verify failed"):
            S3Store(replace(made, ca_file=file, deadline=5)).check()


def test_an_engine_with_a_certificate_for_another_host_is_not_used(ours: Authority, tmp_path: Path) -> None:
    with s3_server(tmp_path, tls=ours.issue("elsewhere", "elsewhere.test")) as endpoint:
        made = S3Settings(
            bucket="b", access_key="tester", secret_key=SECRET, endpoint=endpoint, ca_file=ours.file, deadline=5
        )
        with pytest.raises(StorageError, match=r"127.0.0.1. doesn.t match .elsewhere.test"):
            S3Store(made).check()


def test_credentials_come_from_the_environment_where_the_settings_have_none(
    moto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = replace(_new(moto), access_key="", secret_key="")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(StorageError, match="no credentials in the settings, in the environment, or of this machine"):
        S3Store(made).check()
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tester")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    S3Store(made).check()
