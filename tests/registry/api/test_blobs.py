"""Blobs over HTTP: pull, ranges, delete, and who may have which."""

from __future__ import annotations

import json

import pytest

from ocispec.digest import Digest
from policy.model import State
from tests.support.images import image
from tests.support.registry import LiveRegistry


def test_a_blob_is_pulled_whole_and_described_by_head(live: LiveRegistry, repository: str) -> None:
    content = bytes(range(256)) * 10_000
    digest = live.push_blob(repository, content)
    path = f"/v2/{repository}/blobs/{digest}"
    head = live.request("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, str(len(content)), b"")
    got = live.request("GET", path)
    assert (got.status, got.headers["docker-content-digest"]) == (200, str(digest))
    assert Digest.of(got.body) == digest


def test_the_empty_blob_is_pulled(live: LiveRegistry, repository: str) -> None:
    digest = live.push_blob(repository, b"")
    got = live.request("GET", f"/v2/{repository}/blobs/{digest}")
    assert (got.status, got.headers["content-length"], got.body) == (200, "0", b"")


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=10-", 416, None, "bytes */10"),
        ("bytes=-0", 416, None, "bytes */10"),
        ("bytes=5-2", 416, None, "bytes */10"),
        ("Bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("bytes=-", 200, b"0123456789", None),
        ("bytes=0-1,3-4", 200, b"0123456789", None),
        ("lines=1-2", 200, b"0123456789", None),
    ],
)
def test_a_range_of_a_blob(
    live: LiveRegistry, repository: str, asked: str, status: int, body: bytes | None, content_range: str | None
) -> None:
    digest = live.push_blob(repository, b"0123456789")
    got = live.request("GET", f"/v2/{repository}/blobs/{digest}", Range=asked)
    assert (got.status, got.headers.get("content-range")) == (status, content_range)
    if body is not None:
        assert got.body == body


def test_head_is_of_the_whole_blob(live: LiveRegistry, repository: str) -> None:
    path = f"/v2/{repository}/blobs/{live.push_blob(repository, b'0123456789')}"
    head = live.request("HEAD", path, Range="bytes=0-3")
    assert (head.status, head.headers["content-length"], head.headers["accept-ranges"]) == (200, "10", "bytes")


def test_a_part_of_another_content_is_not_sent(live: LiveRegistry, repository: str) -> None:
    digest = live.push_blob(repository, b"0123456789")
    path = f"/v2/{repository}/blobs/{digest}"
    assert live.request("GET", path, Range="bytes=8-", If_Range=f'"{digest}"').body == b"89"
    for other in (f'"{Digest.of(b"another")}"', f'W/"{digest}"', "Mon, 01 Jan 2024 00:00:00 GMT"):
        got = live.request("GET", path, Range="bytes=8-", If_Range=other)
        assert (got.status, got.body) == (200, b"0123456789")


def test_a_blob_that_the_client_has_is_not_sent(live: LiveRegistry, repository: str) -> None:
    digest = live.push_blob(repository, b"0123456789")
    got = live.request("GET", f"/v2/{repository}/blobs/{digest}", If_None_Match=f'"{digest}"')
    assert (got.status, got.body, got.headers["etag"]) == (304, b"", f'"{digest}"')


def test_a_blob_of_another_repository_is_not_known(live: LiveRegistry, repository: str) -> None:
    digest = live.push_blob(f"{repository}/other", b"elsewhere")
    got = live.request("GET", f"/v2/{repository}/blobs/{digest}")
    assert (got.status, json.loads(got.body)["errors"][0]["code"]) == (404, "BLOB_UNKNOWN")


def test_a_deleted_blob_is_gone(live: LiveRegistry, repository: str) -> None:
    path = f"/v2/{repository}/blobs/{live.push_blob(repository, b'to be deleted')}"
    assert live.request("DELETE", path).status == 202
    assert live.request("DELETE", path).status == 404
    assert live.request("GET", path).status == 404


def test_a_blob_that_a_manifest_needs_is_not_deleted(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    path = f"/v2/{repository}/blobs/{built.layers[0].descriptor.digest}"
    refused = live.request("DELETE", path)
    assert refused.status == 409
    assert str(built.digest) in refused.body.decode()
    assert live.request("GET", path).status == 200


def test_a_host_has_only_blobs_that_a_cleared_manifest_reaches(live: LiveRegistry, repository: str) -> None:
    cleared, denied = image([{"a": "cleared"}]), image([{"b": "denied"}])
    live.push(repository, cleared, "cleared")
    live.push(repository, denied, "denied")
    live.judge(repository, cleared.digest, State.CLEARED)
    live.judge(repository, denied.digest, State.DENIED)
    loose = live.push_blob(repository, b"no manifest reaches this")

    def status(digest: Digest) -> int:
        return live.request("GET", f"/v2/{repository}/blobs/{digest}", account="host").status

    assert status(cleared.layers[0].descriptor.digest) == 200
    assert status(cleared.config.digest) == 200
    assert status(denied.layers[0].descriptor.digest) == 403
    assert status(loose) == 403


def test_a_layer_shared_with_a_cleared_image_is_served(live: LiveRegistry, repository: str) -> None:
    base = image([{"base": "shared"}])
    denied = image([{"app": "denied"}], parent=base)
    live.push(repository, denied, "denied")
    live.push(repository, base, "base")
    live.judge(repository, base.digest, State.CLEARED)
    live.judge(repository, denied.digest, State.DENIED)
    path = f"/v2/{repository}/blobs/{base.layers[0].descriptor.digest}"
    assert live.request("GET", path, account="host").status == 200


def test_a_cleared_image_elsewhere_opens_nothing_here(live: LiveRegistry, repository: str) -> None:
    built = image([{"same": "content"}])
    live.push(repository, built)
    live.push(f"{repository}/cleared", built)
    live.judge(f"{repository}/cleared", built.digest, State.CLEARED)
    layer = built.layers[0].descriptor.digest
    assert live.request("GET", f"/v2/{repository}/blobs/{layer}", account="host").status == 403
    assert live.request("GET", f"/v2/{repository}/cleared/blobs/{layer}", account="host").status == 200
