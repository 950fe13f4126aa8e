"""A registry whose blobs are in a bucket: pushed in the ways that clients push, and pulled."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ocispec.digest import Digest
from tests.support.images import image
from tests.support.registry import LiveRegistry, web_registry
from tests.support.s3 import bucket, s3_server

REPOSITORY = "team/app"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A registry on a bucket, with two web processes: a session comes back to another one half of the time."""
    folder = tmp_path_factory.mktemp("s3")
    with s3_server(folder) as endpoint:
        made = bucket(endpoint, "registry")
        s3 = {"bucket": made.bucket, "access_key": made.access_key, "secret_key": made.secret_key}
        s3 |= {"endpoint": endpoint, "prefix": "blobs-of/registry/"}
        storage = {"engine": "s3", "s3": {**s3, "part_size": 5 * 2**20}}
        with web_registry(folder / "registry", http={"workers": 2}, storage=storage) as running:
            yield running


def test_an_image_is_pushed_and_pulled(live: LiveRegistry) -> None:
    built = image([{"x": os.urandom(6_000_000)}, {"y": "small"}], compression="none")
    live.push(REPOSITORY, built, "v1")
    assert live.request("GET", f"/v2/{REPOSITORY}/manifests/v1").body == built.manifest.raw
    for digest, content in built.blobs.items():
        assert live.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}").body == content
    big = built.layers[0]
    part = live.request("GET", f"/v2/{REPOSITORY}/blobs/{big.descriptor.digest}", Range="bytes=5000000-5000099")
    assert (part.status, part.body) == (206, big.blob[5_000_000:5_000_100])


@pytest.mark.parametrize("size", [100, 12_000_000])
def test_a_session_of_many_chunks_becomes_a_blob(live: LiveRegistry, size: int) -> None:
    content = os.urandom(size)
    path = live.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]
    step = size // 4
    for start in range(0, size, step):
        chunk = content[start : start + step]
        answer = live.request("PATCH", path, body=chunk, Content_Range=f"{start}-{start + len(chunk) - 1}")
        assert answer.status == 202, answer
    assert live.request("PUT", f"{path}?digest={Digest.of(content)}").status == 201
    assert live.request("GET", f"/v2/{REPOSITORY}/blobs/{Digest.of(content)}").body == content


def test_nothing_of_a_blob_is_kept_on_the_local_disk(live: LiveRegistry) -> None:
    assert not live.settings.store_folder.exists()
