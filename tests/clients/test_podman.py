"""podman: pull, tag, push in both formats, and push again what was pulled."""

from __future__ import annotations

import json

import pytest

from tests.clients.conftest import Desk
from tests.support.images import image, index
from tests.support.registry import LiveRegistry
from tests.support.tools import need_root

pytestmark = pytest.mark.root


@pytest.fixture
def podman(desk: Desk) -> tuple[object, ...]:
    """podman with a storage of its own, without mounts."""
    need_root()
    return (
        *("podman", "--root", desk.folder / "storage", "--runroot", desk.folder / "runroot"),
        *("--tmpdir", desk.folder / "podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
    )


def test_an_image_is_pulled_tagged_and_pushed(
    desk: Desk, live: LiveRegistry, name: str, podman: tuple[object, ...]
) -> None:
    built = image([{"etc/": b"", "etc/motd": "hello\n"}, {"srv/": b"", "srv/x": "1" * 50_000}], entrypoint=["/x"])
    repository = name.partition("/")[2]
    live.push(repository, built, "v1")
    pulled = desk.run(*podman, "pull", "-q", "--tls-verify=false", f"{name}:v1").strip()
    assert pulled == built.config.digest.hex
    for tag, form in (("oci", "oci"), ("docker", "v2s2")):
        desk.run(*podman, "push", "-q", "--tls-verify=false", "--format", form, f"{name}:v1", f"{name}:{tag}")
        manifest = json.loads(live.request("GET", f"/v2/{repository}/manifests/{tag}").body)
        assert ("docker" in manifest["mediaType"]) == (form == "v2s2")
        desk.run(*podman, "rmi", "-f", pulled)
        pulled = desk.run(*podman, "pull", "-q", "--tls-verify=false", f"{name}:{tag}").strip()
        desk.run(*podman, "tag", pulled, f"{name}:v1")
    config = json.loads(desk.run(*podman, "image", "inspect", f"{name}:docker"))[0]
    assert config["RootFS"]["Layers"] == [str(diff_id) for diff_id in built.diff_ids]


def test_the_child_for_this_platform_is_pulled_from_an_index(
    desk: Desk, live: LiveRegistry, name: str, podman: tuple[object, ...]
) -> None:
    built = index([image(platform="linux/s390x"), image([{"for": "amd64"}])])
    repository = name.partition("/")[2]
    for child in built.images:
        live.push(repository, child, child.digest)
    live.put_manifest(repository, "multi", built.index.raw, built.index.media_type)
    pulled = desk.run(*podman, "pull", "-q", "--arch", "amd64", "--tls-verify=false", f"{name}:multi").strip()
    assert pulled == built.images[1].config.digest.hex


def test_manifest_lists_and_search(desk: Desk, live: LiveRegistry, name: str, podman: tuple[object, ...]) -> None:
    repository = name.partition("/")[2]
    live.push(repository, image(), "one")
    live.push(repository, image(platform="linux/arm64"), "two")
    desk.run(*podman, "manifest", "create", "list")
    for tag in ("one", "two"):
        desk.run(*podman, "manifest", "add", "--tls-verify=false", "list", f"docker://{name}:{tag}")
    desk.run(*podman, "manifest", "push", "--all", "--tls-verify=false", "list", f"docker://{name}:both")
    listed = json.loads(live.request("GET", f"/v2/{repository}/manifests/both").body)
    assert {item["platform"]["architecture"] for item in listed["manifests"]} == {"amd64", "arm64"}
    tags = desk.run(*podman, "search", "--list-tags", "--tls-verify=false", "--format", "{{.Tag}}", name)
    assert tags.split() == ["both", "one", "two"]


def test_a_host_is_told_why_it_does_not_get_an_image(
    desk: Desk, live: LiveRegistry, name: str, podman: tuple[object, ...]
) -> None:
    live.push(name.partition("/")[2], image(), "v1")
    desk.login("host", live.secrets["host"])
    done = desk.try_run(*podman, "pull", "-q", "--tls-verify=false", f"{name}:v1")
    assert done.returncode != 0
    assert "not-judged" in done.stderr
