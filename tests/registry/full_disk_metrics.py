"""Run by test_full_disk.py in a mount namespace of its own, in a folder of 32 MiB: a whole registry that counts."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection
from pathlib import Path

from ocispec.digest import Digest
from registry.places import Places
from tests.support.live import WholeRegistry, whole_registry
from tests.support.processes import free_port


def family(pid: int) -> set[int]:
    """A process and all below it, but for what the keeper forks and collects again."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {pid}.union(*(family(int(child)) for child in children))


def scrape(port: int) -> str:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    text = answer.read().decode()
    connection.close()
    return text


def fill(folder: Path) -> Path:
    """Leave no room at all."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (2**20, 4096, 1):
            with suppress(OSError):
                while file.write(bytes(size)):
                    pass
    return ballast


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def push(live: WholeRegistry, content: bytes) -> int:
    path = f"/v2/team/app/blobs/uploads/?digest={Digest.of(content)}"
    return live.request("POST", path, body=content).status


def main(folder: Path) -> None:
    """Fill the disk, count what was never counted before, make room again."""
    tempfile.tempdir = str(folder)
    port = free_port()
    with whole_registry(metrics={"listen": f"127.0.0.1:{port}"}) as live:
        assert live.process is not None
        kept = os.urandom(1000)
        assert push(live, kept) == 201
        before = family(live.process.pid)
        ballast = fill(folder)
        # Statuses, endpoints and processes that nobody has seen yet: each needs a page that was not written to before.
        for number in range(200):
            live.request("GET", f"/v2/team/app/{number}/tags/list", account=None)
            live.request("PUT", f"/v2/team/app/manifests/{number}", body=b"{}")
        assert push(live, os.urandom(100_000)) == 507
        assert live.request("GET", f"/v2/team/app/blobs/{Digest.of(kept)}").body == kept
        until(lambda: live.request("GET", "/readyz", account=None).status == 503)
        assert json.loads(live.request("GET", "/readyz", account="admin").body)["failed"].keys() >= {"disk"}
        until(lambda: 'status="507"' in scrape(port))
        ballast.unlink()
        assert push(live, os.urandom(100_000)) == 201
        assert before <= family(live.process.pid), "a process has died"
        counted = Places(live.settings).metrics.resolve()
        assert counted.is_dir()
    assert not counted.exists()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
