"""What is read of a registry that judges: refusals with their tree, warnings on a push, artifacts by the policy."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from tests.support.images import image
from tests.support.live import WholeRegistry, whole_registry
from tests.support.packages import os_release
from tests.support.registry import Answer

OCI = str(MediaType.OCI_MANIFEST)
BASE_FILES = {"etc/": b"", "bin/": b"", "bin/sh": b"#!", **os_release()}


@pytest.fixture(scope="module")
def live() -> Iterator[WholeRegistry]:
    """A registry with all its processes, and a policy."""
    with whole_registry() as running:
        running.publish()
        yield running


def push_artifact(live: WholeRegistry, repository: str, tag: str, artifact_type: str) -> Digest:
    """Push an artifact without a subject; returns its layer."""
    content = artifact_type.encode()
    for blob in (b"{}", content):
        live.push_blob(repository, blob)
    raw = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": OCI,
            "artifactType": artifact_type,
            "config": {"mediaType": str(MediaType.OCI_EMPTY), "digest": str(Digest.of(b"{}")), "size": 2},
            "layers": [{"mediaType": "text/plain", "digest": str(Digest.of(content)), "size": len(content)}],
        }
    ).encode()
    assert live.put_manifest(repository, tag, raw, OCI).status == 201
    return Digest.of(content)


def as_host(live: WholeRegistry, path: str) -> Answer:
    """Ask as a host."""
    return live.request("GET", path, account="host")


def test_a_refusal_holds_the_first_reason_and_the_whole_tree(live: WholeRegistry) -> None:
    repository = "team/denied"
    built = image([BASE_FILES])
    warning = live.push(repository, built, "v1").headers["warning"]
    live.until(repository, "v1", "denied")
    assert f"pratique explain {live.address}/{repository}:v1" in warning
    paths = ("manifests/v1", f"manifests/{built.digest}", f"blobs/{built.layers[0].descriptor.digest}")
    for path in paths:
        refused = as_host(live, f"/v2/{repository}/{path}")
        error = json.loads(refused.body)["errors"][0]
        assert (refused.status, error["code"]) == (403, "DENIED")
        assert error["detail"]["reason"] in error["message"]
        tree = error["detail"]["decision"]
        assert (tree["image"], tree["state"], tree["policy"]["name"]) == (str(built.digest), "denied", "default")
        assert error["detail"]["reason"] in tree["reason"]


def test_a_cleared_push_has_no_warning_and_is_served_at_once(live: WholeRegistry) -> None:
    repository = "team/cleared"
    built = image([BASE_FILES, {"x": "y"}])
    live.push(repository, built, "v1")
    live.approve(repository, built, "base", live.ring.alice, live.ring.bob)
    live.until(repository, "v1", "cleared")
    again = live.push(repository, built, "v2")
    assert "warning" not in again.headers
    assert as_host(live, f"/v2/{repository}/manifests/v2").body == built.manifest.raw
    tags = json.loads(as_host(live, f"/v2/{repository}/tags/list").body)["tags"]
    assert {"v1", "v2"} <= set(tags)
    assert {tag.rpartition(".")[2] for tag in tags if tag.startswith("sha256-")} == {"att", "sig"}


def test_artifacts_without_a_subject_are_served_where_the_policy_names_their_type(live: WholeRegistry) -> None:
    repository = "team/artifacts"
    named = push_artifact(live, repository, "named", "application/vnd.example.chart")
    other = push_artifact(live, repository, "other", "application/x-other")
    assert as_host(live, f"/v2/{repository}/manifests/named").status == 200
    assert as_host(live, f"/v2/{repository}/manifests/other").status == 403
    assert as_host(live, f"/v2/{repository}/blobs/{named}").status == 200
    assert as_host(live, f"/v2/{repository}/blobs/{other}").status == 403
    assert json.loads(as_host(live, f"/v2/{repository}/tags/list").body)["tags"] == ["named"]
    # Who is no host sees both.
    assert json.loads(live.request("GET", f"/v2/{repository}/tags/list").body)["tags"] == ["named", "other"]


def test_a_restart_keeps_everything(live: WholeRegistry) -> None:
    repository = "team/kept"
    built = image([BASE_FILES, {"kept": "yes"}])
    live.push(repository, built, "v1")
    live.approve(repository, built, "base", live.ring.alice, live.ring.bob)
    live.until(repository, "v1", "cleared")
    live.stop()
    live.start()
    assert as_host(live, f"/v2/{repository}/manifests/v1").body == built.manifest.raw
