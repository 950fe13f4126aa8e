"""Answers that are given again: the same as the application's, and never once anything has changed."""

from __future__ import annotations

import base64
import io
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, select, update
from werkzeug.wsgi import ClosingIterator

from ocispec.digest import Digest
from policy.model import State
from registry import again
from registry.access import Role
from registry.again import Answers
from registry.app import create_app
from registry.authenticate import new_secret
from registry.catalogue.accounts import Account, add_account, remove_account
from registry.catalogue.blobs import remove_blob
from registry.catalogue.database import Catalogue
from registry.catalogue.schema import audit, images, tags
from registry.catalogue.tags import remove_tag
from registry.context import Context, context_of
from registry.identity.basic import hash_secret
from registry.judge.queue import JudgeQueue
from registry.store.files import FilesStore
from registry.telemetry.environ import ACCOUNT, ENDPOINT, REQUEST, SOURCE
from registry.web import joined
from tests.support.identity import ended_identities, grants, identity, settings
from tests.support.images import BuiltImage, image
from tests.support.registry import LiveRegistry, web_registry

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["ended_identities"]  # a fixture of every test here

ON_SQLITE = pytest.mark.parametrize("database", ["sqlite"], indirect=True)
"""Of tests in which it matters little which database it is."""

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REPOSITORY = "team/app"
BY_TAG = f"/v2/{REPOSITORY}/manifests/v1"


@dataclass
class Site:
    """The application with `Answers` around it; `asked` counts what it was asked itself."""

    catalogue: Catalogue
    folder: Path
    members: dict[str, object] = field(default_factory=dict)
    asked: int = 0
    now: datetime = NOW
    seconds: float = 0.0
    secrets: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        made = settings(**self.members)
        store = FilesStore(self.folder / "store")
        self.app = create_app(
            made,
            store=store,
            catalogue=self.catalogue,
            identity=identity(self.catalogue, lambda: self.now, **self.members),
            judge=JudgeQueue(self.catalogue, self.folder / "no.sock", lambda: self.now),
            clock=lambda: self.now,
        )
        inner = joined(self.app)

        def counted(environ: WSGIEnvironment, start: StartResponse) -> object:
            self.asked += 1
            return inner(environ, start)

        self.answers = Answers(counted, self.parts, monotonic=lambda: self.seconds)  # type: ignore[arg-type]  # ours is one

    @property
    def parts(self) -> Context:
        """What the handlers are given."""
        return context_of(self.app)

    def account(self, name: str, role: Role, expires: datetime | None = None) -> None:
        """Make an account."""
        self.secrets[name] = new_secret()
        made = Account(
            name=name,
            role=role,
            grants=grants("*"),
            secret=hash_secret(self.secrets[name]),
            created=NOW,
            created_by="test",
            expires=expires,
        )
        with self.catalogue.write() as conn:
            add_account(conn, made)

    def push(self, built: BuiltImage, tag: str = "v1") -> None:
        """Push an image, as the pusher."""
        client = self.app.test_client()
        auth = ("pusher", self.secrets["pusher"])
        for digest, content in built.blobs.items():
            path = f"/v2/{REPOSITORY}/blobs/uploads/?digest={digest}"
            assert client.post(path, data=content, auth=auth).status_code == 201
        path, kind = f"/v2/{REPOSITORY}/manifests/{tag}", built.manifest.media_type
        assert client.put(path, data=built.manifest.raw, auth=auth, content_type=kind).status_code == 201

    def ask(
        self, path: str = BY_TAG, *, account: str = "pusher", method: str = "GET", query: str = "", **headers: str
    ) -> tuple[str, dict[str, str], bytes]:
        """One request, as the server makes it."""
        encoded = base64.b64encode(f"{account}:{self.secrets[account]}".encode()).decode()
        environ: WSGIEnvironment = {
            "GATEWAY_INTERFACE": "CGI/1.1",
            "SCRIPT_NAME": "",
            "SERVER_SOFTWARE": "Granian",
            "wsgi.errors": io.StringIO(),
            "wsgi.input_terminated": True,
            "wsgi.multiprocess": False,
            "wsgi.multithread": True,
            "wsgi.run_once": False,
            "wsgi.version": (1, 0),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "5000",
            "REMOTE_ADDR": "127.0.0.1",
            "REQUEST_METHOD": method,
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(),
            "HTTP_HOST": "registry.test",
            "HTTP_AUTHORIZATION": f"Basic {encoded}",
            SOURCE: "192.0.2.1",
            REQUEST: "of-the-test",
            **headers,
        }
        said: list[tuple[str, list[tuple[str, str]]]] = []
        answer = self.answers(environ, lambda status, found, _=None: said.append((status, found)))  # type: ignore[arg-type]
        body = b"".join(answer)
        if isinstance(answer, ClosingIterator):
            answer.close()
        self.environ = environ
        return said[-1][0], dict(said[-1][1]), body


