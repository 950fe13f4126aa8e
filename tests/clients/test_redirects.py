"""Downloads that are redirected to the engine: real clients pull through them, and nobody's credentials go there."""

from __future__ import annotations

import itertools
import os
import time
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from ocispec.access import Access, Credentials
from ocispec.digest import Digest
from ocispec.remote import Remote
from registry import audit
from tests.clients.conftest import Desk
from tests.support.canary import Canary, canary
from tests.support.images import BuiltImage, image
from tests.support.registry import LiveRegistry, web_registry
from tests.support.s3 import bucket, members
from tests.support.swift import Swift
from tests.support.tools import need_root

SECONDS = 30

_numbers = itertools.count(1)


@pytest.fixture(scope="module", params=["moto", "swift"])
def engine(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """An engine's address, and the keys for it if any will not do."""
    found = request.getfixturevalue(request.param)
    if isinstance(found, Swift):
        return found.endpoint, {"access_key": found.access_key, "secret_key": found.secret_key}
    return str(found), {}


@pytest.fixture(scope="module")
def bird(engine: tuple[str, dict[str, Any]]) -> Iterator[Canary]:
    """What clients are redirected to: a relay to the engine."""
    with canary(engine[0]) as running:
        yield running


@pytest.fixture(scope="module")
def live(
    engine: tuple[str, dict[str, Any]], bird: Canary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveRegistry]:
    """A registry on the engine that redirects."""
    endpoint, keys = engine
    redirecting = {"redirects": SECONDS, "redirect_endpoint": bird.address}
    settings = bucket(endpoint, f"redirects-{uuid.uuid4().hex}", **keys | redirecting)
    with web_registry(tmp_path_factory.mktemp("registry"), storage=members(settings)) as running:
        yield running


@pytest.fixture
def built() -> BuiltImage:
    """An image whose second layer is larger than what anybody sends in one piece."""
    return image([{"a": os.urandom(1000)}, {"b": os.urandom(1_500_000)}], compression="none")


@pytest.fixture
def repository(live: LiveRegistry, bird: Canary, built: BuiltImage) -> Iterator[str]:
    """Where it was pushed to; afterwards, clients went to the engine, and none with anything but the address."""
    name = f"redirects/app-{next(_numbers)}"
    live.push(name, built, "v1")
    bird.seen.clear()
    yield name
    assert bird.seen
    for seen in bird.seen:
        assert seen.status in {200, 206}, seen
        for header in ("Authorization", "Cookie", "X-Amz-Security-Token"):
            assert header not in seen.headers, seen


def test_skopeo_pulls_through_redirects(desk: Desk, live: LiveRegistry, repository: str, built: BuiltImage) -> None:
    source = f"docker://{live.address}/{repository}:v1"
    desk.run("skopeo", "copy", "--src-tls-verify=false", "--preserve-digests", source, f"dir:{desk.folder / 'out'}")
    for digest, content in built.blobs.items():
        assert (desk.folder / "out" / digest.hex).read_bytes() == content


@pytest.mark.root
def test_podman_pulls_through_redirects(desk: Desk, live: LiveRegistry, repository: str, built: BuiltImage) -> None:
    need_root()
    storage = ("--root", desk.folder / "storage", "--runroot", desk.folder / "runroot", "--storage-driver", "vfs")
    options = (*storage, "--tmpdir", desk.folder / "podman", "--cgroup-manager", "cgroupfs")
    pulled = desk.run("podman", *options, "pull", "-q", "--tls-verify=false", f"{live.address}/{repository}:v1")
    assert pulled.strip() == built.config.digest.hex


def test_oras_pulls_through_redirects(desk: Desk, live: LiveRegistry, repository: str, built: BuiltImage) -> None:
    source = f"{live.address}/{repository}:v1"
    desk.run("oras", "copy", "--from-plain-http", source, "--to-oci-layout", "layout:v1")
    for digest, content in built.blobs.items():
        assert (desk.folder / "layout/blobs/sha256" / digest.hex).read_bytes() == content


def test_r9_our_own_client_pulls_through_redirects_and_sends_nothing_there(
    live: LiveRegistry, repository: str, built: BuiltImage
) -> None:
    # The same host name as the engine's: another port is another host all the same.
    credentials = Credentials(name="pusher", secret=live.secrets["pusher"])
    access = Access(credentials=credentials, plain_http=True, token_hosts=(live.address,))
    with Remote(f"localhost:{live.port}", access) as remote:
        for layer in built.layers:
            with remote.open_blob(repository, layer.descriptor) as stream:
                assert stream.read() == layer.blob


def test_a_redirect_is_for_who_may_read_for_seconds_and_is_recorded(
    live: LiveRegistry, bird: Canary, repository: str, built: BuiltImage
) -> None:
    layer = built.layers[1]
    path = f"/v2/{repository}/blobs/{layer.descriptor.digest}"
    answer = live.request("GET", path, account="auditor")
    assert (answer.status, answer.body, answer.headers["cache-control"]) == (307, b"", "no-store")
    address = urlsplit(answer.headers["location"])
    assert f"http://{address.netloc}" == bird.address
    assert parse_qs(address.query)["X-Amz-Expires"] == [str(SECONDS)]
    assert all(secret not in answer.headers["location"] for secret in live.secrets.values())
    assert _get(address.netloc, f"{address.path}?{address.query}", "bytes=1000000-1000099") == (
        206,
        layer.blob[1_000_000:1_000_100],
    )
    # Access control stays in front, and so does what needs no body.
    assert live.request("GET", path, account=None).status == 401
    assert live.request("GET", path, account="host").status == 403
    assert live.request("GET", path.replace(repository, "redirects/none")).status == 404
    head = live.request("HEAD", path)
    assert (head.status, head.headers["content-length"]) == (200, str(layer.descriptor.size))
    assert live.request("GET", path, If_None_Match=head.headers["etag"]).status == 304
    assert _recorded(live, f"{repository}@{layer.descriptor.digest}") == ("auditor", "blob, by redirect")


def test_an_address_is_good_for_its_blob_alone(
    live: LiveRegistry, engine: tuple[str, dict[str, Any]], repository: str, built: BuiltImage
) -> None:
    first, second = (layer.descriptor.digest for layer in built.layers)
    location = live.request("GET", f"/v2/{repository}/blobs/{first}").headers["location"]
    address = urlsplit(location)
    status, body = _get(address.netloc, f"{address.path}?{address.query}")
    assert (status, Digest.of(body)) == (200, first)
    if engine[1]:  # moto accepts every signature
        connection = HTTPConnection(urlsplit(engine[0]).netloc, timeout=30)
        connection.request("GET", f"{address.path}?{address.query}".replace(first.hex, second.hex))
        assert connection.getresponse().status == 403
        connection.close()


def _get(host: str, target: str, wanted: str | None = None) -> tuple[int, bytes]:
    connection = HTTPConnection(host, timeout=30)
    try:
        connection.request("GET", target, headers={"Range": wanted} if wanted is not None else {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _recorded(live: LiveRegistry, subject: str) -> tuple[str, str]:
    """Who read it, and how, once the audit has it."""
    deadline = time.monotonic() + 20
    catalogue = live.catalogue()
    try:
        while time.monotonic() < deadline:
            with catalogue.read() as conn:
                records = audit.read(conn, after=0, limit=100_000)
            for record in records:
                if record.event == audit.Event.READ and record.subject == subject:
                    return record.principal, record.after
            time.sleep(0.1)
    finally:
        catalogue.close()
    raise AssertionError(f"no record of a read of {subject}")
