"""An OpenID Connect issuer on loopback: discovery, a JWK set, and tokens as its owner or a forger would sign them."""

from __future__ import annotations

import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

from tests.support.certificates import Authority

AUDIENCE = "registry.test"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


@dataclass(slots=True, kw_only=True)
class SigningKey:
    """A key of the issuer."""

    id: str
    algorithm: str
    private: PrivateKey

    @classmethod
    def make(cls, algorithm: str, key_id: str) -> SigningKey:
        """A new one for RS256, ES256 or EdDSA."""
        makers: dict[str, Callable[[], PrivateKey]] = {
            "RS256": lambda: rsa.generate_private_key(public_exponent=65537, key_size=2048),
            "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
            "EdDSA": ed25519.Ed25519PrivateKey.generate,
        }
        return cls(id=key_id, algorithm=algorithm, private=makers[algorithm]())

    def jwk(self, **changes: object) -> dict[str, Any]:
        """Its public half (RFC 7517)."""
        public: Any = self.private.public_key()
        kinds: dict[str, Any] = {"RS256": RSAAlgorithm, "ES256": ECAlgorithm, "EdDSA": OKPAlgorithm}
        members: dict[str, Any] = json.loads(kinds[self.algorithm].to_jwk(public))
        members.pop("key_ops", None)
        return {**members, "kid": self.id, "use": "sig", "alg": self.algorithm, **changes}


@dataclass(slots=True, kw_only=True)
class Issuer:
    """A running issuer. `configuration` is added to what discovery says; with `broken` it answers that status, and
    with `hangs` after so many seconds. `asked` are the paths that were asked for."""

    url: str
    keys: list[SigningKey]
    configuration: dict[str, object] = field(default_factory=dict)
    broken: int = 0
    hangs: float = 0.0
    asked: list[str] = field(default_factory=list)

    def claims(self, **changes: object) -> dict[str, object]:
        """Claims of a good token; None for one that is not there."""
        now = int(time.time())
        told = {"iss": self.url, "aud": AUDIENCE, "sub": "build-1", "iat": now, "nbf": now, "exp": now + 600}
        return {name: value for name, value in {**told, **changes}.items() if value is not None}

    def token(self, key: SigningKey | None = None, *, header: dict[str, object] | None = None, **claims: object) -> str:
        """A token that a key signs, by default the first."""
        by = key or self.keys[0]
        told = {"kid": by.id, **(header or {})}
        return jwt.encode(
            self.claims(**claims), by.private, algorithm=by.algorithm, headers={n: v for n, v in told.items() if v}
        )

    def document(self, path: str) -> object:
        """What it answers at a path, None if nothing is there."""
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.url, "jwks_uri": f"{self.url}/keys", **self.configuration}
        if path == "/keys":
            return {"keys": [key.jwk() for key in self.keys]}
        return None


@contextmanager
def issuer(*algorithms: str, tls: tuple[Authority, str] | None = None) -> Iterator[Issuer]:
    """An issuer with a key for each of these algorithms (RS256 without any); `tls` is an authority and a file name."""
    made: list[Issuer] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            running = made[0]
            running.asked.append(self.path)
            time.sleep(running.hangs)
            found = running.document(self.path)
            body = b"{}" if found is None else found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(running.broken or (404 if found is None else 200))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls[0].issue(tls[1], "127.0.0.1"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls is not None else "http"
    keys = [SigningKey.make(each, f"key-{number}") for number, each in enumerate(algorithms or ("RS256",))]
    made.append(Issuer(url=f"{scheme}://127.0.0.1:{server.server_address[1]}", keys=keys))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield made[0]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
