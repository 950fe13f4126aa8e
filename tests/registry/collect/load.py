"""Clients that push, mount, move and delete in a running registry, and keep what they were promised.

Each client has repositories of its own, and all of them push blobs of one small pool: the same bytes are wanted in one
repository while another one lets go of them. A client does what docker does: it asks for a blob, mounts it from where
it saw it, or sends it, then pushes the manifest; what is refused with 404 or 400 meanwhile it sends again.
"""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException

from ocispec.descriptor import MediaType
from ocispec.digest import Digest

TRIES = 20
PATIENCE = 180.0
POOL = [b"pool %d " % number * 40 for number in range(24)]
MANIFEST = str(MediaType.OCI_MANIFEST)


def manifest_of(blobs: Sequence[bytes]) -> bytes:
    """A manifest of the first blob as config and the others as layers."""
    config, *layers = [
        {"mediaType": "application/vnd.test", "digest": str(Digest.of(blob)), "size": len(blob)} for blob in blobs
    ]
    members = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers}
    return json.dumps(members).encode()


@dataclass(slots=True, kw_only=True)
class Client:
    """One client; `ports` are those of the registries that it asks in turn. `promised` is by repository and tag."""

    name: str
    ports: Sequence[int]
    secret: str
    seed: int
    promised: dict[tuple[str, str], tuple[bytes, tuple[bytes, ...]]] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    done: int = 0

    def run(self, until: Callable[[], bool]) -> None:
        """Do one thing after another until `until` says so; then look at everything that is promised."""
        chance = random.Random(self.seed)
        connections = {port: HTTPConnection("127.0.0.1", port, timeout=60) for port in self.ports}
        try:
            while not until():
                self.act(chance, connections[chance.choice(self.ports)])
                self.done += 1
            for port in self.ports:
                self.check(connections[port])
        except (OSError, HTTPException) as error:
            self.faults.append(f"{self.name}: {type(error).__name__}: {error}")
        finally:
            for connection in connections.values():
                connection.close()

    def act(self, chance: random.Random, connection: HTTPConnection) -> None:
        """One thing."""
        repository = f"{self.name}/{chance.randrange(3)}"
        tag = f"t{chance.randrange(3)}"
        what = chance.random()
        if what < 0.55:
            self.push(chance, connection, repository, tag)
        elif what < 0.7:
            self.delete(connection, repository, tag)
        elif what < 0.8:
            self.delete_manifest(connection, repository, tag)
        elif what < 0.9:
            self.pull(connection, repository, tag)
        else:
            blob = chance.choice(POOL) + b"%d" % chance.randrange(1000)  # of no manifest, ever
            self.send(chance, connection, repository, blob)

    def push(self, chance: random.Random, connection: HTTPConnection, repository: str, tag: str) -> None:
        """Push a manifest of a few blobs, which it may have to begin anew."""
        blobs = tuple(chance.sample(POOL, 3))
        raw = manifest_of(blobs)
        self.promised.pop((repository, tag), None)
        for _ in range(TRIES):
            for blob in blobs:
                self.bring(chance, connection, repository, blob)
            status, _ = self.ask(connection, "PUT", f"/v2/{repository}/manifests/{tag}", raw, MANIFEST)
            if status == 201:
                self.promised[repository, tag] = (raw, blobs)
                return
        self.faults.append(f"{repository}:{tag}: refused {TRIES} times")

    def bring(self, chance: random.Random, connection: HTTPConnection, repository: str, blob: bytes) -> None:
        """Have a blob in a repository: it is there, or mounted, or sent."""
        digest = Digest.of(blob)
        if self.ask(connection, "HEAD", f"/v2/{repository}/blobs/{digest}")[0] == 200:
            return
        source = f"{self.name}/{chance.randrange(3)}"
        path = f"/v2/{repository}/blobs/uploads/?mount={digest}&from={source}"
        status, location = self.ask(connection, "POST", path)
        if status == 202:
            self.finish(connection, location, blob)

    def send(self, chance: random.Random, connection: HTTPConnection, repository: str, blob: bytes) -> None:
        """Send a blob, in one of two ways."""
        if chance.random() < 0.5:
            path = f"/v2/{repository}/blobs/uploads/?digest={Digest.of(blob)}"
            self.ask(connection, "POST", path, blob)
        else:
            status, location = self.ask(connection, "POST", f"/v2/{repository}/blobs/uploads/")
            if status == 202:
                self.finish(connection, location, blob)

    def finish(self, connection: HTTPConnection, location: str, blob: bytes) -> None:
        """PATCH and PUT."""
        status, after = self.ask(connection, "PATCH", location, blob)
        if status == 202:
            self.ask(connection, "PUT", f"{after}?digest={Digest.of(blob)}")

    def delete(self, connection: HTTPConnection, repository: str, tag: str) -> None:
        """Delete a tag."""
        self.promised.pop((repository, tag), None)
        self.ask(connection, "DELETE", f"/v2/{repository}/manifests/{tag}")

    def delete_manifest(self, connection: HTTPConnection, repository: str, tag: str) -> None:
        """Delete what a tag points to, with all its tags."""
        if (repository, tag) not in self.promised:
            return
        raw, _ = self.promised[repository, tag]
        for key in [key for key, value in self.promised.items() if key[0] == repository and value[0] == raw]:
            del self.promised[key]
        self.ask(connection, "DELETE", f"/v2/{repository}/manifests/{Digest.of(raw)}")

    def pull(self, connection: HTTPConnection, repository: str, tag: str) -> None:
        """Pull what is promised, and compare."""
        if (repository, tag) not in self.promised:
            return
        raw, blobs = self.promised[repository, tag]
        status, content = self.get(connection, f"/v2/{repository}/manifests/{tag}")
        if (status, content) != (200, raw):
            self.faults.append(f"{repository}:{tag}: acknowledged, and answered {status}")
        for blob in blobs:
            status, content = self.get(connection, f"/v2/{repository}/blobs/{Digest.of(blob)}")
            if (status, content) != (200, blob):
                self.faults.append(f"{repository}:{tag}: blob {Digest.of(blob)} acknowledged, and answered {status}")

    def check(self, connection: HTTPConnection) -> None:
        """Pull all that is promised."""
        for repository, tag in list(self.promised):
            self.pull(connection, repository, tag)

    def ask(
        self, connection: HTTPConnection, method: str, path: str, body: bytes = b"", kind: str = "application/x"
    ) -> tuple[int, str]:
        """One request: status and location."""
        status, location, _ = self._request(connection, method, path, body, kind)
        return status, location

    def get(self, connection: HTTPConnection, path: str) -> tuple[int, bytes]:
        """One GET: status and body."""
        status, _, content = self._request(connection, "GET", path, b"", "")
        return status, content

    def _request(
        self, connection: HTTPConnection, method: str, path: str, body: bytes, kind: str
    ) -> tuple[int, str, bytes]:
        encoded = base64.b64encode(f"pusher:{self.secret}".encode()).decode()
        headers = {"Authorization": f"Basic {encoded}"} | ({"Content-Type": kind} if kind else {})
        connection.request(method, path, body=body or None, headers=headers)
        answer = connection.getresponse()
        content = answer.read()
        self.statuses[answer.status] = self.statuses.get(answer.status, 0) + 1
        if answer.status >= 500 or answer.status == 429:
            self.faults.append(f"{method} {path}: {answer.status} {content[:300].decode(errors='replace')}")
        return answer.status, answer.headers.get("Location") or "", content


def run_clients(
    clients: Sequence[Client], *, seconds: float, meanwhile: Callable[[], None], enough: Callable[[], bool]
) -> None:
    """Have all clients at work, and `meanwhile` called again and again, for some seconds and until it is `enough`."""
    over = threading.Event()
    threads = [threading.Thread(target=each.run, args=(over.is_set,)) for each in clients]
    for thread in threads:
        thread.start()
    began = time.monotonic()
    try:
        while time.monotonic() < began + seconds or not enough():
            assert time.monotonic() < began + PATIENCE, "it is never enough"
            meanwhile()
    finally:
        over.set()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads)
