"""buildah: from a pulled base to a pushed image, and pulled again."""

from __future__ import annotations

import json

import pytest

from tests.clients.conftest import Desk
from tests.support.images import image
from tests.support.registry import LiveRegistry
from tests.support.tools import need_root


@pytest.mark.root
def test_an_image_is_built_on_a_pulled_base_and_pushed(desk: Desk, live: LiveRegistry, name: str) -> None:
    need_root()
    base = image([{"etc/": b"", "etc/motd": "base\n"}])
    repository = name.partition("/")[2]
    live.push(repository, base, "base")
    storage = ("--root", desk.folder / "storage", "--runroot", desk.folder / "runroot", "--storage-driver", "vfs")
    buildah = ("buildah", *storage)
    (desk.folder / "app").write_text("the application")
    container = desk.run(*buildah, "from", "-q", "--tls-verify=false", f"{name}:base").strip()
    desk.run(*buildah, "copy", container, desk.folder / "app", "/srv/app")
    desk.run(*buildah, "config", "--entrypoint", '["/srv/app"]', container)
    desk.run(*buildah, "commit", "-q", container, f"{name}:built")
    desk.run(*buildah, "rm", container)
    desk.run(*buildah, "push", "-q", "--tls-verify=false", f"{name}:built")
    manifest = json.loads(live.request("GET", f"/v2/{repository}/manifests/built").body)
    config = json.loads(live.request("GET", f"/v2/{repository}/blobs/{manifest['config']['digest']}").body)
    assert config["rootfs"]["diff_ids"][0] == str(base.diff_ids[0])
    assert len(config["rootfs"]["diff_ids"]) == 2
    desk.run(*buildah, "rmi", "-a", "-f")
    again = desk.run(*buildah, "pull", "-q", "--tls-verify=false", f"{name}:built").strip()
    assert again == manifest["config"]["digest"].removeprefix("sha256:")
    desk.run(*buildah, "rmi", "-a", "-f")
