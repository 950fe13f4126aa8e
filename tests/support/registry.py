"""A real registry on a live loopback port, in a folder of its own.

`web_registry` is the web processes alone: nothing is scanned or judged, everything stays quarantined.
"""

from __future__ import annotations

import base64
import os
import ssl
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import yaml
from sqlalchemy import update

from ocispec.digest import Digest
from policy.model import State
from registry.access import Grant, Role
from registry.authenticate import hash_secret, new_secret
from registry.catalogue.accounts import Account, add_account
from registry.catalogue.database import Catalogue
from registry.catalogue.schema import images, tags
from registry.prepare import prepare
from registry.settings import Settings, load
from tests.support.images import BuiltImage
from tests.support.processes import end, free_port, wait_for_port, wait_until_closed


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer; header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True, kw_only=True)
class LiveRegistry:
    """A registry that runs; `secrets` by account name, `tls` whom the tests trust where it serves TLS."""

    folder: Path
    settings: Settings
    secrets: dict[str, str] = field(default_factory=dict)
    tls: ssl.SSLContext | None = None
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Host and port, which are its name too."""
        return self.settings.http.listen

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.address.rpartition(":")[2])

    @property
    def settings_file(self) -> Path:
        """The file that it was started with."""
        return self.folder / "registry.yaml"

    def catalogue(self) -> Catalogue:
        """A connection of the test's own to the catalogue."""
        return Catalogue(self.settings.catalogue_url, connections=2)

    def account(self, name: str, role: Role, *grants: str) -> str:
        """Make an account, for all repositories if no grant (`shop/*`, `shop/*:pull`) is named; returns its secret."""
        secret = new_secret()
        catalogue = self.catalogue()
        with catalogue.write() as conn:
            account = Account(
                name=name,
                role=role,
                grants=tuple(map(Grant.parse, grants or ("*",))),
                secret=hash_secret(secret),
                created=datetime.now(UTC),
                created_by="test",
            )
            add_account(conn, account)
        catalogue.close()
        self.secrets[name] = secret
        return secret

    def start(self) -> None:
        """Start the web processes, and wait until they listen."""
        log = self.folder / "web.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "registry.web", str(self.settings_file)],
                stdout=output,
                stderr=output,
                env={**os.environ, "PYTHONWARNINGS": "default"},
            )
        wait_for_port(self.port, self.process, log)

    def stop(self) -> None:
        """Stop them, kindly."""
        if self.process is not None:
            end(self.process, seconds=25)
            self.process = None

    def close(self) -> None:
        """Stop them, if they run: for `contextlib.closing`."""
        self.stop()

    def kill(self) -> None:
        """Kill them: SIGKILL to the parent, with which its workers end."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None
        wait_until_closed(self.port)

    def header(self, account: str) -> dict[str, str]:
        """The Authorization header of an account."""
        encoded = base64.b64encode(f"{account}:{self.secrets[account]}".encode()).decode()
        return {"Authorization": f"Basic {encoded}"}

    def request(
        self, method: str, path: str, *, account: str | None = "pusher", body: bytes | None = None, **headers: str
    ) -> Answer:
        """One request on a connection of its own; `headers` with `_` for `-`."""
        connection = (
            HTTPConnection("127.0.0.1", self.port, timeout=60)
            if self.tls is None
            else HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.tls)
        )
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if account is not None:
            named |= self.header(account)
        try:
            connection.request(method, path, body=body, headers=named)
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(status=answer.status, headers=found, body=answer.read())
        finally:
            connection.close()

    def push_blob(self, repository: str, content: bytes, *, account: str = "pusher") -> Digest:
        """Push a blob in one request."""
        digest = Digest.of(content)
        path = f"/v2/{repository}/blobs/uploads/?digest={digest}"
        answer = self.request("POST", path, account=account, body=content)
        assert answer.status == 201, answer
        return digest

    def put_manifest(
        self, repository: str, reference: object, raw: bytes, media_type: str, *, account: str = "pusher"
    ) -> Answer:
        """Push a manifest."""
        path = f"/v2/{repository}/manifests/{reference}"
        return self.request("PUT", path, account=account, body=raw, Content_Type=media_type)

    def push(self, repository: str, image: BuiltImage, reference: object = "latest") -> Answer:
        """Push an image with its blobs."""
        for content in image.blobs.values():
            self.push_blob(repository, content)
        answer = self.put_manifest(repository, reference, image.manifest.raw, image.manifest.media_type)
        assert answer.status == 201, answer
        return answer

    def judge(self, repository: str, digest: Digest, state: State, *, serve: str | None = None) -> None:
        """Write a state (and a tag's served value) into the catalogue, as the judge would."""
        catalogue = self.catalogue()
        with catalogue.write() as conn:
            where = (images.c.repository == repository, images.c.digest == digest)
            changed = conn.execute(
                update(images).where(*where).values(state=str(state), reason="of-the-test", message="says the test")
            )
            assert changed.rowcount == 1
            if serve is not None:
                conn.execute(
                    update(tags).where(tags.c.repository == repository, tags.c.tag == serve).values(served=digest)
                )
        catalogue.close()


@contextmanager
def web_registry(
    folder: Path, *, http: Mapping[str, object] | None = None, **settings: object
) -> Iterator[LiveRegistry]:
    """A running registry without judge and signer, with one account a role, each named as its role."""
    live = make_registry(folder, http=http, **settings)
    live.start()
    try:
        yield live
    finally:
        live.stop()


def make_registry(folder: Path, *, http: Mapping[str, object] | None = None, **settings: object) -> LiveRegistry:
    """A prepared registry that does not run yet."""
    folder.mkdir(parents=True, exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    members = {
        "name": address,
        "data": str(folder / "data"),
        "http": {"listen": address, "threads": 16, **(http or {})},
        "judge": {"push_wait_ms": 0},
        "users": {"web": str(os.geteuid())},
        **settings,
    }
    path = folder / "registry.yaml"
    path.write_text(yaml.safe_dump(members))
    live = LiveRegistry(folder=folder, settings=load(path))
    prepare(live.settings, now=datetime.now(UTC))
    for role in Role:
        if role is not Role.REGISTRY:
            live.account(str(role), role)
    return live
