"""docker: what it pushes it pulls again, through a daemon of the test's own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registry import LiveRegistry
from tests.support.tools import need, need_root


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder with a short path: containerd's sockets lie in it, and their paths have 104 bytes at most."""
    with tempfile.TemporaryDirectory(prefix="pq-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.mark.root
def test_an_image_is_pushed_and_pulled_by_docker(live: LiveRegistry, short: Path) -> None:
    need_root()
    for tool in ("docker", "dockerd", "containerd"):
        need(tool)
    done = subprocess.run(
        [
            *(
                need("unshare"),
                "--mount",
                "--propagation",
                "private",
                "--pid",
                "--fork",
                "--mount-proc",
                "--kill-child",
            ),
            *(sys.executable, "-m", "tests.clients.with_docker", short, live.address, live.secrets["pusher"]),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pushed = json.loads(live.request("GET", "/v2/clients/docker/manifests/1").body)
    assert pushed["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
