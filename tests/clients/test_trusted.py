"""What other tools make of the registry's signatures: podman and skopeo under the exported policy, cosign offline."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.export import podman as exported_for_podman
from tests.clients.conftest import Desk, make_desk
from tests.support.images import BuiltImage, image
from tests.support.live import WholeRegistry, now, whole_registry
from tests.support.packages import os_release
from tests.support.tools import need, need_root

pytestmark = pytest.mark.root

REPOSITORY = "team/app"
BASE_FILES = {"etc/": b"", "bin/": b"", "bin/sh": b"#!", **os_release()}


@pytest.fixture(scope="module")
def whole() -> Iterator[WholeRegistry]:
    """A registry with all its processes."""
    need_root()
    with whole_registry() as running:
        running.publish()
        yield running


@pytest.fixture(scope="module")
def cleared(whole: WholeRegistry) -> BuiltImage:
    """An image that is cleared under the tag `cleared`."""
    base = image([BASE_FILES])
    whole.push(REPOSITORY, base, "cleared")
    whole.approve(REPOSITORY, base, "base", whole.ring.alice, whole.ring.bob)
    whole.until(REPOSITORY, "cleared", "cleared")
    return base


@pytest.fixture(scope="module")
def quarantined(whole: WholeRegistry) -> BuiltImage:
    """An image that is not cleared, under the tag `quarantined`."""
    built = image([{**BASE_FILES, "bin/other": b"#!"}])
    whole.push(REPOSITORY, built, "quarantined")
    return built


@pytest.fixture
def desk(whole: WholeRegistry, tmp_path: Path) -> Desk:
    """A desk whose policy believes this registry's signatures alone, logged in as a host."""
    made = make_desk(tmp_path, whole.address, "host", whole.secrets["host"])
    for file in exported_for_podman(whole.ring.trust, whole.settings.name, now()):
        path = tmp_path / ".config" / "containers" / file.name
        path.parent.mkdir(exist_ok=True)
        path.write_text(file.text)
    return made


@pytest.fixture
def podman(desk: Desk) -> tuple[object, ...]:
    """podman with a storage of its own, without mounts."""
    return (
        *("podman", "--root", desk.folder / "storage", "--runroot", desk.folder / "runroot"),
        *("--tmpdir", desk.folder / "podman", "--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"),
    )


def test_podman_takes_a_cleared_image_under_the_policy(
    desk: Desk, whole: WholeRegistry, cleared: BuiltImage, podman: tuple[object, ...]
) -> None:
    pulled = desk.run(*podman, "pull", "-q", "--tls-verify=false", f"{whole.address}/{REPOSITORY}:cleared")
    assert pulled.strip() == cleared.config.digest.hex


def test_podman_refuses_a_quarantined_image_for_its_missing_signature(
    desk: Desk, whole: WholeRegistry, quarantined: BuiltImage, podman: tuple[object, ...]
) -> None:
    reference = f"{whole.address}/{REPOSITORY}:quarantined"
    # A pusher may pull back what it pushed, so it is the policy alone that refuses here.
    desk.login("pusher", whole.secrets["pusher"])
    refused = desk.try_run(*podman, "pull", "-q", "--tls-verify=false", reference)
    assert refused.returncode != 0
    assert "signature" in refused.stderr
    (desk.folder / ".config/containers/policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    taken = desk.run(*podman, "pull", "-q", "--tls-verify=false", reference)
    assert taken.strip() == quarantined.config.digest.hex


def test_images_from_elsewhere_are_refused(desk: Desk, cleared: BuiltImage, podman: tuple[object, ...]) -> None:
    archive = cleared.write_docker_archive(desk.folder / "image.tar")
    loaded = desk.try_run(*podman, "load", "-q", "-i", archive)
    assert loaded.returncode != 0
    assert "rejected by policy" in loaded.stderr


def test_cosign_verifies_where_nothing_else_can_be_reached() -> None:
    need_root()
    for tool in ("cosign", "ip"):
        need(tool)
    script = 'ip link set lo up && exec "$0" -m tests.clients.offline'
    done = subprocess.run(
        [need("unshare"), "--net", "sh", "-c", script, sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
