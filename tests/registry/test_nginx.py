"""A registry behind nginx, by the site in deploy/: clients push and pull through it, and only it is believed."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.clients.conftest import Desk, make_desk
from tests.support.certificates import Authority, authority
from tests.support.images import image
from tests.support.nginx import Nginx, nginx
from tests.support.processes import free_port
from tests.support.registry import Answer, LiveRegistry, web_registry

MIB = 2**20
CLIENT = "127.0.0.2"
"""The address that requests come to nginx from; nginx asks from 127.0.0.1."""


@dataclass(frozen=True, slots=True)
class Site:
    """A registry, nginx in front of it, and the authority that signed its certificate."""

    live: LiveRegistry
    nginx: Nginx
    authority: Authority

    def connect(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            "127.0.0.1", self.nginx.port, timeout=30, context=self.authority.client(), source_address=(CLIENT, 0)
        )

    def request(
        self, method: str, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request through nginx, as the pusher."""
        connection = self.connect()
        try:
            connection.request(method, path, body=body, headers={**self.live.header("pusher"), **(headers or {})})
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(status=answer.status, headers=found, body=answer.read())
        finally:
            connection.close()

    def lines(self, part: str) -> list[str]:
        """The registry's log lines with `part` in them; they are written a moment after the answer."""
        found: list[str] = []

        def look() -> bool:
            found[:] = [line for line in (self.live.folder / "web.log").read_text().splitlines() if part in line]
            return bool(found)

        until(look)
        return found


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, port = tmp_path_factory.mktemp("site"), free_port()
    root = authority(folder / "tls")
    chain, key = root.issue("tls", "127.0.0.1", "registry.example")
    name = f"127.0.0.1:{port}"
    with web_registry(folder / "registry", name=name, http={"proxies": ["127.0.0.1"], "body_stall": 5}) as live:
        changes = {
            "server 127.0.0.1:5000;": f"server {live.address};",
            "listen 443 ssl;": f"listen {name} ssl;",
            "/etc/pratique/tls.pem": str(chain),
            "/etc/pratique/tls.key": str(key),
        }
        with nginx(folder / "nginx", port, changes) as running:
            yield Site(live, running, root)


def until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


@pytest.fixture
def desk(site: Site, tmp_path: Path) -> Desk:
    """A person with skopeo, who trusts the authority."""
    made = make_desk(tmp_path / "desk", site.live.settings.name, "pusher", site.live.secrets["pusher"])
    certificates = made.folder / ".config" / "containers" / "certs.d" / site.live.settings.name
    certificates.mkdir(parents=True)
    (certificates / "ca.crt").write_bytes(site.authority.file.read_bytes())
    return made


def test_skopeo_pushes_and_pulls_through_it(site: Site, desk: Desk) -> None:
    built = image([{"large": os.urandom(20 * MIB)}, {"small": b"yes"}])
    target = f"docker://{site.live.settings.name}/team/skopeo:1"
    site.live.push("team/source", built, "1")
    source = f"docker://{site.live.settings.name}/team/source:1"
    desk.run("skopeo", "copy", "--all", source, f"dir:{desk.folder}/pulled")
    desk.run("skopeo", "copy", "--all", f"dir:{desk.folder}/pulled", target)
    desk.run("skopeo", "copy", "--all", target, f"dir:{desk.folder}/again")
    for digest, content in built.blobs.items():
        assert (desk.folder / "again" / digest.hex).read_bytes() == content
    assert (desk.folder / "again" / "manifest.json").read_bytes() == built.manifest.raw
    tags = json.loads(desk.run("skopeo", "list-tags", f"docker://{site.live.settings.name}/team/skopeo"))
    assert tags["Tags"] == ["1"]
    assert not site.nginx.buffered()


def test_a_body_goes_through_while_it_comes(site: Site) -> None:
    session = site.request("POST", "/v2/team/app/blobs/uploads/").headers["location"]
    uploads = site.live.settings.store_folder / "uploads"
    raw = socket.create_connection(("127.0.0.1", site.nginx.port), timeout=30)
    with site.authority.client().wrap_socket(raw, server_hostname="127.0.0.1") as sender:
        authorization = site.live.header("pusher")["Authorization"]
        head = f"PATCH {session} HTTP/1.1\r\nHost: x\r\nContent-Length: {4 * MIB}\r\n"
        sender.sendall(f"{head}Authorization: {authorization}\r\n\r\n".encode() + bytes(2 * MIB))
        until(lambda: sum(path.stat().st_size for path in uploads.rglob("*/data")) >= MIB)
        assert not site.nginx.buffered()
        sender.sendall(bytes(2 * MIB))
        assert sender.recv(4096).startswith(b"HTTP/1.1 202")
    digest = "sha256:" + hashlib.sha256(bytes(4 * MIB)).hexdigest()
    assert site.request("PUT", f"{session}?digest={digest}").status == 201


