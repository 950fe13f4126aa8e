"""SIGHUP on a registry that serves TLS: a new certificate, and nothing that connects or is under way is lost."""

from __future__ import annotations

import hashlib
import http.client
import os
import signal
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from registry.access import Role
from tests.clients.conftest import make_desk
from tests.registry.test_graceful import Upload, connect, process, until
from tests.support.certificates import Authority, authority
from tests.support.images import image
from tests.support.live import WholeRegistry, prepared
from tests.support.processes import free_port

TOKEN = "of-the-tests"


@dataclass
class Site:
    """A registry with TLS, and who signs its certificates."""

    live: WholeRegistry
    authority: Authority
    metrics: int

    @property
    def tls(self) -> ssl.SSLContext:
        return self.authority.client()

    def names(self, port: int = 0) -> set[str]:
        """Whom the certificate is for that is shown at a port now."""
        with (
            socket.create_connection(("127.0.0.1", port or self.live.port), timeout=30) as raw,
            self.tls.wrap_socket(raw, server_hostname="127.0.0.1") as shown,
        ):
            found = shown.getpeercert(binary_form=True)
            assert found is not None
            names = x509.load_der_x509_certificate(found).extensions.get_extension_for_class(
                x509.SubjectAlternativeName
            )
            return set(names.value.get_values_for_type(x509.DNSName))

    def install(self, name: str) -> None:
        """Put a certificate for another name in the place of the one that is there, as its renewal would."""
        chain, key = self.authority.issue(name, "127.0.0.1", name)
        assert self.live.settings.http.certificate is not None
        assert self.live.settings.http.key is not None
        key.replace(self.live.settings.http.key)
        chain.replace(self.live.settings.http.certificate)

    def log(self) -> str:
        return (self.live.folder / "serve.log").read_text()

    def reload(self) -> None:
        process(self.live).send_signal(signal.SIGHUP)

    def get(self, path: str, **headers: str) -> int:
        connection = connect(self.live, self.tls)
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()

    def change(self, **members: object) -> None:
        known = yaml.safe_load(self.live.settings_file.read_text())
        self.live.settings_file.write_text(yaml.safe_dump({**known, **members}))


