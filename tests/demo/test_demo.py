"""`make demo`, on files and on S3, with a base of one package instead of Debian's: each step checks itself."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from demo.images import Layout
from tests.chain.stage import with_parents
from tests.support.images import Content, Dir, File, Link, image
from tests.support.packages import Deb, dpkg_files, os_release
from tests.support.processes import free_port
from tests.support.tools import need, need_root

ROOT = Path(__file__).parents[2]
APPLETS = ("sh", "sleep", "sed", "cat", "id", "tr", "ls", "wc")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A base that has what the demo's program calls, and a file that one of its denied images replaces."""
    busybox = Path(need("busybox")).read_bytes()
    owned = {"bin/busybox": busybox, "usr/bin/env": b"#!/bin/sh\n"}
    deb = Deb(name="busybox-static", version="1:1.37.0-6", architecture="amd64", files=owned)
    files: dict[str, Content] = {**os_release(), **dpkg_files([deb])}
    files |= {path: File(content, mode=0o755) for path, content in owned.items()}
    files |= {f"bin/{name}": Link("busybox") for name in APPLETS}
    files |= {"etc/passwd": "root:x:0:0:root:/root:/bin/sh\n", "etc/group": "root:x:0:\n"}
    files |= {f"etc/{name}": "" for name in ("hosts", "hostname", "resolv.conf")}
    folders = dict.fromkeys(("dev", "proc", "sys", "run", "root", "srv", "srv/app"))
    built = image([with_parents({**{f"{name}/": Dir() for name in folders}, "tmp/": Dir(mode=0o1777), **files})])
    folder = tmp_path_factory.mktemp("demo")
    (folder / "layer.tar").write_bytes(built.layers[0].tar)
    Layout(folder / "layout").add_base("base", folder / "layer.tar")
    return f"oci:{folder / 'layout'}:base"


@pytest.mark.root
@pytest.mark.parametrize("storage", ["files", "s3"])
def test_the_whole_chain(base: str, storage: str) -> None:
    need_root()
    need("skopeo")
    port = free_port()
    environment = {**os.environ, "STORAGE": storage, "DEMO_BASE": base, "DEMO_PORT": str(port)}
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    assert "Left behind: no process" in done.stdout
    assert ("the bucket holds" if storage == "s3" else "the store's folder holds") in done.stdout
    assert done.stdout.count("\n== ") == 10


def test_storage_that_there_is_not_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=ROOT,
        env={**os.environ, "STORAGE": "tape"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == (2 if os.geteuid() == 0 else 1)
    assert "STORAGE=tape: expected files or s3" in done.stderr or os.geteuid() != 0