def test_a_large_body_and_one_of_unknown_length(site: Site) -> None:
    content = os.urandom(1024) * 1024 * 48
    digest = "sha256:" + hashlib.sha256(content).hexdigest()
    assert site.request("POST", f"/v2/team/app/blobs/uploads/?digest={digest}", body=content).status == 201
    chunked = content[: 8 * MIB]
    digest = "sha256:" + hashlib.sha256(chunked).hexdigest()
    session = site.request("POST", "/v2/team/app/blobs/uploads/").headers["location"]
    connection = site.connect()
    pieces = (chunked[position : position + MIB] for position in range(0, len(chunked), MIB))
    connection.request("PUT", f"{session}?digest={digest}", body=pieces, headers=site.live.header("pusher"))
    assert connection.getresponse().status == 201
    connection.close()


def test_a_slow_reader_fills_no_file_of_nginx(site: Site) -> None:
    content = os.urandom(MIB) * 32
    digest = site.live.push_blob("team/app", content)
    connection = site.connect()
    connection.request("GET", f"/v2/team/app/blobs/{digest}", headers=site.live.header("pusher"))
    answer = connection.getresponse()
    found = hashlib.sha256(answer.read(MIB))
    time.sleep(0.3)
    assert not site.nginx.buffered()
    while piece := answer.read(MIB):
        found.update(piece)
    assert found.hexdigest() == digest.hex
    connection.close()


def test_addresses_come_from_the_settings_whatever_a_client_says(site: Site) -> None:
    hostile = {
        "Host": "evil.example",
        "X-Forwarded-Host": "evil.example",
        "X-Forwarded-Proto": "http",
        "Forwarded": "host=evil.example;proto=http",
    }
    answer = site.request("POST", "/v2/team/app/blobs/uploads/", headers=hostile)
    assert answer.status == 202
    assert answer.headers["location"].startswith("/v2/team/app/blobs/uploads/")
    connection = site.connect()
    connection.request("GET", "/v2/", headers=hostile)
    refused = connection.getresponse()
    assert refused.status == 401
    challenge = refused.getheader("WWW-Authenticate", "")
    assert f'realm="https://{site.live.settings.name}/token"' in challenge
    assert "evil" not in str(refused.getheaders())
    connection.close()


def test_who_asks_is_who_asked_nginx(site: Site) -> None:
    spoofed = {
        "X-Forwarded-For": "203.0.113.9, 10.0.0.1",
        "Forwarded": "for=203.0.113.9",
        "X-Request-Id": "of-the-client",
    }
    answer = site.request("GET", "/v2/team/spoofed/tags/list", headers=spoofed)
    (line,) = site.lines("/v2/team/spoofed/tags/list")
    assert f"source={CLIENT} " in line
    request = answer.headers["x-request-id"]
    assert f"request={request}" in line
    assert request in (site.nginx.folder / "access.log").read_text()
    # Past nginx, who is no proxy is believed nothing.
    raw = http.client.HTTPConnection("127.0.0.1", site.live.port, timeout=30, source_address=("127.0.0.3", 0))
    headers = {**site.live.header("pusher"), "X-Forwarded-For": "203.0.113.9", "X-Request-Id": "of-the-client"}
    raw.request("GET", "/v2/team/direct/tags/list", headers=headers)
    assert raw.getresponse().read() is not None
    raw.close()
    (line,) = site.lines("/v2/team/direct/tags/list")
    assert "source=127.0.0.3 " in line
    assert "of-the-client" not in line


def test_a_refusal_reaches_who_still_sends(site: Site) -> None:
    answer = site.request("POST", "/v2/team/app/blobs/uploads/?digest=sha256:x", body=bytes(4 * MIB))
    assert answer.status == 400
    assert json.loads(answer.body)["errors"][0]["code"] == "DIGEST_INVALID"


def test_nothing_older_than_tls_1_2(site: Site) -> None:
    old = site.authority.client()
    old.set_ciphers("DEFAULT:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="deprecated"):
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", site.nginx.port), timeout=30) as raw,
        pytest.raises(ssl.SSLError),
    ):
        old.wrap_socket(raw, server_hostname="127.0.0.1")
