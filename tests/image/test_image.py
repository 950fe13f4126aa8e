"""The image of deploy/Containerfile, built by buildah on Debian and run by podman: it judges an image, in both ways.

Minutes, and packages from Debian's mirror and the Python index: `make test-image`, not part of `make test`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml

from policy.key_files import write_private
from registry.settings import parse
from tests.support import trust
from tests.support.debian import debian_layer
from tests.support.images import image
from tests.support.live import WholeRegistry, now
from tests.support.processes import end, free_port
from tests.support.tools import need, need_root

pytestmark = pytest.mark.image

ROOT: Final = Path(__file__).parents[2]
TAG: Final = "localhost/pratique-registry:test"
BASE: Final = "localhost/pratique-base:test"
PYTHON: Final = "3.13"
"""Debian 13's."""

UID, GID = 60101, 60100


@dataclass(frozen=True, slots=True)
class Engine:
    """buildah and podman on a store of their own."""

    folder: Path

    def words(self, tool: str) -> list[str]:
        stored = ["--root", str(self.folder / "root"), "--runroot", str(self.folder / "run"), "--storage-driver", "vfs"]
        runtime = ["--runtime", need("runc")] if tool == "podman" else []
        return [need(tool), *runtime, *stored]

    def run(self, tool: str, *words: object, seconds: float = 900) -> str:
        done = subprocess.run(
            [*self.words(tool), *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
            env={**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"},
        )
        assert done.returncode == 0, f"{words}\n{done.stdout[-6000:]}"
        return done.stdout


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    need_root()
    with tempfile.TemporaryDirectory(prefix="pratique-image-", dir="/var/tmp") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = Engine(folder)
        wheels = folder / "wheels"
        wanted = ["--python-version", PYTHON, "--only-binary=:all:", "--dest", str(wheels)]
        lock = ["--no-deps", "--require-hashes", "--requirement", str(ROOT / "requirements.lock")]
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", *lock, *wanted], check=True, timeout=600)
        base = made.run("buildah", "from", "scratch").strip()
        made.run("buildah", "add", "--quiet", base, debian_layer(), "/")
        made.run(
            "buildah", "config", "--env", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", base
        )
        made.run("buildah", "commit", "--quiet", "--rm", base, BASE)
        made.run(
            *("buildah", "build", "--isolation", "chroot", "--network", "host", "--ulimit", "nofile=1024:1024"),
            *("--ulimit", "nproc=4096:4096", "--file", ROOT / "deploy" / "Containerfile", "--tag", TAG),
            *("--build-arg", f"BASE={BASE}", "--build-arg", "PIP_NO_INDEX=1"),
            *("--build-arg", "PIP_FIND_LINKS=/wheels", "--volume", f"{wheels}:/wheels:ro", ROOT),
        )
        yield made


@contextmanager
def running(engine: Engine, user: tuple[int, int], *options: str) -> Iterator[tuple[WholeRegistry, str]]:
    """The image as a container with a read-only root; its settings and data are folders of ours."""
    port = free_port()
    name, folder = f"127.0.0.1:{port}", Path(tempfile.mkdtemp(dir=engine.folder))
    folder.chmod(0o755)
    settings = {"name": name, "data": "/var/lib/pratique-registry", "http": {"listen": name}}
    (folder / "etc").mkdir()
    (folder / "etc" / "registry.yaml").write_text(yaml.safe_dump(settings))
    ring = trust.keyring(registry=name, levels=("base", "application"), now=now())
    signer = folder / "data" / "signer"
    signer.mkdir(mode=0o700, parents=True)
    write_private(signer / "key.pem", ring.registry)
    for path in (folder / "data", signer, signer / "key.pem"):
        os.chown(path, *user)
    container = f"pratique-{port}"
    volumes = ("--volume", f"{folder}/etc:/etc/pratique:ro", "--volume", f"{folder}/data:/var/lib/pratique-registry")
    words = ("run", "--rm", "--name", container, "--network", "host", "--read-only", "--tmpfs", "/tmp", *options)
    live = WholeRegistry(folder=folder, settings=parse(yaml.safe_dump(settings).encode()), ring=ring)
    log = folder / "serve.log"
    with log.open("wb") as output:
        live.process = subprocess.Popen([*engine.words("podman"), *words, *volumes, TAG], stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 120
        while "ready at" not in (said := log.read_text()):
            assert live.process.poll() is None, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)
        live.token = next(line.rpartition(" ")[2] for line in said.splitlines() if line.startswith("bootstrap token"))
        live.bootstrap()
        live.publish()
        yield live, container
        engine.run("podman", "stop", "--time", "90", container)
        assert live.process.wait(60) == 0
    finally:
        end(live.process, seconds=60)


def judges(live: WholeRegistry) -> None:
    built = image([{"bin/": b"", "bin/sh": b"#!"}])
    live.push("team/base", built, "1")
    live.approve("team/base", built, "base", live.ring.alice, live.ring.bob)
    live.until("team/base", "1", "cleared")
    assert live.request("GET", "/readyz", account=None).status == 200


def test_as_it_is_without_root(engine: Engine) -> None:
    with running(engine, (UID, GID), "--cap-drop", "ALL", "--security-opt", "no-new-privileges") as (live, container):
        judges(live)
        users = engine.run("podman", "top", container, "user").split()[1:]
        assert set(users) == {str(UID)}


def test_as_root_each_process_has_a_user_of_its_own(engine: Engine) -> None:
    options = ("--user", "0:0", "--cap-add", "SYS_ADMIN", "--security-opt", "no-new-privileges")
    with running(engine, (0, 0), *options) as (live, container):
        judges(live)
        users = set(engine.run("podman", "top", container, "user").split()[1:])
        assert {"root", "60101", "60102", "60103"} <= users


def test_nothing_is_left_that_only_the_build_needs(engine: Engine) -> None:
    script = "ls /opt/pratique/bin /opt/pratique/lib/python3*/site-packages; dpkg-query -W -f '${Package}\\n'"
    words = ("run", "--rm", "--network", "none", "--entrypoint", "/bin/sh", TAG, "-c", script)
    found = engine.run("podman", *words).split()
    assert "pratique" in found
    assert not {"pip", "setuptools", "python3-venv", "gcc"} & set(found)
