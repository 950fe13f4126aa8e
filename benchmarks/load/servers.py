"""The registries that are compared: ours, whole and with everything on, and Debian's docker-registry at its best.

The peer keeps files, remembers blobs in memory (`blobdescriptor: inmemory`), and logs nothing. It runs three times over
the same files: open to everybody, with htpasswd (bcrypt at its least cost), and with tokens (ES256, given out here, so
that what it costs to give them out is nobody's).
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import jwt
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from ocispec.digest import Digest
from registry.settings import HttpSettings
from registry.store import keys
from tests.support.images import BuiltImage, image, tar
from tests.support.live import WholeRegistry, whole_registry
from tests.support.packages import os_release
from tests.support.processes import end, free_port, wait_for_port

REPOSITORY = "team/base"
TAG = "1"
LARGE_OFFSET = 1024
"""Where the random bytes of `large_layer` begin: behind two headers of 512 bytes."""

ACCEPT = "Accept: application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A registry that runs: `pid` is the process that started all its others."""

    port: int
    pid: int

    def push(self, built: BuiltImage, lines: Sequence[str]) -> None:
        """Push an image to REPOSITORY under TAG."""
        for digest, content in built.blobs.items():
            self.push_blob(digest, content, lines)
        headers = _fields(lines) | {"Content-Type": built.manifest.media_type}
        status, _, answer = self.ask(
            "PUT", f"/v2/{REPOSITORY}/manifests/{TAG}", headers=headers, body=built.manifest.raw
        )
        assert status == 201, answer

    def push_blob(self, digest: Digest, content: bytes, lines: Sequence[str]) -> None:
        """Push a blob to REPOSITORY."""
        headers = _fields(lines) | {"Content-Type": "application/octet-stream"}
        _, answered, _ = self.ask("POST", f"/v2/{REPOSITORY}/blobs/uploads/", headers=headers, body=b"")
        where = urlsplit(answered["location"])
        path = f"{where.path}?{where.query}{'&' if where.query else ''}digest={digest}"
        status, _, answer = self.ask("PUT", path, headers=headers, body=content)
        assert status == 201, answer

    def ask(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, body: bytes | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own; header names of the answer in lower case."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            answer = connection.getresponse()
            named = {name.lower(): value for name, value in answer.getheaders()}
            return answer.status, named, answer.read()
        finally:
            connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer(Server):
    """Debian's docker-registry; `root` is the folder of its files."""

    root: Path
    version: str
    lines: tuple[str, ...] = ()
    """The header lines by which it lets somebody in."""

    def data_file(self, digest: Digest) -> Path:
        """Where it keeps a blob's bytes."""
        return self.root / "docker/registry/v2/blobs" / digest.algorithm / digest.hex[:2] / digest.hex / "data"

    def sync(self, repository: str, digest: Digest) -> None:
        """Put an uploaded blob's name and that of its link on the disk: it syncs their bytes, and not their folders."""
        data = self.data_file(digest)
        layers = self.root / "docker/registry/v2/repositories" / repository / "_layers"
        link = layers / digest.algorithm / digest.hex / "link"
        for path in (data.parent, data.parent.parent, link.parent, link.parent.parent):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ours(Server):
    """Ours, with the settings that it is shipped with."""

    live: WholeRegistry = field(repr=False)

    def basic(self, account: str) -> list[str]:
        """The header lines of an account that shows its secret with each request."""
        return [f"{name}: {value}" for name, value in self.live.header(account).items()]

    def bearer(self, account: str, actions: str) -> list[str]:
        """The header lines of an account with a token for REPOSITORY.

        As clients do it (distribution, "Token Authentication Specification"): by what the 401 answer names.
        """
        _, headers, _ = self.ask("GET", "/v2/")
        named = re.search(r"Bearer (.*)", headers.get("www-authenticate", ""))
        assert named is not None, f"this registry offers no bearer tokens: {headers}"
        fields = dict(re.findall(r'(\w+)="([^"]*)"', named[1]))
        query = urlencode({"service": fields["service"], "scope": f"repository:{REPOSITORY}:{actions}"})
        path = f"{urlsplit(fields['realm']).path}?{query}"
        status, _, answer = self.ask("GET", path, headers=self.live.header(account))
        assert status == 200, answer
        return [f"Authorization: Bearer {json.loads(answer)['token']}"]

    def scanned(self, digest: Digest) -> bool:
        """True once the judge has read a layer: what it found there is kept as derived objects."""
        folder = self.live.settings.store_folder / "derived" / digest.algorithm / digest.hex[:2] / digest.hex
        return folder.is_dir() and any(folder.iterdir())

    def drop(self, digest: Digest) -> None:
        """Remove a layer's file, and what was made of it."""
        store = self.live.settings.store_folder
        (store / keys.blob_key(digest)).unlink()
        shutil.rmtree(store / "derived" / digest.algorithm / digest.hex[:2] / digest.hex, ignore_errors=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The peer, three times over the same files."""

    open: Peer
    htpasswd: Peer
    token: Peer


@contextmanager
def peer() -> Iterator[Peer]:
    """The peer that is open to everybody, alone."""
    folder = Path(tempfile.mkdtemp(prefix="pratique-bench-peer-", dir="/var/tmp"))
    try:
        with _peer(folder, "open", {}, ()) as made:
            yield made
    finally:
        shutil.rmtree(folder)


@contextmanager
def peers() -> Iterator[Peers]:
    """The peer, running in a folder of its own."""
    folder = Path(tempfile.mkdtemp(prefix="pratique-bench-peer-", dir="/var/tmp"))
    (folder / "htpasswd").write_text(f"{_ACCOUNT}:{_BCRYPT}\n")
    secret = base64.b64encode(f"{_ACCOUNT}:{_PASSWORD}".encode()).decode()
    token = _token(folder / "issuer.pem")
    htpasswd = {"htpasswd": {"realm": "bench", "path": str(folder / "htpasswd")}}
    by_token = {"token": {"realm": "http://127.0.0.1/token", **_TOKEN_OF, "rootcertbundle": str(folder / "issuer.pem")}}
    try:
        with (
            _peer(folder, "open", {}, ()) as open_one,
            _peer(folder, "htpasswd", htpasswd, (f"Authorization: Basic {secret}",)) as basic,
            _peer(folder, "token", by_token, (f"Authorization: Bearer {token}",)) as bearer,
        ):
            yield Peers(open=open_one, htpasswd=basic, token=bearer)
    finally:
        shutil.rmtree(folder)


@contextmanager
def _peer(folder: Path, name: str, auth: dict[str, dict[str, str]], lines: tuple[str, ...]) -> Iterator[Peer]:
    port = free_port()
    config: dict[str, object] = {
        "version": "0.1",
        "log": {"level": "error", "accesslog": {"disabled": True}},
        "storage": {
            "cache": {"blobdescriptor": "inmemory"},
            "filesystem": {"rootdirectory": str(folder / "data")},
            "delete": {"enabled": True},
        },
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if auth:
        config["auth"] = auth
    settings, log = folder / f"{name}.yml", folder / f"{name}.log"
    settings.write_text(yaml.safe_dump(config))
    version = subprocess.run(["docker-registry", "--version"], capture_output=True, text=True, check=True)
    with log.open("wb") as output:
        process = subprocess.Popen(["docker-registry", "serve", str(settings)], stdout=output, stderr=output)
    try:
        wait_for_port(port, process, log)
        yield Peer(port=port, pid=process.pid, root=folder / "data", version=version.stdout.split()[-1], lines=lines)
    finally:
        end(process)


_ACCOUNT = "bench"
_PASSWORD = "of-the-benchmark"  # noqa: S105
_BCRYPT = "$2y$05$D0pbsh5j25YcIA4gwTJideHbXJTokhk5.LRGDFq5Zbahfe0zpiWG."
"""What `htpasswd -B` makes of it, at its least cost."""

_TOKEN_OF = {"service": "bench", "issuer": "bench"}


def _token(certificate: Path) -> str:
    """A token for REPOSITORY, as docker-registry 2.8 wants it: with the certificate of the key it is signed with."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(Encoding.PEM))
    claims = {
        "iss": "bench",
        "sub": _ACCOUNT,
        "aud": "bench",
        "iat": now,
        "nbf": now - timedelta(minutes=1),
        "exp": now + timedelta(hours=6),
        "jti": "1",
        "access": [{"type": "repository", "name": REPOSITORY, "actions": ["pull", "push"]}],
    }
    chain = [base64.b64encode(made.public_bytes(Encoding.DER)).decode()]
    return jwt.encode(claims, key, algorithm="ES256", headers={"x5c": chain})


@contextmanager
def ours(*, catalogue: str = "") -> Iterator[Ours]:
    """Ours, with trust, policy and revocation list, and one account a role; `catalogue` is another database's URL."""
    shipped = HttpSettings()
    http = {"threads": shipped.threads, "workers": shipped.workers}
    made = whole_registry(http=http, catalogue=catalogue) if catalogue else whole_registry(http=http)
    with made as live:
        live.publish()
        assert live.process is not None
        yield Ours(port=live.port, pid=live.process.pid, live=live)


def large_layer(size: int) -> bytearray:
    """A layer (an uncompressed tar) of one file of `size` random bytes, which begins at LARGE_OFFSET."""
    return bytearray(tar({"srv/": b"", "srv/random": os.urandom(size)}))


def sample_image(layer: bytes) -> BuiltImage:
    """An image fit for a base, of small layers and `layer`: its manifest is as long as most images' are."""
    first = {"etc/": b"", "bin/": b"", "bin/sh": b"#!", **os_release()}
    small = ({f"opt/{number}/": b"", f"opt/{number}/file": b"%d" % number} for number in range(5))
    return image([first, *small, layer], compression="none")


def clear(live: WholeRegistry, built: BuiltImage) -> None:
    """Have an image that was pushed approved, judged and cleared, so that its tag serves it."""
    live.approve(REPOSITORY, built, "base", live.ring.alice, live.ring.bob)
    live.until(REPOSITORY, TAG, "cleared")


def _fields(lines: Sequence[str]) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in lines)
