"""How long a token is sent, when another is fetched, and to whom our certificate is shown."""

from __future__ import annotations

import io
import itertools
import json
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from ocispec.access import Access, ClientCertificate, Credentials
from ocispec.errors import SourceError, SpecError
from ocispec.remote import Remote
from tests.support.certificates import Authority, Client, authority
from tests.support.fakeregistry import Answer, FakeRegistry, Request
from tests.support.images import image

# Tokens


class TokenService:
    """Gives out numbered tokens, and takes only those in `good` (all, if it is None)."""

    def __init__(self, registry: FakeRegistry, **answer: object) -> None:
        self.registry, self.answer = registry, answer
        self.given = itertools.count(1)
        self.good: set[str] | None = None
        registry.hook(self._hook)

    def _hook(self, request: Request) -> Answer | None:
        if request.path == "/token":
            return Answer(200, json.dumps({"token": f"t{next(self.given)}", **self.answer}).encode())
        sent = request.headers.get("authorization", "").removeprefix("Bearer ")
        if sent and (self.good is None or sent in self.good):
            return None
        return Answer(401, headers={"WWW-Authenticate": f'Bearer realm="http://{self.registry.host}/token"'})

    @property
    def fetched(self) -> int:
        return sum(request.path == "/token" for request in self.registry.requests)


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        running.add(image(), "app", "1")
        running.add(image(), "other", "1")
        yield running


def remote_of(registry: FakeRegistry) -> Remote:
    return Remote(registry.host, Access(plain_http=True, attempts=1, credentials=Credentials(name="ci", secret="x")))


def test_one_token_serves_all_requests_of_its_scope(registry: FakeRegistry) -> None:
    service = TokenService(registry, expires_in=300)
    with remote_of(registry) as remote:
        for _ in range(5):
            remote.manifest("app", "1")
        assert service.fetched == 1
        remote.manifest("other", "1")
        remote.manifest("app", "1")
    assert service.fetched == 2


def test_a_token_is_renewed_before_it_ends(registry: FakeRegistry) -> None:
    service = TokenService(registry, expires_in=1)
    with remote_of(registry) as remote:
        remote.manifest("app", "1")
        time.sleep(0.95)
        remote.manifest("app", "1")
    assert service.fetched == 2
    # It came beforehand, not after a refusal.
    assert [request.path for request in registry.requests].count("/v2/app/manifests/1") == 3


def test_a_token_without_an_end_is_sent_for_a_minute(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    service = TokenService(registry)
    now = time.monotonic()
    with remote_of(registry) as remote:
        remote.manifest("app", "1")
        monkeypatch.setattr(time, "monotonic", lambda: now + 50)
        remote.manifest("app", "1")
        assert service.fetched == 1
        monkeypatch.setattr(time, "monotonic", lambda: now + 61)
        remote.manifest("app", "1")
    assert service.fetched == 2


def test_a_token_that_is_withdrawn_is_fetched_anew_once(registry: FakeRegistry) -> None:
    service = TokenService(registry, expires_in=300)
    with remote_of(registry) as remote:
        remote.manifest("app", "1")
        service.good = {"t2"}
        remote.manifest("app", "1")
        assert service.fetched == 2
        service.good = set()
        with pytest.raises(SpecError, match="answered 401"):
            remote.manifest("app", "1")
    assert service.fetched == 3


def test_a_body_that_is_sent_once_goes_with_a_token_that_is_there_already(registry: FakeRegistry) -> None:
    service = TokenService(registry, expires_in=300)
    with remote_of(registry) as remote:
        remote.manifest("app", "1")
        sent = io.BytesIO(b"content")
        headers = {"Content-Length": "7", "Content-Type": "application/octet-stream"}
        target = "/v2/app/blobs/uploads/?digest=sha256:x"
        response = remote.transport.request(
            "POST", target, scope="repository:app:pull,push", headers=headers, body=sent
        )
        response.close()
    assert service.fetched == 2
    assert response.status != 401


@pytest.mark.parametrize("expires", [-1, 0, "300", 3.5, None, 10**12])
def test_an_end_that_is_none_is_an_error_or_the_default(registry: FakeRegistry, expires: object) -> None:
    TokenService(registry, expires_in=expires)
    with remote_of(registry) as remote:
        if expires in {0, None, 10**12}:
            remote.manifest("app", "1")
        else:
            with pytest.raises(SpecError, match="expires_in"):
                remote.manifest("app", "1")


def test_many_threads_share_what_is_known(registry: FakeRegistry) -> None:
    service = TokenService(registry, expires_in=300)
    with remote_of(registry) as remote:
        remote.manifest("app", "1")
        threads = [threading.Thread(target=remote.manifest, args=("app", "1")) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert service.fetched == 1


# Certificates


class Door:
    """A TLS server that asks for a certificate, notes whose it is shown, and redirects where it is told to."""

    def __init__(self, ours: Authority, name: str) -> None:
        self.shown: list[str] = []
        self.location = ""
        door = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                found = self.connection.getpeercert() if isinstance(self.connection, ssl.SSLSocket) else None
                door.shown.append(str(dict(pair[0] for pair in found["subject"])["commonName"]) if found else "")  # type: ignore[misc]  # getpeercert's own shape
                self.send_response(307 if door.location else 200)
                if door.location:
                    self.send_header("Location", door.location)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*ours.issue(name, "127.0.0.1", "localhost"))
        context.load_verify_locations(ours.file)
        context.verify_mode = ssl.CERT_OPTIONAL
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self) -> Door:
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def host(ours: Authority) -> Client:
    return ours.issue_client("host-1.test")


def shows(ours: Authority, shown: Client) -> Access:
    return Access(
        ca_file=ours.file,
        client_certificate=ClientCertificate(chain=shown.chain, key=shown.key),
        attempts=1,
        timeout=10,
    )


def get(remote: Remote) -> None:
    remote.transport.request("GET", "/v2/", scope="").close()


def test_a_certificate_is_shown_to_the_registrys_own_host(ours: Authority, host: Client) -> None:
    with Door(ours, "one") as one, Door(ours, "two") as two:
        one.location = f"https://127.0.0.1:{two.port}/x"  # the same host, where a token service may be
        with Remote(f"127.0.0.1:{one.port}", shows(ours, host)) as remote:
            get(remote)
    assert (one.shown, two.shown) == (["host-1.test"], ["host-1.test"])


def test_r9_a_certificate_is_not_shown_to_another_host(ours: Authority, host: Client) -> None:
    with Door(ours, "one") as one, Door(ours, "two") as two:
        one.location = f"https://localhost:{two.port}/x"
        with Remote(f"127.0.0.1:{one.port}", shows(ours, host)) as remote:
            get(remote)
    assert (one.shown, two.shown) == (["host-1.test"], [""])


def test_a_certificate_that_cannot_be_used_is_named(ours: Authority, host: Client, tmp_path: Path) -> None:
    other = ours.issue_client("other.test")
    for chain, key in ((tmp_path / "nothing", host.key), (host.chain, other.key), (host.key, host.chain)):
        shown = Access(ca_file=ours.file, client_certificate=ClientCertificate(chain=chain, key=key))
        with pytest.raises(SourceError, match=f"client certificate {chain}"):
            Remote("127.0.0.1:1", shown)
