"""Clients of a registry that takes a few requests a second: they are told to wait, and do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import make_desk
from tests.support.images import image
from tests.support.registry import LiveRegistry, web_registry


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[LiveRegistry]:
    """Two writes a second of an account, and four at once."""
    with web_registry(tmp_path / "registry", rates={"account_writes": 2, "burst": 2}) as running:
        yield running


def test_skopeo_waits_and_its_push_is_whole(busy: LiveRegistry, tmp_path: Path) -> None:
    desk = make_desk(tmp_path / "person", busy.address, "pusher", busy.secrets["pusher"])
    built = image([{f"layer-{number}": b"x" * 1000} for number in range(3)])
    source = built.write_layout(desk.folder / "in", "v1")
    name = f"{busy.address}/team/app"
    desk.run("skopeo", "copy", "--dest-tls-verify=false", f"oci:{source}:v1", f"docker://{name}:v1")
    busy.stop()
    log = (busy.folder / "web.log").read_text()
    assert " 429 " in log, "it was to be told to wait"
    busy.start()
    desk.run("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}:v1", f"dir:{desk.folder / 'out'}")
    assert (desk.folder / "out/manifest.json").read_bytes() == built.manifest.raw