@dataclass
class Visitors:
    """Connect again and again, and keep what went wrong."""

    site: Site
    failures: list[str] = field(default_factory=list)
    visits: int = 0
    over: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Visitors:
        self.threads = [threading.Thread(target=self._run) for _ in range(2)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join(60)

    def _run(self) -> None:
        while not self.over.wait(0.01):
            try:
                if (status := self.site.get("/v2/")) != 401:
                    self.failures.append(str(status))
            except OSError as error:
                self.failures.append(repr(error))
            self.visits += 1


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = authority(tmp_path_factory.mktemp("tls"))
    chain, key = root.issue("first", "127.0.0.1", "first")
    port = free_port()
    # Beyond loopback as the settings have it, so that metrics are served by TLS too; the tests stay on loopback.
    metrics = {"listen": f"0.0.0.0:{port}", "token": TOKEN}
    with prepared(http={"certificate": str(chain), "key": str(key)}, metrics=metrics) as live:
        live.start()
        live.account("pusher", Role.PUSHER)
        try:
            yield Site(live, root, port)
        finally:
            live.stop()


def test_skopeo_pushes_and_pulls_over_tls_of_the_registrys_own(site: Site, tmp_path: Path) -> None:
    name, built = site.live.settings.name, image([{"large": os.urandom(2**20)}])
    desk = make_desk(tmp_path / "desk", name, "pusher", site.live.secrets["pusher"])
    trusted = desk.folder / ".config" / "containers" / "certs.d" / name
    trusted.mkdir(parents=True)
    (trusted / "ca.crt").write_bytes(site.authority.file.read_bytes())
    pushed = desk.folder / "pushed"
    pushed.mkdir()
    (pushed / "version").write_text("Directory Transport Version: 1.1\n")
    (pushed / "manifest.json").write_bytes(built.manifest.raw)
    for digest, content in built.blobs.items():
        (pushed / digest.hex).write_bytes(content)
    desk.run("skopeo", "copy", f"dir:{pushed}", f"docker://{name}/team/tls:1")
    desk.run("skopeo", "copy", f"docker://{name}/team/tls:1", f"dir:{desk.folder}/pulled")
    for digest, content in built.blobs.items():
        assert (desk.folder / "pulled" / digest.hex).read_bytes() == content


def test_a_renewed_certificate_is_shown_and_no_connection_is_lost(site: Site) -> None:
    assert site.names() == {"first"}
    upload = Upload(site.live, tls=site.tls, pause=0.1).begin()
    kept = connect(site.live, site.tls)
    kept.request("GET", "/v2/")
    kept.getresponse().read()
    with Visitors(site) as visitors:
        site.install("second")
        site.reload()
        until(lambda: site.names() == {"second"})
        until(lambda: _shown(site, site.metrics) == {"second"})
        # By the old certificate's process, on the connection that was there.
        assert upload.end() == 201, upload.error
    assert visitors.failures == []
    assert visitors.visits > 10
    kept.close()
    digest = hashlib.sha256(upload.content).hexdigest()
    assert site.get(f"/v2/team/app/blobs/sha256:{digest}", **site.live.header("pusher")) == 200
    until(lambda: "reloaded: new web processes serve" in site.log())


def test_who_had_connected_and_said_nothing_yet_is_heard(site: Site) -> None:
    reloads = site.log().count("reloaded: new")
    with ExitStack() as stack:
        made = [stack.enter_context(closing(connect(site.live, site.tls))) for _ in range(8)]
        for connection in made:
            connection.connect()
        site.reload()
        until(lambda: site.log().count("reloaded: new") > reloads)
        for connection in made:
            connection.request("GET", "/v2/")
            assert connection.getresponse().status == 401


def test_once_new_processes_serve_old_ones_accept_nobody(site: Site) -> None:
    site.install("third")
    site.reload()
    until(lambda: site.names() == {"third"})
    assert [names for names in (site.names() for _ in range(64)) if names != {"third"}] == []


def test_a_certificate_that_does_not_go_with_its_key_changes_nothing(site: Site) -> None:
    shown = site.names()
    assert site.live.settings.http.key is not None
    good = site.live.settings.http.key.read_bytes()
    _, other = site.authority.issue("other", "127.0.0.1")
    other.replace(site.live.settings.http.key)
    site.reload()
    until(lambda: "all goes on by the settings before" in site.log())
    assert "expected a PEM chain and its key" in site.log()
    assert site.names() == shown
    site.live.settings.http.key.write_bytes(good)
    site.reload()
    until(lambda: site.log().count("reloaded: new") > site.log().count("all goes on by"))
    assert site.names() == shown


def test_what_only_a_restart_can_change_is_said(site: Site) -> None:
    before = site.live.settings_file.read_text()
    site.change(name="other.example")
    site.reload()
    until(lambda: "setting name: got other.example, was" in site.log())
    site.live.settings_file.write_text(before)
    assert site.get("/healthz") == 200


def test_a_killed_worker_is_replaced(site: Site) -> None:
    def worker() -> int:
        webs = [pid for pid in _children(process(site.live).pid) if "registry.web" in _command(pid)]
        found = [child for pid in webs for child in _children(pid) if "resource_tracker" not in _command(child)]
        return found[0] if len(found) == 1 else 0

    until(lambda: worker() > 0)  # the old one has ended
    killed = worker()
    os.kill(killed, signal.SIGKILL)
    until(lambda: worker() not in {0, killed} and _answers(site))
    assert site.get("/v2/", **site.live.header("pusher")) == 200


def _shown(site: Site, port: int) -> set[str]:
    """The names shown there, none while the process that listens there is started again."""
    try:
        return site.names(port)
    except OSError:
        return set()


def _answers(site: Site) -> bool:
    try:
        return site.get("/readyz") == 200
    except (OSError, http.client.HTTPException):
        return False


def _children(pid: int) -> list[int]:
    try:
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
