"""R9: where our credentials go, and where we let a registry send us."""

from __future__ import annotations

import base64
import datetime
import http.server
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ocispec.access import Access, Credentials, Origin
from ocispec.errors import RemoteError, SourceError, SpecError
from ocispec.remote import Remote
from ocispec.transport import Reach, Transport
from tests.support.fakeregistry import Answer, FakeRegistry, Request
from tests.support.images import image

ACCOUNT = ("host-1", "secret")
BASIC = "Basic " + base64.b64encode(b"host-1:secret").decode()


def _access(**changes: object) -> Access:
    known = {"plain_http": True, "attempts": 2, "first_delay": 0.001, "timeout": 5.0}
    return Access(**{**known, "credentials": Credentials(name=ACCOUNT[0], secret=ACCOUNT[1]), **changes})  # type: ignore[arg-type]  # values of several types


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        running.add(image(), "app", "1")
        yield running


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        running.add(image(), "app", "1")
        yield running


def _authorizations(registry: FakeRegistry) -> list[str | None]:
    return [request.headers.get("authorization") for request in registry.requests]


# Basic


def test_credentials_are_sent_when_the_registry_asks_and_from_then_on(registry: FakeRegistry) -> None:
    registry.account = ACCOUNT
    with Remote(registry.host, _access()) as remote:
        assert remote.tags("app") == ("1",)
        remote.manifest("app", "1")
    assert _authorizations(registry) == [None, BASIC, BASIC]


def test_wrong_credentials_are_refused_once(registry: FakeRegistry) -> None:
    registry.account = ("host-1", "other")
    with Remote(registry.host, _access()) as remote:
        for _ in range(2):
            with pytest.raises(RemoteError, match="answered 401 UNAUTHORIZED"):
                remote.tags("app")
    assert len(registry.requests) == 3


def test_without_credentials_a_challenge_is_a_refusal(registry: FakeRegistry) -> None:
    registry.account = ACCOUNT
    with Remote(registry.host, _access(credentials=None)) as remote, pytest.raises(RemoteError, match="401"):
        remote.tags("app")


def test_a_challenge_that_nobody_knows_is_a_refusal(registry: FakeRegistry) -> None:
    registry.hook(lambda request: Answer(401, headers={"WWW-Authenticate": "Negotiate"}))
    with Remote(registry.host, _access()) as remote, pytest.raises(RemoteError, match="401"):
        remote.tags("app")
    assert _authorizations(registry) == [None]


# Tokens


def _ask_for_token(registry: FakeRegistry, realm: str) -> None:
    def hook(request: Request) -> Answer | None:
        if request.path == "/token":
            return Answer(200, b'{"token":"t0k"}')
        if request.headers.get("authorization") == "Bearer t0k":
            return None
        challenge = f'Bearer realm="{realm}",service="s\\"x",scope="repository:other:*"'
        return Answer(401, headers={"WWW-Authenticate": challenge})

    registry.hook(hook)


def test_a_token_is_fetched_from_the_registrys_own_host_for_our_scope(registry: FakeRegistry) -> None:
    _ask_for_token(registry, f"http://{registry.host}/token?x=1")
    with Remote(registry.host, _access()) as remote:
        remote.manifest("app", "1")
        remote.tags("app")
    token = next(request for request in registry.requests if request.path == "/token")
    assert token.query == {"x": ["1"], "service": ['s"x'], "scope": ["repository:app:pull"]}
    assert _authorizations(registry) == [None, BASIC, "Bearer t0k", "Bearer t0k"]


def test_r9_a_token_service_on_another_host_gets_nothing(registry: FakeRegistry, elsewhere: FakeRegistry) -> None:
    _ask_for_token(registry, f"http://{elsewhere.host}/token")
    with Remote(registry.host, _access()) as remote, pytest.raises(SpecError, match="gets no credentials"):
        remote.tags("app")
    assert elsewhere.requests == []


def test_a_token_service_that_was_named_beside_the_registry_gets_the_credentials(
    registry: FakeRegistry, elsewhere: FakeRegistry
) -> None:
    _ask_for_token(elsewhere, "unused")
    _ask_for_token(registry, f"http://{elsewhere.host}/token")
    with Remote(registry.host, _access(token_hosts=(elsewhere.host,))) as remote:
        assert remote.tags("app") == ("1",)
    assert _authorizations(elsewhere) == [BASIC]


def test_a_token_without_credentials_is_asked_for_anonymously(registry: FakeRegistry) -> None:
    _ask_for_token(registry, f"http://{registry.host}/token")
    with Remote(registry.host, _access(credentials=None)) as remote:
        assert remote.tags("app") == ("1",)


