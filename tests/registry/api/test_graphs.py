"""R10: what one index leads to is bounded, by levels, by ways, and by bytes."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import select

from ocispec.config import MAX_CONFIG
from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from registry.catalogue.schema import manifests
from registry.graph import MAX_DEPTH, MAX_WAYS
from tests.support.images import BuiltImage, image
from tests.support.registry import Answer, LiveRegistry

OCI = str(MediaType.OCI_MANIFEST)
OCI_INDEX = str(MediaType.OCI_INDEX)


def described(raw: bytes, media_type: str, **more: object) -> dict[str, object]:
    """A descriptor of a manifest."""
    return {"mediaType": media_type, "digest": str(Digest.of(raw)), "size": len(raw), **more}


def index_of(*children: dict[str, object]) -> bytes:
    """An index of these descriptors."""
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children}).encode()


def put_index(live: LiveRegistry, repository: str, raw: bytes) -> Answer:
    """Push an index by its digest."""
    return live.put_manifest(repository, Digest.of(raw), raw, OCI_INDEX)


def refused(live: LiveRegistry, repository: str, raw: bytes) -> str:
    """Push an index that must be refused and not be there; the message."""
    answer = put_index(live, repository, raw)
    error = json.loads(answer.body)["errors"][0]
    assert (answer.status, error["code"]) == (400, "MANIFEST_INVALID")
    assert live.request("GET", f"/v2/{repository}/manifests/{Digest.of(raw)}").status == 404
    return str(error["message"])


@pytest.fixture
def built(live: LiveRegistry, repository: str) -> BuiltImage:
    """An image in the repository."""
    found = image()
    live.push(repository, found, found.digest)
    return found


def test_r10_an_index_of_indexes_has_a_bounded_depth(live: LiveRegistry, repository: str, built: BuiltImage) -> None:
    raw = index_of(described(built.manifest.raw, OCI))
    for _ in range(MAX_DEPTH - 1):
        assert put_index(live, repository, raw).status == 201
        raw = index_of(described(raw, OCI_INDEX))
    assert put_index(live, repository, raw).status == 201
    assert f"in more than {MAX_DEPTH} levels" in refused(live, repository, index_of(described(raw, OCI_INDEX)))
    # However the deep one is reached: beside a shallow one, after it, or twice.
    flat = described(built.manifest.raw, OCI)
    refused(live, repository, index_of(flat, described(raw, OCI_INDEX), described(raw, OCI_INDEX)))


def test_r10_repeated_children_are_counted_as_often_as_they_are_reached(
    live: LiveRegistry, repository: str, built: BuiltImage
) -> None:
    # 512 times the same child is one index of 60 kB; 512 times that one is a quarter of a million ways.
    wide = index_of(*[described(built.manifest.raw, OCI)] * 512)
    assert put_index(live, repository, wide).status == 201
    assert put_index(live, repository, index_of(*[described(wide, OCI_INDEX)] * 7)).status == 201
    assert f"more than {MAX_WAYS} manifests" in refused(live, repository, index_of(*[described(wide, OCI_INDEX)] * 8))
    refused(live, repository, index_of(*[described(wide, OCI_INDEX)] * 512))


def test_r10_an_index_has_a_bounded_fan_out(live: LiveRegistry, repository: str, built: BuiltImage) -> None:
    raw = index_of(*[described(built.manifest.raw, OCI)] * 513)
    assert "513" in refused(live, repository, raw)


def test_r10_the_bytes_that_an_index_leads_to_are_bounded(
    live: LiveRegistry, repository: str, built: BuiltImage
) -> None:
    members = json.loads(built.manifest.raw) | {"annotations": {"padding": "x" * 3_900_000}}
    large = json.dumps(members).encode()
    assert live.put_manifest(repository, Digest.of(large), large, OCI).status == 201
    assert put_index(live, repository, index_of(*[described(large, OCI)] * 17)).status == 201
    assert "bytes of manifests" in refused(live, repository, index_of(*[described(large, OCI)] * 18))


def test_r10_the_other_indexes_that_one_leads_to_are_bounded(
    live: LiveRegistry, repository: str, built: BuiltImage
) -> None:
    child = described(built.manifest.raw, OCI)
    nested = [index_of({**child, "annotations": {"number": str(number)}}) for number in range(65)]
    for raw in nested:
        assert put_index(live, repository, raw).status == 201
    listed = [described(raw, OCI_INDEX) for raw in nested]
    assert put_index(live, repository, index_of(*listed[:64])).status == 201
    assert "more than 64 other indexes" in refused(live, repository, index_of(*listed))


def test_r10_an_index_cannot_name_itself_or_what_is_not_there(live: LiveRegistry, repository: str) -> None:
    raw = index_of({"mediaType": OCI_INDEX, "digest": f"sha256:{'0' * 64}", "size": 1000})
    answer = put_index(live, repository, raw)
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, "MANIFEST_BLOB_UNKNOWN")


def test_r10_an_image_has_a_bounded_config(live: LiveRegistry, repository: str, built: BuiltImage) -> None:
    large = b" " * (MAX_CONFIG + 1)
    digest = live.push_blob(repository, large)
    members = json.loads(built.manifest.raw)
    members["config"] |= {"digest": str(digest), "size": len(large)}
    raw = json.dumps(members).encode()
    answer = live.put_manifest(repository, "v1", raw, OCI)
    error = json.loads(answer.body)["errors"][0]
    assert (answer.status, error["code"]) == (400, "MANIFEST_INVALID")
    assert error["message"].endswith(f"config of {MAX_CONFIG + 1} bytes, expected at most {MAX_CONFIG}")
    assert live.request("GET", f"/v2/{repository}/manifests/v1").status == 404
    # The config of an artifact is a blob like any other.
    members["config"]["mediaType"] = "application/vnd.example.model"
    assert live.put_manifest(repository, "v1", json.dumps(members).encode(), OCI).status == 201


def test_r10_a_subject_has_a_bounded_number_of_referrers(small: LiveRegistry) -> None:
    built = image()
    small.push("team/app", built)
    subject = built.descriptor.to_json()

    def attach(number: int) -> int:
        members = json.loads(built.manifest.raw) | {"subject": subject, "annotations": {"number": str(number)}}
        raw = json.dumps(members).encode()
        return small.put_manifest("team/app", Digest.of(raw), raw, OCI).status

    assert [attach(number) for number in range(3)] == [201, 201, 201]
    assert [attach(number) for number in range(3, 6)] == [400, 400, 400]
    assert attach(0) == 201  # what is there can be pushed again
    listed = json.loads(small.request("GET", f"/v2/team/app/referrers/{built.digest}").body)["manifests"]
    assert len(listed) == 3
    catalogue = small.catalogue()
    with catalogue.read() as conn:
        assert len(conn.scalars(select(manifests.c.digest).where(manifests.c.subject == built.digest)).all()) == 3
    catalogue.close()
