"""oras: artifacts and referrers, by the API and by the fallback tag, and copies with all that is attached."""

from __future__ import annotations

import json

import pytest

from tests.clients.conftest import Desk
from tests.support.images import image
from tests.support.registry import LiveRegistry

PLAIN = "--plain-http"


@pytest.fixture
def subject(live: LiveRegistry, name: str) -> str:
    """A pushed image."""
    live.push(name.partition("/")[2], image(), "v1")
    return f"{name}:v1"


@pytest.fixture
def sbom(desk: Desk) -> str:
    """A file to attach."""
    (desk.folder / "sbom.txt").write_text("components\n")
    return "sbom.txt:text/plain"


def types(desk: Desk, reference: str, *options: str) -> set[str]:
    """The artifact types of what is attached to an image."""
    found = json.loads(desk.run("oras", "discover", PLAIN, "--format", "json", *options, reference))
    return {item["artifactType"] for item in found.get("manifests") or found.get("referrers") or []}


def test_an_artifact_is_pushed_and_pulled(desk: Desk, name: str, sbom: str) -> None:
    desk.run("oras", "push", PLAIN, "--artifact-type", "application/x-test", f"{name}:art", sbom)
    desk.run("oras", "pull", PLAIN, "-o", "out", f"{name}:art")
    assert (desk.folder / "out/sbom.txt").read_text() == "components\n"


@pytest.mark.parametrize("way", ["v1.1-referrers-api", "v1.1-referrers-tag"])
def test_what_is_attached_is_discovered(desk: Desk, subject: str, sbom: str, way: str) -> None:
    for kind in ("application/x-one", "application/x-two"):
        desk.run("oras", "attach", PLAIN, "--distribution-spec", way, "--artifact-type", kind, subject, sbom)
    assert types(desk, subject, "--distribution-spec", way) == {"application/x-one", "application/x-two"}
    # What was attached by the fallback tag is found by the API too, which is what the specification asks for.
    assert types(desk, subject) == {"application/x-one", "application/x-two"}
    assert types(desk, subject, "--artifact-type", "application/x-one") == {"application/x-one"}


def test_an_image_is_copied_with_all_that_is_attached(desk: Desk, subject: str, name: str, sbom: str) -> None:
    desk.run("oras", "attach", PLAIN, "--artifact-type", "application/x-sbom", subject, sbom)
    desk.run("oras", "copy", "-r", "--from-plain-http", "--to-plain-http", subject, f"{name}/copy:v1")
    assert types(desk, f"{name}/copy:v1") == {"application/x-sbom"}
    desk.run("oras", "copy", "-r", "--from-plain-http", subject, "--to-oci-layout", "layout:v1")
    desk.run("oras", "copy", "-r", "--from-oci-layout", "layout:v1", "--to-plain-http", f"{name}/back:v1")
    assert types(desk, f"{name}/back:v1") == {"application/x-sbom"}


def test_lists_manifests_and_blobs(desk: Desk, subject: str, name: str, live: LiveRegistry) -> None:
    assert desk.run("oras", "repo", "tags", PLAIN, name).split() == ["v1"]
    assert name.partition("/")[2] in desk.run("oras", "repo", "ls", PLAIN, live.address).split()
    desk.run("oras", "tag", PLAIN, subject, "v2")
    assert desk.run("oras", "repo", "tags", PLAIN, name).split() == ["v1", "v2"]
    descriptor = json.loads(desk.run("oras", "manifest", "fetch", PLAIN, "--descriptor", subject))
    raw = desk.run("oras", "manifest", "fetch", PLAIN, f"{name}@{descriptor['digest']}")
    assert len(raw) == descriptor["size"]
    (desk.folder / "blob").write_text("a blob")
    desk.run("oras", "blob", "push", PLAIN, name, "blob")
    desk.run("oras", "manifest", "delete", PLAIN, "-f", f"{name}:v2")
    # oras deletes what the tag points to, by its digest.
    assert desk.try_run("oras", "manifest", "fetch", PLAIN, subject).returncode != 0
