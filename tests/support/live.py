"""A whole registry - keeper, signer, judge, web - as `pratique serve` starts it, in a folder of its own.

with whole_registry(folder) as live:
    live.publish()                      # trust.json, policy and a first revocation list
    live.push("team/app", image, "1")
    live.approve("team/app", image, "application", live.ring.team)
    assert live.status("team/app", image.digest)["state"] == "cleared"
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import yaml

from ocispec.layer import LayerContent, read_layer
from policy.key_files import write_private
from policy.model import ImageFacts
from policy.private_key import PrivateKey
from registry import assemble
from registry.access import Role
from registry.settings import load
from scanner.facts import LayerFacts, LayerScanner
from tests.support import judging, trust
from tests.support.images import BuiltImage
from tests.support.processes import end, free_port
from tests.support.registry import Answer, LiveRegistry
from tests.support.trust import Keyring

READY = b"pratique registry"


def now() -> datetime:
    """The time, as statements are dated."""
    return datetime.now(UTC).replace(microsecond=0)


@dataclass(slots=True, kw_only=True)
class WholeRegistry(LiveRegistry):
    """A registry that runs with all its processes; `ring` holds everybody's keys, the registry's own among them."""

    ring: Keyring
    environment: dict[str, str] = field(default_factory=dict)
    token: str = ""

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        log = (self.folder / "serve.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "pratique", "serve", "--config", str(self.settings_file)],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, **self.environment},
        )
        log.close()
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(b"bootstrap token"):
                self.token = line.rpartition(b" ")[2].decode().strip()
            if line.startswith(READY):
                return
        self.process.stdout.close()
        ended, self.process = self.process.wait(), None
        raise AssertionError(f"the registry ended with {ended}:\n{self.log()}")

    def stop(self) -> None:
        """Stop it kindly; it must end well."""
        if self.process is not None:
            end(self.process, seconds=60)
            assert self.process.stdout is not None
            self.process.stdout.close()
            code, self.process = self.process.returncode, None
            assert code == 0, self.log()
            assert "Exception in thread" not in self.log(), self.log()

    def log(self) -> str:
        """What its processes said."""
        return (self.folder / "serve.log").read_text()[-8000:]

    def api(
        self, method: str, path: str, *, account: str | None = "officer", body: bytes | None = None
    ) -> tuple[int, object]:
        """One control request; the answer's status and JSON."""
        answer = self.request(method, path, account=account, body=body)
        return answer.status, _json(answer)

    def bootstrap(self) -> None:
        """Make the admin by the one-time token, and by the admin one account a role, each named as its role."""
        body = json.dumps({"token": self.token, "name": "admin"}).encode()
        self._take_secret(*self.api("POST", "/api/v1/bootstrap", account=None, body=body))
        for role in Role:
            if role not in {Role.REGISTRY, Role.ADMIN}:
                wanted = json.dumps({"name": str(role), "role": str(role)}).encode()
                self._take_secret(*self.api("POST", "/api/v1/accounts", account="admin", body=wanted))

    def _take_secret(self, status: int, made: object) -> None:
        assert status == 201, made
        assert isinstance(made, dict)
        self.secrets[made["name"]] = made["secret"]

    def publish(self, *, required: bool = True) -> None:
        """Hand in trust.json, the small policy and the first revocation list; wait until the list is served, dated."""
        self.post("trust", self.ring.envelope)
        self.post("statements", judging.published_policy(self.ring, now=now(), required=required))
        self.post("statements", judging.published_list(self.ring, now=now()))
        deadline = time.monotonic() + 30
        while _json(self.request("GET", "/api/v1/revocations", account="host")) == {"list": None, "date": None}:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def post(self, what: str, envelope: bytes, *, account: str = "officer") -> dict[str, object]:
        """Hand an envelope in; it must be taken."""
        status, answer = self.api("POST", f"/api/v1/{what}", account=account, body=envelope)
        assert status in {200, 201}, answer
        assert isinstance(answer, dict)
        return answer

    def facts(self, repository: str, image: BuiltImage) -> ImageFacts:
        """What identifies an image, as an approver works it out where the key is."""
        layers = [_read(layer.tar) for layer in image.layers]
        made, _ = assemble.assemble([content for content, _ in layers], [facts for _, facts in layers], {})
        found, _ = assemble.image_facts(
            made,
            registry=self.settings.name,
            repository=repository,
            manifest=image.manifest,
            config=image.config,
            first_seen=now(),
        )
        return found

    def approve(
        self, repository: str, image: BuiltImage, level: str, *keys: PrivateKey, account: str = "officer"
    ) -> None:
        """Approve a whole image for a level."""
        envelope = judging.approve(self.facts(repository, image), level, *keys, now=now())
        self.post("statements", envelope, account=account)

    def revoke(self, number: int, **entries: tuple[object, ...]) -> dict[str, object]:
        """Publish a revocation list."""
        return self.post("statements", judging.published_list(self.ring, number, now=now(), **entries))

    def status(self, repository: str, reference: object, *, account: str = "officer") -> dict[str, object]:
        """What is known of an image, once no judgement of it is due."""
        path = f"/api/v1/status/{repository}?reference={reference}&wait=20"
        status, answer = self.api("GET", path, account=account)
        assert status == 200, answer
        assert isinstance(answer, dict)
        return answer

    def until(self, repository: str, reference: object, state: str, *, seconds: float = 30) -> dict[str, object]:
        """Wait for an image to come to a state."""
        deadline = time.monotonic() + seconds
        while (found := self.status(repository, reference))["state"] != state:
            assert time.monotonic() < deadline, f"{found}\n{self.log()}"
            time.sleep(0.05)
        return found


@contextmanager
def whole_registry(
    *, environment: Mapping[str, str] | None = None, http: Mapping[str, object] | None = None, **settings: object
) -> Iterator[WholeRegistry]:
    """A running registry with one account a role, each named as its role; `http` is added to its settings `http`."""
    with prepared(environment=environment, http=http, **settings) as live:
        live.start()
        try:
            live.bootstrap()
            yield live
        finally:
            live.stop()


@contextmanager
def prepared(
    *, environment: Mapping[str, str] | None = None, http: Mapping[str, object] | None = None, **settings: object
) -> Iterator[WholeRegistry]:
    """A registry that does not run yet; its key was made beforehand, so trust.json can list it.

    Not in pytest's own folders: those are closed to the users that the processes become.
    """
    folder = Path(tempfile.mkdtemp(prefix="pratique-test-"))
    folder.chmod(0o755)
    address = f"127.0.0.1:{free_port()}"
    members = {
        "name": address,
        "data": str(folder / "data"),
        "http": {"listen": address, "threads": 8, **(http or {})},
        "judge": {"push_wait_ms": 5000},
        **settings,
    }
    path = folder / "registry.yaml"
    path.write_text(yaml.safe_dump(members))
    ring = trust.keyring(registry=address, levels=("base", "application"), now=now())
    signer = folder / "data" / "signer"
    signer.mkdir(mode=0o700, parents=True)
    write_private(signer / "key.pem", ring.registry)
    live = WholeRegistry(folder=folder, settings=load(path), ring=ring)
    live.environment.update(environment or {})
    try:
        yield live
    finally:
        shutil.rmtree(folder)


def _read(tar: bytes) -> tuple[LayerContent, LayerFacts]:
    scanner = LayerScanner()
    content = read_layer(io.BytesIO(tar), visitor=scanner, what="layer")
    return content, scanner.facts(content.diff_id)


def _json(answer: Answer) -> object:
    try:
        return json.loads(answer.body) if answer.body else None
    except ValueError:
        return answer.body
