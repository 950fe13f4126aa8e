"""Conditional requests (RFC 9110 section 13) on manifests: what clients that keep a list under a tag need."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from ocispec.descriptor import MediaType
from tests.support.images import BuiltImage, image
from tests.support.registry import LiveRegistry

OCI = str(MediaType.OCI_MANIFEST)


@pytest.fixture
def versions(live: LiveRegistry, repository: str) -> tuple[BuiltImage, BuiltImage]:
    """Two images, the first of them tagged `v`."""
    first, second = image([{"x": "1"}]), image([{"x": "2"}])
    live.push(repository, second, second.digest)
    live.push(repository, first, "v")
    return first, second


def put(live: LiveRegistry, repository: str, tag: str, built: BuiltImage, **headers: str) -> int:
    """Push an image's manifest under a condition; the status."""
    path = f"/v2/{repository}/manifests/{tag}"
    return live.request("PUT", path, body=built.manifest.raw, Content_Type=OCI, **headers).status


def served(live: LiveRegistry, repository: str, tag: str) -> bytes:
    """What the tag gives."""
    return live.request("GET", f"/v2/{repository}/manifests/{tag}").body


def test_what_the_client_has_is_not_sent_again(
    live: LiveRegistry, repository: str, versions: tuple[BuiltImage, BuiltImage]
) -> None:
    first, second = versions
    path = f"/v2/{repository}/manifests/v"
    for method in ("GET", "HEAD"):
        for known in (f'"{first.digest}"', f'W/"{first.digest}"', "*", f'"other", "{first.digest}"'):
            got = live.request(method, path, If_None_Match=known)
            assert (got.status, got.body) == (304, b"")
            assert got.headers["docker-content-digest"] == str(first.digest)
        assert live.request(method, path, If_None_Match=f'"{second.digest}"').status == 200
        assert live.request(method, path, If_Match=f'"{first.digest}"').status == 200
        assert live.request(method, path, If_Match=f'"{second.digest}"').status == 412
    assert live.request("GET", f"/v2/{repository}/manifests/absent", If_None_Match="*").status == 404


def test_a_tag_is_moved_only_from_where_the_client_saw_it(
    live: LiveRegistry, repository: str, versions: tuple[BuiltImage, BuiltImage]
) -> None:
    first, second = versions
    assert put(live, repository, "v", second, If_Match=f'"{second.digest}"') == 412
    assert put(live, repository, "v", second, If_Match=f'W/"{first.digest}"') == 412
    assert put(live, repository, "absent", second, If_Match="*") == 412
    assert served(live, repository, "v") == first.manifest.raw
    assert live.request("GET", f"/v2/{repository}/manifests/absent").status == 404
    assert put(live, repository, "v", second, If_Match=f'"{first.digest}"') == 201
    assert served(live, repository, "v") == second.manifest.raw


def test_a_tag_is_made_only_where_there_is_none(
    live: LiveRegistry, repository: str, versions: tuple[BuiltImage, BuiltImage]
) -> None:
    first, second = versions
    assert put(live, repository, "v", second, If_None_Match="*") == 412
    assert served(live, repository, "v") == first.manifest.raw
    assert put(live, repository, "new", second, If_None_Match="*") == 201


def test_a_tag_is_deleted_only_where_the_client_saw_it(
    live: LiveRegistry, repository: str, versions: tuple[BuiltImage, BuiltImage]
) -> None:
    first, second = versions
    path = f"/v2/{repository}/manifests/v"
    refused = live.request("DELETE", path, If_Match=f'"{second.digest}"')
    assert (refused.status, json.loads(refused.body)["errors"][0]["code"]) == (412, "DENIED")
    assert live.request("DELETE", path, If_Match=f'"{first.digest}"').status == 202


def test_one_of_many_that_move_a_tag_at_once_succeeds(
    live: LiveRegistry, repository: str, versions: tuple[BuiltImage, BuiltImage]
) -> None:
    built = [image([{"version": str(number)}]) for number in range(8)]
    for each in built:
        live.push(repository, each, each.digest)
    with ThreadPoolExecutor(8) as pool:
        condition = f'"{versions[0].digest}"'
        statuses = list(pool.map(lambda each: put(live, repository, "v", each, If_Match=condition), built))
    assert sorted(statuses) == [201] + [412] * 7
    assert served(live, repository, "v") == built[statuses.index(201)].manifest.raw
