"""Hosts that a whole registry knows by their certificates: our client, an enrolled host, skopeo, and renewals."""

from __future__ import annotations

import base64
import http.client
import json
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.access import Access, ClientCertificate
from ocispec.errors import SpecError
from ocispec.remote import Remote
from policy.model import State
from registry.catalogue.accounts import bind_certificates
from runtime.host import Host, RegistryAccount
from runtime.store import Store
from tests.clients.conftest import make_desk
from tests.pratique.calling import call, good
from tests.support.certificates import Authority, Client, authority
from tests.support.images import BuiltImage, image
from tests.support.live import WholeRegistry, now, prepared
from tests.support.nginx import nginx
from tests.support.packages import os_release
from tests.support.processes import free_port
from tests.support.registry import web_registry
from tests.support.tools import need_root

REPOSITORY = "team/app"


@dataclass(slots=True, kw_only=True)
class Site:
    """A registry with TLS and a listener for certificates; `host` speaks for the account host, `built` is cleared."""

    live: WholeRegistry
    authority: Authority
    host: Client
    port: int
    built: BuiltImage

    def access(self, shown: Client | None) -> Access:
        return Access(
            ca_file=self.authority.file,
            client_certificate=ClientCertificate(chain=shown.chain, key=shown.key) if shown is not None else None,
            attempts=1,
        )

    def change(self, account: str, *certificates: str) -> None:
        body = json.dumps({"certificates": certificates}).encode()
        status, answer = self.live.api("PATCH", f"/api/v1/accounts/{account}", account="admin", body=body)
        assert status == 200, answer

    def pull(self, shown: Client | None) -> bytes:
        with Remote(self.live.address, self.access(shown)) as remote:
            return remote.manifest(REPOSITORY, "1").raw


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("certificates")
    ours = authority(folder)
    chain, key = ours.issue("registry", "127.0.0.1")
    port = free_port()
    certificates = {"ca": str(ours.file), "listen": f"127.0.0.1:{port}"}
    with prepared(http={"certificate": str(chain), "key": str(key)}, certificates=certificates) as live:
        live.tls = ours.client()
        live.start()
        try:
            live.bootstrap()
            live.publish()
            built = image([{**os_release(), "etc/": b""}])
            live.push(REPOSITORY, built, "1")
            live.approve(REPOSITORY, built, "base", live.ring.alice, live.ring.bob)
            live.until(REPOSITORY, built.digest, "cleared")
            made = Site(live=live, authority=ours, host=ours.issue_client("host-1.test"), port=port, built=built)
            made.change("host", "dns:host-1.test")
            yield made
        finally:
            live.stop()
        assert "Traceback" not in live.log()


def test_clients_are_sent_to_the_listener_for_tokens(site: Site) -> None:
    challenge = site.live.request("GET", "/v2/", account=None).headers["www-authenticate"]
    assert challenge == f'Bearer realm="https://127.0.0.1:{site.port}/token",service="{site.live.address}"'


def test_our_client_pulls_what_is_cleared(site: Site) -> None:
    assert site.pull(site.host) == site.built.manifest.raw


def test_nobody_pulls_without_or_with_another(site: Site, tmp_path: Path) -> None:
    foreign = authority(tmp_path)
    for shown in (None, foreign.issue_client("host-1.test"), site.authority.issue_client("host-2.test")):
        with pytest.raises(SpecError):
            site.pull(shown)


def test_a_host_enrols_and_syncs_by_its_certificate(site: Site, tmp_path: Path) -> None:
    account = RegistryAccount(
        registry=site.live.address,
        certificate=ClientCertificate(chain=site.host.chain, key=site.host.key),
        ca=site.authority.file.read_text(),
    )
    host = Host.enrol(Store.open(tmp_path / "store"), site.live.ring.envelope, account, now())
    assert host.accounts() == (account,)
    synced = Host.open(Store.open(tmp_path / "store")).sync(now())
    assert (synced.refused, synced.silent) == ((), ())
    assert any("revocation list" in text for text in synced.news)


