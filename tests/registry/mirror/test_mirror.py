"""Pull-through against a live upstream: what is asked for comes whole, or not at all, and stays."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from ocispec.access import Access, Credentials
from ocispec.remote import Remote
from registry.access import Role
from registry.audit import Audit
from registry.catalogue import schema
from registry.collect.leases import Leases
from registry.judge.queue import JudgeQueue
from registry.mirror.fetch import MAX_MANIFESTS, Fetcher
from registry.mirror.mirrors import Mirrors
from registry.mirror.process import Fetching
from registry.store.open import open_store
from tests.support.fakeregistry import Answer, FakeRegistry, Request
from tests.support.images import BuiltImage, image, index
from tests.support.registry import LiveRegistry, web_registry


@pytest.fixture
def upstream() -> Iterator[FakeRegistry]:
    with FakeRegistry(account=("reader", "s3cret")) as fake:
        yield fake


@pytest.fixture
def live(tmp_path: Path, upstream: FakeRegistry) -> Iterator[LiveRegistry]:
    secret = tmp_path / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(0o600)
    mirror = {
        "prefix": "hub/",
        "registry": upstream.host,
        "below": "library/",
        "scheme": "http",
        "account": "reader",
        "secret_file": str(secret),
        "refresh": 3600,
        "wait": 20,
    }
    with web_registry(tmp_path / "registry", mirrors=[mirror], limits={"blob_bytes": 1_000_000}) as running:
        yield running


@contextmanager
def fetching(live: LiveRegistry) -> Iterator[None]:
    """The fetching process, as a thread of the test."""
    settings, clock = live.settings, lambda: datetime.now(UTC).replace(microsecond=0)
    (mirror,) = settings.mirrors
    catalogue = live.catalogue()
    access = Access(credentials=Credentials(name="reader", secret="s3cret"), plain_http=True, attempts=1, timeout=10)
    stop = threading.Event()
    with Remote(mirror.registry, access) as remote:
        fetcher = Fetcher(
            store=open_store(settings),
            catalogue=catalogue,
            leases=Leases(catalogue, clock),
            audit=Audit(clock),
            judge=JudgeQueue(catalogue, settings.judge_socket, clock),
            limits=settings.limits,
            clock=clock,
        )
        work = Fetching(
            name="test",
            fetcher=fetcher,
            mirrors=Mirrors(settings.mirrors),
            remotes={mirror.prefix: remote},
            catalogue=catalogue,
            clock=clock,
        )
        thread = threading.Thread(target=work.run, args=(stop.is_set,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            catalogue.close()


def _age(live: LiveRegistry, reference: object, seconds: int) -> None:
    """Let a look-up be so many seconds old."""
    catalogue = live.catalogue()
    with catalogue.write() as conn:
        conn.execute(
            schema.mirrored.update()
            .where(schema.mirrored.c.reference == str(reference))
            .values(checked=datetime.now(UTC) - timedelta(seconds=seconds))
        )
    catalogue.close()


def test_first_pull_fetches_everything_into_quarantine(live: LiveRegistry, upstream: FakeRegistry) -> None:
    built = image([{"a": b"1"}, {"b": b"2"}])
    upstream.add(built, "library/app", "1")
    with fetching(live):
        answer = live.request("GET", "/v2/hub/app/manifests/1")
        assert (answer.status, answer.body) == (200, built.manifest.raw)
        for digest, content in built.blobs.items():
            assert live.request("GET", f"/v2/hub/app/blobs/{digest}").body == content
        denied = live.request("GET", "/v2/hub/app/manifests/1", account="host")
    assert denied.status == 403
    assert json.loads(denied.body)["errors"][0]["detail"]["state"] == "quarantined"
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        events = conn.execute(select(schema.audit).where(schema.audit.c.event.in_(["push", "tag"]))).all()
    catalogue.close()
    assert {(row.principal, row.source) for row in events} == {("mirror", upstream.host)}


def test_index_comes_with_all_its_children(live: LiveRegistry, upstream: FakeRegistry) -> None:
    built = index([image([{"a": b"1"}]), image([{"a": b"2"}], platform="linux/arm64")])
    upstream.add(built, "library/app", "multi")
    with fetching(live):
        assert live.request("GET", "/v2/hub/app/manifests/multi").body == built.index.raw
    for child in built.images:
        assert live.request("GET", f"/v2/hub/app/manifests/{child.digest}").body == child.manifest.raw


def test_what_is_there_is_served_while_the_upstream_is_away(live: LiveRegistry, upstream: FakeRegistry) -> None:
    built, unknown = image([{"a": b"1"}]), image([{"a": b"other"}])
    upstream.add(built, "library/app", "1")
    with fetching(live):
        assert live.request("GET", "/v2/hub/app/manifests/1").status == 200
        upstream.hook(lambda _request: Answer(503))
        _age(live, "1", 7200)
        for reference in ("1", built.digest):
            assert live.request("GET", f"/v2/hub/app/manifests/{reference}").body == built.manifest.raw
        answer = live.request("GET", f"/v2/hub/app/manifests/{unknown.digest}")
        assert answer.status == 503
        assert json.loads(answer.body)["errors"][0]["code"] == "UPSTREAM_UNAVAILABLE"
        upstream.unhook()
        upstream.add(unknown, "library/app", "2")
        _age(live, unknown.digest, 60)
        assert live.request("GET", f"/v2/hub/app/manifests/{unknown.digest}").status == 200


def test_tag_that_moved_upstream_moves_here_when_it_is_time(live: LiveRegistry, upstream: FakeRegistry) -> None:
    old, new = image([{"a": b"old"}]), image([{"a": b"new"}])
    upstream.add(old, "library/app", "latest")
    with fetching(live):
        assert live.request("GET", "/v2/hub/app/manifests/latest").body == old.manifest.raw
        upstream.add(new, "library/app", "latest")
        assert live.request("GET", "/v2/hub/app/manifests/latest").body == old.manifest.raw
        _age(live, "latest", 7200)
        live.request("GET", "/v2/hub/app/manifests/latest")
        _until(live, "latest", new)


def _until(live: LiveRegistry, tag: str, built: BuiltImage) -> None:
    for _ in range(200):
        if live.request("GET", f"/v2/hub/app/manifests/{tag}").body == built.manifest.raw:
            return
        threading.Event().wait(0.05)
    raise AssertionError(f"tag {tag} did not move")


def test_nothing_that_has_another_digest_is_taken(live: LiveRegistry, upstream: FakeRegistry) -> None:
    built = image([{"a": b"1"}])
    upstream.add(built, "library/app", "1")
    layer = built.manifest.layers[0].digest
    upstream.blobs["library/app", str(layer)] = b"x" * built.manifest.layers[0].size
    with fetching(live):
        answer = live.request("GET", "/v2/hub/app/manifests/1")
    assert answer.status == 503
    assert live.request("HEAD", f"/v2/hub/app/blobs/{layer}").status == 404
    assert live.request("GET", f"/v2/hub/app/manifests/{built.digest}", account="pusher").status == 503


def test_blob_larger_than_allowed_is_not_asked_for(live: LiveRegistry, upstream: FakeRegistry) -> None:
    built = image([{"a": b"1" * 1_500_000}], compression="none")
    upstream.add(built, "library/app", "1")
    with fetching(live):
        assert live.request("GET", "/v2/hub/app/manifests/1").status == 503
    layer = str(built.manifest.layers[0].digest)
    assert not [request for request in upstream.requests if layer in request.path]


def test_blob_of_another_repository_is_not_given_out_by_an_upstream_that_names_it(
    live: LiveRegistry, upstream: FakeRegistry
) -> None:
    """Who knows a digest and has an upstream does not get its bytes: they must come from there."""
    secret = b"of somebody else" * 100
    digest = live.push_blob("private/app", secret)
    built = image([{"a": b"1"}])
    document = json.loads(built.manifest.raw)
    document["layers"][0] |= {"digest": str(digest), "size": len(secret)}
    raw = json.dumps(document).encode()
    upstream.add(built, "library/app")
    upstream.put_manifest("library/app", raw, str(built.manifest.media_type), "steal")
    with fetching(live):
        assert live.request("GET", "/v2/hub/app/manifests/steal").status == 503
    assert live.request("HEAD", f"/v2/hub/app/blobs/{digest}").status == 404


def test_r9_secret_goes_to_no_other_host(live: LiveRegistry, upstream: FakeRegistry) -> None:
    built = image([{"a": b"1"}])
    upstream.add(built, "library/app", "1")
    with FakeRegistry() as elsewhere:
        elsewhere.add(built, "library/app")

        def redirect(request: Request) -> Answer | None:
            if "/blobs/" not in request.path:
                return None
            return Answer(307, headers={"Location": f"http://{elsewhere.host}{request.path}"})

        upstream.hook(redirect)
        with fetching(live):
            assert live.request("GET", "/v2/hub/app/manifests/1").status == 200
        assert elsewhere.requests
        assert not [request for request in elsewhere.requests if "authorization" in request.headers]
    assert any("authorization" in request.headers for request in upstream.requests)


def test_what_the_upstream_has_not_is_not_found_and_not_asked_for_again(
    live: LiveRegistry, upstream: FakeRegistry
) -> None:
    with fetching(live):
        assert [live.request("GET", "/v2/hub/app/manifests/none").status for _ in range(3)] == [404] * 3
    asked = [each for each in upstream.requests if each.path.endswith("/none")]
    assert len([each for each in asked if "authorization" in each.headers]) == 1


def test_many_at_once_fetch_once(live: LiveRegistry, upstream: FakeRegistry) -> None:
    built = image([{"a": b"1"}])
    upstream.add(built, "library/app", "1")
    with fetching(live), ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: live.request("GET", "/v2/hub/app/manifests/1").status, range(4)))
    assert answers == [200] * 4
    asked = [each for each in upstream.requests if each.path.endswith("/manifests/1")]
    assert len([each for each in asked if "authorization" in each.headers]) == 1


def test_index_that_leads_to_too_much_is_given_up(live: LiveRegistry, upstream: FakeRegistry) -> None:
    children = []
    for number in range(MAX_MANIFESTS + 1):
        child = image([], config={"author": str(number)})
        upstream.add(child, "library/app")
        children.append(child)
    built = index(children)
    upstream.put_manifest("library/app", built.index.raw, str(built.index.media_type), "wide")
    with fetching(live):
        assert live.request("GET", "/v2/hub/app/manifests/wide").status == 503


def test_nothing_is_pushed_to_a_copy(live: LiveRegistry) -> None:
    built = image([{"a": b"1"}])
    begun = live.request("POST", "/v2/hub/app/blobs/uploads/")
    put = live.put_manifest("hub/app", "1", built.manifest.raw, str(built.manifest.media_type))
    assert [begun.status, put.status] == [403, 403]
    assert live.request("POST", "/v2/other/app/blobs/uploads/").status == 202


def test_who_may_not_read_there_has_nothing_fetched(live: LiveRegistry, upstream: FakeRegistry) -> None:
    upstream.add(image([{"a": b"1"}]), "library/app", "1")
    live.account("narrow", Role.PUSHER, "other/*")
    with fetching(live):
        assert live.request("GET", "/v2/hub/app/manifests/1", account="narrow").status == 404
    assert upstream.requests == []