@pytest.mark.parametrize("realm", ["", "ftp://h/x", "//h/x", "http://[/x", "http://u@h/x", "http://h:99999/x"])
def test_a_token_service_that_is_no_address_is_refused(registry: FakeRegistry, realm: str) -> None:
    _ask_for_token(registry, realm)
    with Remote(registry.host, _access()) as remote, pytest.raises(SpecError):
        remote.tags("app")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(403), "answered 403 .account 'host-1'"),
        (Answer(200, b"{}"), "access_token is missing"),
        (Answer(200, b'{"access_token":"a\\r\\nX: y"}'), "not printable ASCII"),
        (Answer(200, b"x" * 70_000), "more than 65536 bytes"),
    ],
)
def test_a_token_service_that_gives_no_token(registry: FakeRegistry, answer: Answer, reason: str) -> None:
    _ask_for_token(registry, f"http://{registry.host}/token")
    registry.hook(lambda request: answer if request.path == "/token" else None)
    with Remote(registry.host, _access()) as remote, pytest.raises(SpecError, match=reason):
        remote.tags("app")


# Redirects


def test_r9_a_redirect_to_another_host_carries_no_credentials(registry: FakeRegistry, elsewhere: FakeRegistry) -> None:
    registry.account = ACCOUNT
    with Remote(registry.host, _access()) as remote:
        remote.tags("app")
        target = {"Location": f"http://{elsewhere.host}/v2/app/manifests/1?sig=x"}
        registry.hook(lambda request: Answer(307, headers=target))
        assert remote.manifest("app", "1").digest == image().digest
    assert _authorizations(registry)[-1] == BASIC
    assert _authorizations(elsewhere) == [None]
    assert elsewhere.requests[0].query == {"sig": ["x"]}


def test_a_redirect_on_the_same_host_keeps_them(registry: FakeRegistry) -> None:
    registry.account = ACCOUNT
    registry.hook(
        lambda request: (
            Answer(302, headers={"Location": "/v2/app/manifests/1"}) if request.path.endswith("/2") else None
        )
    )
    with Remote(registry.host, _access()) as remote:
        assert remote.manifest("app", "2").digest == image().digest
    assert _authorizations(registry)[-1] == BASIC


def test_r9_a_redirect_to_a_nearer_network_is_not_followed(registry: FakeRegistry) -> None:
    with Remote(registry.host, _access(attempts=1)) as remote:
        remote.tags("app")
        remote.transport._reach = 0  # as if the registry were on the internet
        with FakeRegistry() as inner:
            registry.hook(lambda request: Answer(307, headers={"Location": f"http://{inner.host}/admin"}))
            remote.transport.close()
            remote.transport._check_reach = _pretend_far(remote.transport)  # type: ignore[method-assign]  # the registry's own address stays far
            with pytest.raises(SpecError, match="nearer to us than its own"):
                remote.tags("app")
            assert inner.requests == []


def _pretend_far(transport: Transport):  # type: ignore[no-untyped-def]  # a bound method of the same signature
    check = transport._check_reach

    def far(origin: Origin, reach: int) -> None:
        if origin != transport.origin:
            check(origin, reach)

    return far


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("8.8.8.8", 0),
        ("2606:4700::1111", 0),
        ("10.1.2.3", 1),
        ("192.168.0.1", 1),
        ("fd00::1", 1),
        ("100.64.0.1", 1),
        ("127.0.0.1", 2),
        ("::1", 2),
        ("::ffff:127.0.0.1", 2),
        ("::ffff:10.0.0.1", 1),
        ("169.254.169.254", 3),
        ("fe80::1%eth0", 3),
        ("0.0.0.0", 3),  # noqa: S104  # an address to judge, none to listen on
        ("224.0.0.1", 3),
    ],
)
def test_how_near_an_address_is(address: str, reach: int) -> None:
    assert Reach.of(address) == reach


def test_endless_redirects_end(registry: FakeRegistry) -> None:
    registry.hook(lambda request: Answer(302, headers={"Location": request.path}))
    with Remote(registry.host, _access()) as remote, pytest.raises(SpecError, match="more than 5 redirects"):
        remote.tags("app")
    assert len(registry.requests) == 6


@pytest.mark.parametrize("location", ["", "ftp://h/x", "http://[", "http://u:p@h/x"])
def test_a_redirect_to_no_address_is_refused(registry: FakeRegistry, location: str) -> None:
    registry.hook(lambda request: Answer(302, headers={"Location": location}))
    with Remote(registry.host, _access()) as remote, pytest.raises(SpecError):
        remote.tags("app")