@pytest.fixture
def made(catalogue: Catalogue, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    """Makes sites on each kind of database, with a pusher, a host, and an image that both may have."""
    sites: list[Site] = []

    def make(**members: object) -> Site:
        site = Site(catalogue, tmp_path, members)
        site.account("pusher", Role.PUSHER)
        site.account("host", Role.HOST)
        site.push(IMAGE)
        _clear(catalogue, IMAGE.digest)
        sites.append(site)
        return site

    yield make
    for site in sites:
        site.parts.reads.flush()


@pytest.fixture
def site(made: Callable[..., Site]) -> Site:
    """A site with the settings as they are shipped."""
    return made()


IMAGE = image([{"etc/": b"", "etc/first": b"1"}])
OTHER = image([{"etc/": b"", "etc/second": b"2"}])
BLOB = IMAGE.layers[0].descriptor.digest
CONFIG = IMAGE.manifest.config.digest


def _clear(catalogue: Catalogue, digest: Digest, state: State = State.CLEARED, tag: str = "v1") -> None:
    with catalogue.write() as conn:
        conn.execute(update(images).where(images.c.digest == digest).values(state=str(state), reason="test"))
        conn.execute(update(tags).where(tags.c.tag == tag).values(served=digest))


@ON_SQLITE
@pytest.mark.parametrize("account", ["pusher", "host"])
@pytest.mark.parametrize(
    ("method", "path", "endpoint", "reads"),
    [
        ("GET", BY_TAG, "manifests.get_manifest", 3),
        ("HEAD", BY_TAG, "manifests.get_manifest", 0),
        ("GET", f"/v2/{REPOSITORY}/manifests/{IMAGE.digest}", "manifests.get_manifest", 3),
        ("HEAD", f"/v2/{REPOSITORY}/blobs/{BLOB}", "blobs.get_blob", 0),
        ("GET", f"/v2/{REPOSITORY}/blobs/{CONFIG}", "blobs.get_blob", 3),
    ],
)
def test_the_application_is_asked_once(
    site: Site, account: str, method: str, path: str, endpoint: str, reads: int
) -> None:
    first = site.ask(path, account=account, method=method)
    assert first[0] == "200 OK"
    for _ in range(2):
        assert site.ask(path, account=account, method=method) == first
        assert site.environ[ACCOUNT], site.environ[ENDPOINT] == (account, endpoint)
    assert site.asked == 1
    assert site.parts.reads.waiting() == reads
    # Writing the reads down changes nothing that was read.
    site.parts.reads.flush()
    with site.catalogue.read() as conn:
        assert conn.scalar(select(func.count()).where(audit.c.event == "read", audit.c.principal == account)) == reads
    assert site.ask(path, account=account, method=method) == first


@ON_SQLITE
@pytest.mark.parametrize(
    "header",
    [
        {"HTTP_IF_NONE_MATCH": f'"{IMAGE.digest}"'},
        {"HTTP_IF_MATCH": "*"},
        {"HTTP_RANGE": "bytes=0-3"},
        {"HTTP_CONTENT_ENCODING": "gzip"},
        {"HTTP_X_ANYTHING": "else"},
        {"CONTENT_LENGTH": "3"},
        {"query": "n=1"},
    ],
    ids=lambda header: next(iter(header)),
)
def test_a_request_that_differs_is_the_applications(site: Site, header: dict[str, str]) -> None:
    site.ask()
    site.ask(**header)
    assert site.asked == 2


@ON_SQLITE
def test_what_one_is_given_is_not_anothers(site: Site) -> None:
    site.push(OTHER)
    assert site.ask()[1]["Docker-Content-Digest"] == str(OTHER.digest)
    assert site.ask(account="host")[1]["Docker-Content-Digest"] == str(IMAGE.digest)
    assert site.ask(account="pusher")[1]["Docker-Content-Digest"] == str(OTHER.digest)
    site.secrets["host"] += "x"
    assert site.ask(account="host")[0].startswith("401")


def _moved(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        conn.execute(update(tags).values(served=OTHER.digest, pushed=OTHER.digest))


def _revoked(catalogue: Catalogue) -> None:
    _clear(catalogue, IMAGE.digest, State.REVOKED)


def _removed(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        remove_account(conn, "host")


def _untagged(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        remove_tag(conn, REPOSITORY, "v1")


def _blob_gone(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        remove_blob(conn, REPOSITORY, BLOB)


@pytest.mark.parametrize(
    ("change", "path", "method", "after"),
    [
        (_moved, BY_TAG, "GET", "200"),
        (_revoked, BY_TAG, "GET", "403"),
        (_revoked, f"/v2/{REPOSITORY}/blobs/{BLOB}", "HEAD", "403"),
        (_removed, BY_TAG, "GET", "401"),
        (_untagged, BY_TAG, "GET", "404"),
        (_blob_gone, f"/v2/{REPOSITORY}/blobs/{BLOB}", "HEAD", "404"),
    ],
)
def test_a_change_by_another_process_ends_it(
    site: Site, database: str, change: Callable[[Catalogue], None], path: str, method: str, after: str
) -> None:
    site.push(OTHER, tag="v2")
    _clear(site.catalogue, OTHER.digest, tag="v2")
    before = site.ask(path, account="host", method=method)
    assert site.ask(path, account="host", method=method) == before
    assert site.asked == 1
    with closing(Catalogue(database, connections=1)) as elsewhere:
        change(elsewhere)
    now = site.ask(path, account="host", method=method)
    assert now[0].startswith(after)
    assert now != before


@ON_SQLITE
def test_the_time_ends_it(site: Site) -> None:
    site.ask()
    site.seconds += again.KEEP_SECONDS - 0.1
    site.ask()
    assert site.asked == 1
    site.seconds += 0.2
    site.ask()
    assert site.asked == 2


@ON_SQLITE
def test_it_ends_with_the_credentials(site: Site) -> None:
    site.account("guest", Role.PUSHER, expires=NOW + timedelta(seconds=2))
    assert site.ask(account="guest")[0] == "200 OK"
    site.seconds += 1.9
    assert site.ask(account="guest")[0] == "200 OK"
    assert site.asked == 1
    site.now, site.seconds = NOW + timedelta(seconds=2), site.seconds + 0.1
    site.ask(account="guest")
    assert site.asked == 2


@ON_SQLITE
def test_nothing_is_given_again_while_the_catalogue_fails(site: Site) -> None:
    assert site.ask()[0] == "200 OK"
    with site.catalogue.write(stamped=False) as conn:
        conn.exec_driver_sql("ALTER TABLE generations RENAME TO away")
    assert site.ask()[0].startswith("503")
    with site.catalogue.write(stamped=False) as conn:
        conn.exec_driver_sql("ALTER TABLE away RENAME TO generations")
    assert site.ask()[0] == "200 OK"


@ON_SQLITE
def test_rates_count_what_is_given_again(made: Callable[..., Site]) -> None:
    site = made(rates={"account_reads": 2, "burst": 1})
    assert [site.ask()[0][:3] for _ in range(4)] == ["200", "200", "429", "429"]


@ON_SQLITE
def test_what_is_kept_is_bounded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(again, "MAX_KEPT", 3)
    paths = [f"/v2/{REPOSITORY}/blobs/{digest}" for digest in IMAGE.blobs]
    for path in (*paths, BY_TAG, f"/v2/{REPOSITORY}/manifests/{IMAGE.digest}"):
        for account in ("pusher", "host"):
            site.ask(path, account=account)
            assert len(site.answers._kept) <= 3
    monkeypatch.setattr(again, "MAX_BYTES", len(IMAGE.manifest.raw))
    for account in ("pusher", "host", "pusher"):
        site.ask(account=account)
        assert sum(len(kept.body) for kept in site.answers._kept.values()) <= len(IMAGE.manifest.raw)


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """Two web processes."""
    with web_registry(tmp_path_factory.mktemp("registry"), http={"workers": 2}) as running:
        yield running


@ON_SQLITE
def test_readers_of_two_processes_never_see_a_tag_go_back(live: LiveRegistry) -> None:
    versions = [image([{"etc/": b"", "etc/version": b"%d" % number}]) for number in range(40)]
    numbers = {str(built.digest): number for number, built in enumerate(versions)}
    for built in versions:
        live.push("team/moving", built, built.digest)
    acknowledged, over, wrong, asked = 0, threading.Event(), [], []
    live.push("team/moving", versions[0], "v")

    def look() -> None:
        connection = HTTPConnection("127.0.0.1", live.port, timeout=60)
        while not over.is_set():
            at_least = acknowledged
            connection.request("GET", "/v2/team/moving/manifests/v", headers=live.header("pusher"))
            answer = connection.getresponse()
            found = numbers[str(answer.headers["Docker-Content-Digest"])]
            answer.read()
            asked.append(found)
            if found < at_least:
                wrong.append((found, at_least))
        connection.close()

    readers = [threading.Thread(target=look) for _ in range(4)]
    for reader in readers:
        reader.start()
    try:
        for number, built in enumerate(versions):
            manifest = built.manifest
            answer = live.put_manifest("team/moving", "v", manifest.raw, manifest.media_type)
            assert answer.status == 201
            acknowledged = number
            target = len(asked) + 8
            while len(asked) < target:
                over.wait(0.001)
    finally:
        over.set()
        for reader in readers:
            reader.join()
    assert not wrong
    assert max(asked) == len(versions) - 1
