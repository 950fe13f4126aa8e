"""R9: `urls` and non-distributable layers, as far as a push can tell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from tests.support.images import BuiltImage, image
from tests.support.registry import Answer, LiveRegistry

OCI = str(MediaType.OCI_MANIFEST)
OCI_INDEX = str(MediaType.OCI_INDEX)
ELSEWHERE = "https://store.example.com/blobs/1"
ABSENT = {"digest": str(Digest.of(b"a layer that lies elsewhere")), "size": 12_345}

Members = dict[str, Any]


def with_foreign_layer(built: BuiltImage, media_type: str, *urls: str) -> bytes:
    """The image's manifest with one more layer, which lies elsewhere."""
    members = json.loads(built.manifest.raw)
    members["layers"].append({"mediaType": media_type, **ABSENT, "urls": list(urls)})
    return json.dumps(members).encode()


def refusal(answer: Answer) -> str:
    """The message of an answer that refuses a manifest."""
    error = json.loads(answer.body)["errors"][0]
    assert (answer.status, error["code"]) == (400, "MANIFEST_INVALID")
    return str(error["message"])


@pytest.mark.parametrize(
    "media_type", [MediaType.OCI_FOREIGN, MediaType.OCI_FOREIGN_GZIP, MediaType.DOCKER_FOREIGN_GZIP]
)
def test_an_image_with_a_non_distributable_layer_is_kept_as_it_is(
    live: LiveRegistry, repository: str, media_type: MediaType
) -> None:
    built = image()
    live.push(repository, built)
    raw = with_foreign_layer(built, str(media_type), ELSEWHERE, "http://go.example.org/fwlink/?linkid=1")
    assert live.put_manifest(repository, "foreign", raw, OCI).status == 201
    assert live.request("GET", f"/v2/{repository}/manifests/foreign").body == raw
    assert live.request("GET", f"/v2/{repository}/blobs/{ABSENT['digest']}").status == 404
    assert live.request("GET", f"/v2/{repository}/manifests/foreign", account="host").status == 403


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data/",
        "http://127.0.0.1:5000/v2/",
        "http://127.1/",
        "http://0x7f.0x1/",
        "http://2130706433/",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://[fe80::1%25eth0]/",
        "http://10.1.2.3/",
        "http://192.168.0.1/",
        "http://localhost/",
        "http://registry.localhost/",
        "http://metadata.google.internal/",
        "http://printer.local/",
        "http://intranet/",
        "http://user:password@store.example.com/",
        "http://store.example.com:99999/",
        "file:///etc/passwd",
        "ftp://store.example.com/",
        "//store.example.com/",
        "store.example.com",
        "https://",
        "https://store.example.com/\r\nAuthorization: x",
        "",
    ],
)
def test_r9_a_layer_does_not_lead_into_somebodys_network(live: LiveRegistry, repository: str, url: str) -> None:
    built = image()
    live.push(repository, built)
    raw = with_foreign_layer(built, str(MediaType.OCI_FOREIGN_GZIP), ELSEWHERE, url)
    assert "expected http(s) and a public host" in refusal(live.put_manifest(repository, "foreign", raw, OCI))
    assert live.request("GET", f"/v2/{repository}/manifests/foreign").status == 404


def _config(members: Members) -> None:
    members["config"]["urls"] = [ELSEWHERE]


def _layer(members: Members) -> None:
    members["layers"][0]["urls"] = [ELSEWHERE]


def _subject(members: Members) -> None:
    members["subject"] = {"mediaType": OCI, **ABSENT, "urls": [ELSEWHERE]}


def _artifact(members: Members) -> None:
    members["artifactType"] = "application/x-sbom"
    members["config"]["mediaType"] = "application/x-sbom"
    members["layers"][0] |= {"mediaType": "text/plain", "urls": [ELSEWHERE]}


@pytest.mark.parametrize("change", [_config, _layer, _subject, _artifact])
def test_r9_nothing_else_may_lie_elsewhere(
    live: LiveRegistry, repository: str, change: Callable[[Members], None]
) -> None:
    built = image()
    live.push(repository, built)
    members = json.loads(built.manifest.raw)
    change(members)
    raw = json.dumps(members).encode()
    assert "non-distributable layers only" in refusal(live.put_manifest(repository, "v2", raw, OCI))


def test_r9_no_child_of_an_index_may_lie_elsewhere(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    child = built.descriptor.to_json() | {"urls": [ELSEWHERE]}
    raw = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [child]}).encode()
    assert "non-distributable layers only" in refusal(live.put_manifest(repository, "v2", raw, OCI_INDEX))
