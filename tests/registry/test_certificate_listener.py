"""The listener for client certificates: who gets a token, who gets no connection, and who keeps whom waiting."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from registry.audit import Event, read
from registry.catalogue.accounts import bind_certificates
from registry.certificate_listener import PER_ADDRESS
from registry.listening import open_listener
from tests.support.certificates import Authority, Client, authority
from tests.support.identity import basic, decoded
from tests.support.processes import end, free_port
from tests.support.registry import LiveRegistry, make_registry
from tests.support.tools import need

SCOPE = "repository:team/app:pull,push"


@dataclass(slots=True, kw_only=True)
class Door:
    """A listener that runs; `live` is the registry whose tokens it gives, which itself does not run."""

    live: LiveRegistry
    port: int
    authority: Authority
    host: Client
    process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        return (self.live.folder / "listener.log").read_text()

    def start(self) -> None:
        with open_listener(f"127.0.0.1:{self.port}") as listener, (self.live.folder / "listener.log").open("ab") as log:
            reader, writer = os.pipe()
            command = [sys.executable, "-m", "registry.certificate_listener", str(self.live.settings_file)]
            self.process = subprocess.Popen(
                [*command, str(listener.fileno()), str(writer)],
                pass_fds=(listener.fileno(), writer),
                stdout=log,
                stderr=log,
            )
            os.close(writer)
            assert os.read(reader, 1) == b".", self.log
            os.close(reader)

    def connect(self, shown: Client | None = None, *, version: ssl.TLSVersion | None = None) -> ssl.SSLSocket:
        context = self.authority.client(shown)
        if version is not None:
            context.maximum_version = version
        plain = socket.create_connection(("127.0.0.1", self.port), timeout=30)
        return context.wrap_socket(plain, server_hostname="127.0.0.1")

    def ask(self, raw: bytes, shown: Client | None = None, **how: ssl.TLSVersion) -> tuple[int, bytes]:
        """The status and body that are answered to these bytes."""
        with self.connect(shown, **how) as connection:
            connection.sendall(raw)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    def token(self, shown: Client | None = None, *fields: str, **how: ssl.TLSVersion) -> tuple[int, dict[str, object]]:
        query = urlencode({"service": self.live.settings.name, "scope": SCOPE})
        lines = "".join(f"{line}\r\n" for line in ("Host: any", *fields))
        status, body = self.ask(f"GET /token?{query} HTTP/1.1\r\n{lines}\r\n".encode(), shown, **how)
        return status, json.loads(body)


def made(folder: Path, *, rates: dict[str, int] | None = None, **certificates: object) -> Door:
    """A listener that does not run yet; `host-1.test` speaks for account host."""
    ours = authority(folder / "ca")
    chain, key = ours.issue("registry", "127.0.0.1")
    port = free_port()
    live = make_registry(
        folder / "registry",
        http={"certificate": str(chain), "key": str(key)},
        certificates={"ca": str(ours.file), "listen": f"127.0.0.1:{port}", **certificates},
        rates=rates or {"unknown": 0},
    )
    catalogue = live.catalogue()
    with catalogue.write() as conn:
        bind_certificates(conn, "host", ["dns:host-1.test"])
    catalogue.close()
    return Door(live=live, port=port, authority=ours, host=ours.issue_client("host-1.test"))


@contextmanager
def running(door: Door) -> Iterator[Door]:
    door.start()
    assert door.process is not None
    try:
        yield door
    finally:
        end(door.process, seconds=30)
    assert door.process.returncode == 0, door.log
    assert "Traceback" not in door.log, door.log


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(made(tmp_path_factory.mktemp("door"))) as each:
        yield each


def refused(door: Door, shown: Client | None) -> bool:
    """True if TLS itself gives nothing to whoever shows that."""
    try:
        door.token(shown)
    except (ssl.SSLError, ConnectionError, IndexError, ValueError):
        return True
    return False


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_host_gets_a_token_for_its_certificate(door: Door, version: ssl.TLSVersion) -> None:
    status, answer = door.token(door.host, version=version)
    assert status == 200, answer
    _, claims = decoded(str(answer["token"]))
    assert claims["sub"] == "host"
    assert claims["access"] == [{"type": "repository", "name": "team/app", "actions": ["pull"]}]


def test_curl_gets_a_token(door: Door) -> None:
    done = subprocess.run(
        [
            *(need("curl"), "-sS", "--fail", "--cacert", str(door.authority.file)),
            *("--cert", str(door.host.chain), "--key", str(door.host.key)),
            f"https://127.0.0.1:{door.port}/token?scope=registry:catalog:*",
        ],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["scope"] == "registry:catalog:*"


def test_who_shows_none_logs_in_by_name_and_secret(door: Door) -> None:
    status, answer = door.token(None)
    assert (status, answer["errors"][0]["code"]) == (401, "UNAUTHORIZED")  # type: ignore[index]  # of JSON
    status, answer = door.token(None, f"Authorization: {basic('pusher', door.live.secrets['pusher'])}")
    assert status == 200
    assert decoded(str(answer["token"]))[1]["sub"] == "pusher"
    status, answer = door.token(None, f"Authorization: {basic('pusher', 'wrong')}")
    assert status == 401


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_old_tls_is_refused(door: Door) -> None:
    context = door.authority.client(door.host)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        socket.create_connection(("127.0.0.1", door.port), timeout=30) as plain,
        pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|UNEXPECTED_EOF"),
    ):
        context.wrap_socket(plain, server_hostname="127.0.0.1")


@pytest.mark.parametrize(
    "wrong",
    [
        {"days": -1, "begins": timedelta(days=-9)},
        {"begins": timedelta(days=1)},
        {"usage": ExtendedKeyUsageOID.SERVER_AUTH},
        {"usage": ExtendedKeyUsageOID.CODE_SIGNING},
    ],
)
def test_certificates_that_do_not_count_get_no_connection(door: Door, wrong: dict[str, object]) -> None:
    name = door.host.certificate.subject.rfc4514_string().partition("=")[2]
    other = Authority(
        folder=door.authority.folder / "wrong",
        file=door.authority.file,
        key=door.authority.key,
        certificate=door.authority.certificate,
    )
    other.folder.mkdir(exist_ok=True)
    assert refused(door, other.issue_client(name, **wrong))  # type: ignore[arg-type]  # of the parameters' types


@pytest.mark.parametrize("title", ["authority of the tests", "another authority"])
def test_a_foreign_authority_counts_for_nothing_whatever_its_name(door: Door, tmp_path: Path, title: str) -> None:
    foreign = authority(tmp_path, title)
    assert refused(door, foreign.issue_client("host-1.test"))
    # Its own certificate signs nothing either.
    assert refused(door, Client(chain=foreign.file, key=_key_of(foreign), certificate=foreign.certificate))


def _key_of(foreign: Authority) -> Path:
    from cryptography.hazmat.primitives import serialization

    path = foreign.folder / "authority.key"
    path.write_bytes(
        foreign.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return path


def test_a_certificate_that_is_bound_to_nobody_is_nobody(door: Door) -> None:
    status, answer = door.token(door.authority.issue_client("stranger.test"))
    assert (status, answer["errors"][0]["message"]) == (401, "unknown account or wrong secret")  # type: ignore[index]  # of JSON


def test_a_certificate_of_two_accounts_is_nobody(door: Door) -> None:
    catalogue = door.live.catalogue()
    with catalogue.write() as conn:
        bind_certificates(conn, "scanner", ["uri:spiffe://test/both"])
    catalogue.close()
    both = door.authority.issue_client("both.test", uris=("spiffe://test/both",))
    assert door.token(both)[0] == 200
    with door.live.catalogue().write() as conn:
        bind_certificates(conn, "officer", ["dns:both.test"])
    assert door.token(both)[0] == 401


def test_headers_of_proxies_say_nothing_here(door: Door) -> None:
    from base64 import b64encode

    shown = f":{b64encode(door.host.der).decode()}:"
    assert (
        door.token(None, f"Client-Cert: {shown}", f"X-SSL-Client-Cert: {shown}", "X-Forwarded-For: 1.2.3.4")[0] == 401
    )


@pytest.mark.parametrize(
    "path", ["/", "/v2/", "/v2/team/app/tags/list", "/api/v1/accounts", "/token/", "//token", "/readyz"]
)
def test_nothing_else_is_there(door: Door, path: str) -> None:
    status, body = door.ask(f"GET {path} HTTP/1.1\r\nHost: any\r\n\r\n".encode(), door.host)
    assert status == 404
    assert json.loads(body)["errors"][0]["message"] == "only /token is here"


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"GET /token HTTP/2.0\r\n\r\n", 400),
        (b"GET  /token HTTP/1.1\r\n\r\n", 400),
        (b"get /token HTTP/1.1\r\n\r\n", 400),
        (b"GET http://other/token HTTP/1.1\r\n\r\n", 400),
        (b"GET /token\x00 HTTP/1.1\r\n\r\n", 400),
        (b"GET /token HTTP/1.1\r\nA : b\r\n\r\n", 400),
        (b"GET /token HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400),
        (b"GET /token HTTP/1.1\r\nA: b\nB: c\r\n\r\n", 400),
        (b"GET /token HTTP/1.1\r\nAuthorization: Basic YTpi\r\nauthorization: Basic YzpkCg==\r\n\r\n", 400),
        (b"POST /token HTTP/1.1\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (b"POST /token HTTP/1.1\r\nContent-Length: +5\r\n\r\nabcde", 400),
        (b"POST /token HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"POST /token HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST /token HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"PUT /token HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 401),
        (b"GET /token HTTP/1.1\r\n" + b"A: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"GET /token HTTP/1.1\r\n" + b"".join(b"A%d: x\r\n" % n for n in range(200)) + b"\r\n", 431),
        (b"x" * 66_000, 431),
        (b"\xff" * 100 + b"\r\n\r\n", 400),
    ],
)
def test_requests_that_could_be_read_in_two_ways_are_refused(door: Door, raw: bytes, status: int) -> None:
    assert door.ask(raw, door.host)[0] == status


def test_plain_http_gets_nothing(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as plain:
        plain.sendall(b"GET /token HTTP/1.1\r\nHost: any\r\n\r\n")
        with suppress(ConnectionError):
            assert not plain.recv(100).startswith(b"HTTP")


def test_a_form_gives_a_token_too(door: Door) -> None:
    form = urlencode({"grant_type": "password", "username": "pusher", "password": door.live.secrets["pusher"]})
    head = f"POST /token HTTP/1.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(form)}"
    status, body = door.ask(f"{head}\r\n\r\n{form}".encode())
    assert status == 200, body


def test_slow_handshakes_do_not_keep_others_waiting(door: Door) -> None:
    """Connections that say nothing, or half of a hello, or half of a request: more than one address may have."""
    idle: list[socket.socket] = []
    stop = threading.Event()

    def crowd() -> None:
        while not stop.is_set():
            with suppress(OSError):
                each = socket.create_connection(("127.0.0.1", door.port), timeout=30)
                each.sendall(b"\x16\x03\x01" if len(idle) % 2 else b"")
                idle.append(each)
            time.sleep(0.002)
            if len(idle) > 3 * PER_ADDRESS:
                idle.pop(0).close()

    crowding = threading.Thread(target=crowd)
    crowding.start()
    half = door.connect(door.host)
    half.sendall(b"GET /token HTTP/1.1\r\nA: ")
    try:
        deadline = time.monotonic() + 30
        while len(idle) < 2 * PER_ADDRESS:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        for _ in range(20):
            assert door.token(door.host)[0] == 200
    finally:
        stop.set()
        crowding.join()
        half.close()
        for each in idle:
            each.close()


def test_a_connection_ends_that_says_nothing(door: Door) -> None:
    with socket.create_connection(("127.0.0.1", door.port), timeout=30) as plain, door.connect(door.host) as half:
        half.sendall(b"GET /token HTTP/1.1\r\n")
        assert plain.recv(1) == b""
        with suppress(ssl.SSLError, ConnectionError):
            assert half.recv(1) == b""


def test_revocation_counts_at_once_and_a_list_that_is_old_lets_nobody_in(tmp_path: Path) -> None:
    door = made(tmp_path / "door", crl=str(tmp_path / "crl.pem"))
    other = door.authority.issue_client("host-2.test")
    with door.live.catalogue().write() as conn:
        bind_certificates(conn, "scanner", [other.fingerprint])
    door.authority.revoke(file=tmp_path / "crl.pem")
    with running(door):
        assert (door.token(door.host)[0], door.token(other)[0]) == (200, 200)
        door.authority.revoke(other, file=tmp_path / "crl.pem")
        assert (door.token(door.host)[0], door.token(other)[0]) == (200, 401)
        # A list of somebody else's, under the same name, counts for nothing.
        authority(tmp_path / "foreign").revoke(file=tmp_path / "crl.pem")
        assert door.token(door.host)[0] == 401
        door.authority.revoke(file=tmp_path / "crl.pem", days=-1)
        assert door.token(door.host)[0] == 401
        (tmp_path / "crl.pem").unlink()
        assert door.token(door.host)[0] == 401


def test_where_one_is_required_nobody_comes_in_without_and_refusals_are_counted(tmp_path: Path) -> None:
    with running(made(tmp_path, required=True)) as door:
        assert door.token(door.host)[0] == 200
        assert refused(door, None)
        foreign = authority(tmp_path / "foreign", "somebody else")
        for _ in range(3):
            assert refused(door, foreign.issue_client("host-1.test"))
        assert door.token(door.authority.issue_client("stranger.test"))[0] == 401
    catalogue = door.live.catalogue()
    with catalogue.read() as conn:
        told = {each.after for each in read(conn, after=0, limit=1000) if each.event == Event.LOGIN}
    catalogue.close()
    assert "1 refused: client certificate: none was shown" in told
    assert "3 refused: client certificate: unable to get local issuer certificate" in told
    assert any(text.startswith("1 refused: client certificate: speaks for 0 accounts") for text in told)


def test_an_address_begins_so_many_handshakes_and_others_are_not_kept_out(tmp_path: Path) -> None:
    with running(made(tmp_path, rates={"unknown": 1, "burst": 5})) as door:
        answers = []
        for _ in range(12):
            try:
                answers.append(door.token(door.host)[0])
            except (ssl.SSLError, ConnectionError):
                answers.append(0)
        assert answers[:5] == [200] * 5
        assert answers.count(0) >= 4
        context = door.authority.client(door.host)
        with (
            socket.create_connection(("127.0.0.1", door.port), timeout=30, source_address=("127.0.0.9", 0)) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1") as other,
        ):
            other.sendall(b"GET /token HTTP/1.1\r\n\r\n")
            assert other.recv(100).startswith(b"HTTP/1.1 200")


def test_it_ends_when_it_is_told_whoever_is_there(tmp_path: Path) -> None:
    with running(made(tmp_path)) as own, own.connect(own.host), socket.create_connection(("127.0.0.1", own.port)):
        assert own.process is not None
        own.process.terminate()
        assert own.process.wait(8) == 0
