"""A live registry, and clients that find nothing of the machine's own: home, login, storage and policy are theirs."""

from __future__ import annotations

import base64
import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.registry import LiveRegistry, web_registry
from tests.support.tools import need

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A person's folder, logged in to the registry as `account`."""

    folder: Path
    registry: str

    @property
    def authfile(self) -> Path:
        """The login, as docker keeps it."""
        return self.folder / "docker" / "config.json"

    @property
    def environment(self) -> dict[str, str]:
        """What the clients are told of the world."""
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DOCKER_CONFIG": str(self.authfile.parent),
            "REGISTRY_AUTH_FILE": str(self.authfile),
            "XDG_RUNTIME_DIR": str(self.folder / "run"),
            "TMPDIR": str(self.folder / "tmp"),
            "COSIGN_PASSWORD": "",
            "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        }

    def login(self, account: str, secret: str) -> None:
        """Log in as somebody."""
        encoded = base64.b64encode(f"{account}:{secret}".encode()).decode()
        self.authfile.write_text(json.dumps({"auths": {self.registry: {"auth": encoded}}}))

    def try_run(self, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a client, which may fail."""
        words = [str(word) for word in command]
        return subprocess.run(
            [need(words[0]), *words[1:]],
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def run(self, *command: object, **environment: str) -> str:
        """Run a client, which must not fail; returns what it printed."""
        done = self.try_run(*command, **environment)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout


def make_desk(folder: Path, registry: str, account: str, secret: str) -> Desk:
    """A desk with a login and a policy of containers/image that accepts everything."""
    for name in ("docker", "run", "tmp", ".config/containers"):
        (folder / name).mkdir(parents=True)
    (folder / ".config/containers/policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    desk = Desk(folder=folder, registry=registry)
    desk.login(account, secret)
    return desk


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A running registry (web processes only)."""
    with web_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
    log = (running.folder / "web.log").read_text()
    assert "Traceback" not in log, log


@pytest.fixture
def desk(live: LiveRegistry, tmp_path: Path) -> Desk:
    """A pusher's desk."""
    return make_desk(tmp_path, live.address, "pusher", live.secrets["pusher"])


@pytest.fixture
def name(live: LiveRegistry) -> str:
    """A reference without tag that nothing else uses."""
    return f"{live.address}/clients/app-{next(_numbers)}"