def test_what_changes_something_is_never_redirected_or_repeated(registry: FakeRegistry) -> None:
    registry.hook(lambda request: Answer(307, headers={"Location": "/x"}))
    with Remote(registry.host, _access()) as remote, pytest.raises(RemoteError, match="answered 307"):
        remote.send_document("POST", "/api/v1/statements", b"{}", content_type="application/json", limit=10)
    assert len(registry.requests) == 1


# TLS


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate authority's file, and a server's certificate with key, for 127.0.0.1."""
    import ipaddress

    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / "ca.pem").write_bytes(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(pem + private)
    return folder / "ca.pem", folder / "server.pem"


@pytest.fixture
def secure(authority: tuple[Path, Path]) -> Iterator[FakeRegistry]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority[1])
    with FakeRegistry(tls=context) as running:
        running.add(image(), "app", "1")
        yield running


def test_tls_with_the_authority_that_was_named(secure: FakeRegistry, authority: tuple[Path, Path]) -> None:
    with Remote(secure.host, _access(plain_http=False, ca_file=authority[0])) as remote:
        assert remote.manifest("app", "1").digest == image().digest


def test_tls_without_it_is_not_trusted(secure: FakeRegistry) -> None:
    with (
        Remote(secure.host, _access(plain_http=False)) as remote,
        pytest.raises(SourceError, match="certificate not trusted"),
    ):
        remote.manifest("app", "1")


def test_from_https_to_http_is_not_followed(
    secure: FakeRegistry, elsewhere: FakeRegistry, authority: tuple[Path, Path]
) -> None:
    secure.hook(lambda request: Answer(307, headers={"Location": f"http://{elsewhere.host}/x"}))
    with (
        Remote(secure.host, _access(plain_http=False, ca_file=authority[0])) as remote,
        pytest.raises(SpecError, match="from https to http"),
    ):
        remote.manifest("app", "1")
    secure.unhook()
    _ask_for_token(secure, f"http://{elsewhere.host}/token")
    with (
        Remote(secure.host, _access(plain_http=False, ca_file=authority[0])) as remote,
        pytest.raises(SpecError, match="expected https"),
    ):
        remote.manifest("app", "1")
    assert elsewhere.requests == []


def test_a_ca_file_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nonsense")
    for path in (tmp_path / "ca.pem", tmp_path / "none.pem"):
        with pytest.raises(SourceError, match=f"CA file {path}"):
            Remote("h.example", Access(ca_file=path))


# Addresses


@pytest.mark.parametrize("registry", ["h.example", "10.0.0.1:5000", "127.0.0.1.example:80", "localhost.example"])
def test_plain_http_is_for_this_machine_only(registry: str) -> None:
    with pytest.raises(SpecError, match="expected a loopback address"):
        Transport(registry, Access(plain_http=True))


def test_a_name_that_only_sounds_like_this_machine_is_not_spoken_to(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeRegistry() as registry, Remote(registry.host, _access(attempts=1)) as remote:
        monkeypatch.setattr(Reach, "of", staticmethod(lambda address: 1))
        with pytest.raises(SpecError, match="an address that is not this machine's"):
            remote.tags("app")
        assert registry.requests == []


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://h.example", "https://h.example"),
        ("https://h.example:443/x", "https://h.example"),
        ("http://h.example:443", "http://h.example:443"),
        ("http://[::1]:5000/", "http://[::1]:5000"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, shown: str) -> None:
    from urllib.parse import urlsplit

    assert str(Origin.of_url(urlsplit(url))) == shown


def test_credentials_that_cannot_stand_in_a_header_are_refused() -> None:
    for name, secret in (("a:b", "c"), ("a", "b\n"), ("a\0", "b"), ("a", "\x7f")):
        with pytest.raises(SpecError, match="account"):
            Credentials(name=name, secret=secret)


# Slow and broken servers


def test_a_body_that_trickles_is_given_up(registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(0, 100_000, 50))
    monkeypatch.setattr("ocispec.transport.time.monotonic", lambda: float(next(ticks)))
    registry.documents["/x"] = b"x" * 1_000_000
    with Remote(registry.host, _access(attempts=1)) as remote, pytest.raises(SourceError, match="slower than"):
        remote.get_document("/x", limit=1_000_001)


def test_a_server_that_says_nothing_is_given_up() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        with Remote(host, _access(timeout=0.1)) as remote, pytest.raises(SourceError, match="no answer: timed out"):
            remote.tags("app")


@pytest.mark.parametrize("said", [b"", b"nonsense\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"])
def test_an_answer_that_is_not_http(said: bytes) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(said)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        host = f"127.0.0.1:{server.server_address[1]}"
        with Remote(host, _access()) as remote, pytest.raises(SpecError):
            remote.tags("app")
        server.shutdown()
        thread.join()