def test_the_command_remembers_it(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRATIQUE_CONFIG", str(tmp_path / "config"))
    login = ("login", site.live.address, "--account", "host", "--ca", site.authority.file, "--certificate")
    good(*login, site.host.chain, "--certificate-key", site.host.key)
    assert good("status", f"{site.live.address}/{REPOSITORY}:1").out.startswith("cleared")
    stranger = site.authority.issue_client("stranger.test")
    assert call(*login, stranger.chain, "--certificate-key", stranger.key).code == 1


def test_a_certificate_that_is_bound_no_more_ends_at_once(site: Site) -> None:
    other = site.authority.issue_client("host-9.test")
    site.change("scanner", other.fingerprint)
    with Remote(site.live.address, site.access(other)) as remote:
        assert remote.manifest(REPOSITORY, "1").raw == site.built.manifest.raw
        site.change("scanner")
        deadline = time.monotonic() + 5
        while True:
            try:
                remote.manifest(REPOSITORY, "1")
            except SpecError:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
    status, answer = site.live.api("GET", "/api/v1/audit?limit=1000", account="auditor")
    assert status == 200
    assert f"by certificates {other.fingerprint}" in json.dumps(answer)


def test_skopeo_pulls_by_a_certificate_and_pushes_by_a_secret(site: Site, tmp_path: Path) -> None:
    desk = make_desk(tmp_path, site.live.address, "pusher", site.live.secrets["pusher"])
    for name, shown in (("plain", None), ("shown", site.host)):
        folder = tmp_path / name
        folder.mkdir()
        shutil.copy(site.authority.file, folder / "ca.crt")
        if shown is not None:
            shutil.copy(shown.chain, folder / "client.cert")
            shutil.copy(shown.key, folder / "client.key")
    source = image([{"x": "y"}]).write_layout(tmp_path / "in", "1")
    name = f"docker://{site.live.address}/{REPOSITORY}"
    desk.run("skopeo", "copy", "--dest-cert-dir", tmp_path / "plain", f"oci:{source}:1", f"{name}:pushed")
    (tmp_path / "docker/config.json").write_text("{}")
    desk.run("skopeo", "copy", "--src-cert-dir", tmp_path / "shown", f"{name}:1", f"oci:{tmp_path / 'out'}:1")
    # What is not cleared is not the host's, and without a certificate nothing is anybody's.
    refused = desk.try_run("skopeo", "inspect", "--cert-dir", tmp_path / "shown", f"{name}:pushed")
    assert refused.returncode != 0
    assert "denied" in refused.stderr
    refused = desk.try_run("skopeo", "inspect", "--cert-dir", tmp_path / "plain", f"{name}:1")
    assert (refused.returncode != 0, "unauthorized" in refused.stderr) == (True, True)


def _serial(site: Site) -> int:
    with (
        socket.create_connection(("127.0.0.1", site.port), timeout=30) as plain,
        site.authority.client().wrap_socket(plain, server_hostname="127.0.0.1") as shown,
    ):
        found = shown.getpeercert()
        assert found is not None
        return int(str(found["serialNumber"]), 16)


def test_a_reload_renews_what_the_listener_shows_and_loses_nobody(site: Site) -> None:
    before = _serial(site)
    site.authority.issue("registry", "127.0.0.1")  # in the same files
    process = site.live.process
    assert process is not None
    process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 60
    while _serial(site) == before:
        assert site.pull(site.host) == site.built.manifest.raw
        assert time.monotonic() < deadline, site.live.log()
    assert site.pull(site.host) == site.built.manifest.raw


@pytest.mark.root
def test_revocation_lists_that_the_process_may_not_read_stop_the_start(tmp_path: Path) -> None:
    """Read once as root, they could not be read again: everybody would be refused when they change."""
    need_root()
    ours = authority(tmp_path / "tls")
    chain, key = ours.issue("registry", "127.0.0.1")
    tmp_path.chmod(0o700)
    certificates = {"ca": str(ours.file), "crl": str(ours.revoke()), "listen": f"127.0.0.1:{free_port()}"}
    with prepared(http={"certificate": str(chain), "key": str(key)}, certificates=certificates) as live:
        with pytest.raises(AssertionError, match="the registry ended with 1"):
            live.start()
        assert "setting certificates.crl" in live.log()
        assert "Permission denied" in live.log()


# ---- behind nginx ------------------------------------------------------------------------------------------------


def test_a_proxy_that_takes_any_certificate_gives_nothing_away(tmp_path: Path) -> None:
    """nginx asks for one and proves that the client has its key (ssl_verify_client optional_no_ca), and no more."""
    ours, port = authority(tmp_path / "tls"), free_port()
    chain, key = ours.issue("tls", "127.0.0.1")
    name = f"127.0.0.1:{port}"
    certificates = {"ca": str(ours.file), "header": "Client-Cert"}
    with web_registry(
        tmp_path / "registry", name=name, http={"proxies": ["127.0.0.1"]}, certificates=certificates
    ) as live:
        catalogue = live.catalogue()
        with catalogue.write() as conn:
            bind_certificates(conn, "host", ["dns:host-1.test"])
        catalogue.close()
        built = image()
        live.push(REPOSITORY, built, "1")
        live.judge(REPOSITORY, built.digest, State.CLEARED, serve="1")
        changes = {
            "server 127.0.0.1:5000;": f"server {live.address};",
            "listen 443 ssl;": f"listen {name} ssl; ssl_verify_client optional_no_ca;",
            "/etc/pratique/tls.pem": str(chain),
            "/etc/pratique/tls.key": str(key),
            'proxy_set_header Client-Cert "";': "proxy_set_header Client-Cert $ssl_client_escaped_cert;",
        }
        with nginx(tmp_path / "nginx", port, changes):
            foreign = authority(tmp_path / "foreign")
            makers: tuple[tuple[Callable[[], Client | None], bool], ...] = (
                (lambda: ours.issue_client("host-1.test"), True),
                (lambda: foreign.issue_client("host-1.test"), False),
                (lambda: ours.issue_client("host-2.test"), False),
                (lambda: ours.issue_client("host-1.test", days=-1, begins=timedelta(days=-9)), False),
                (lambda: None, False),
            )
            for make, pulls in makers:
                shown = make()
                certificate = ClientCertificate(chain=shown.chain, key=shown.key) if shown is not None else None
                access = Access(ca_file=ours.file, client_certificate=certificate, attempts=1)
                with Remote(name, access) as remote:
                    if pulls:
                        assert remote.manifest(REPOSITORY, "1").raw == built.manifest.raw
                        continue
                    with pytest.raises(SpecError):
                        remote.manifest(REPOSITORY, "1")
            # What a client says is its certificate, nginx does not pass on.
            header = {"Client-Cert": f":{base64.b64encode(ours.issue_client('host-1.test').der).decode()}:"}
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=ours.client())
            connection.request("GET", "/token", headers=header)
            assert connection.getresponse().status == 401
            connection.close()
