"""Three registries on one PostgreSQL and one bucket, behind whatever shares requests out among them."""

from __future__ import annotations

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.client import HTTPException

import pytest
from sqlalchemy import func, select

from ocispec.digest import Digest
from policy.statements import TagStatement
from registry.catalogue.schema import repository_blobs, tags
from registry.store.open import open_store
from tests.support.fleet import fleet, kill
from tests.support.images import BuiltImage, image
from tests.support.live import WholeRegistry, now
from tests.support.packages import os_release
from tests.support.postgres import Postgres, postgres
from tests.support.registry import Answer
from tests.support.s3 import s3_server

REPOSITORY = "team/base"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as made:
        yield made


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with s3_server(tmp_path_factory.mktemp("s3")) as made:
        yield made


@pytest.fixture(scope="module")
def lives(server: Postgres, endpoint: str) -> Iterator[list[WholeRegistry]]:
    with fleet(server, endpoint) as made:
        made[0].publish()
        yield made


def _chunk(live: WholeRegistry, method: str, location: str, body: bytes = b"") -> Answer:
    answer = live.request(method, location, body=body)
    assert answer.status in {201, 202}, answer
    return answer


def _image(text: str) -> BuiltImage:
    return image([{**os_release(), "text": text}])


def test_upload_begun_on_one_is_continued_on_another(lives: list[WholeRegistry]) -> None:
    """Chunks of uneven sizes, each to the next registry; more than a part of S3 in all."""
    chance = random.Random(1)
    content = chance.randbytes(7 * 2**20 + 12345)
    ways = itertools.cycle(lives)
    location = _chunk(next(ways), "POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]
    sent = 0
    while sent < len(content):
        size = chance.choice([1, 1000, 2**20, 3 * 2**20])
        location = _chunk(next(ways), "PATCH", location, content[sent : sent + size]).headers["location"]
        sent = min(sent + size, len(content))
        status = next(ways).request("GET", location)
        assert (status.status, status.headers["range"]) == (204, f"0-{sent - 1}")
    digest = Digest.of(content)
    _chunk(next(ways), "PUT", f"{location}?digest={digest}")
    for live in lives:
        assert live.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}").body == content


def test_tag_moved_on_one_is_seen_on_all_at_once(lives: list[WholeRegistry]) -> None:
    first, second, third = lives
    for number in range(10):
        built = _image(f"version {number}")
        first.push("team/moved", built, "latest")
        for live in (second, third, first):
            answer = live.request("HEAD", "/v2/team/moved/manifests/latest")
            assert answer.headers["docker-content-digest"] == str(built.digest)


def test_cleared_on_one_is_served_by_all_with_one_number(lives: list[WholeRegistry]) -> None:
    """Whichever registry's judge and signer did it: the statements' numbers are counted together."""
    numbers = []
    for number, live in enumerate(itertools.islice(itertools.cycle(lives), 6)):
        built = _image(f"release {number}")
        live.push(REPOSITORY, built, "served")
        lives[(number + 1) % 3].approve(REPOSITORY, built, "base", live.ring.alice, live.ring.bob)
        live.until(REPOSITORY, built.digest, "cleared")
        for each in lives:
            assert each.request("GET", f"/v2/{REPOSITORY}/manifests/served", account="host").body == built.manifest.raw
        numbers.append(_number(live, REPOSITORY, "served"))
    assert numbers == list(range(numbers[0], numbers[0] + 6))


def _number(live: WholeRegistry, repository: str, tag: str) -> int:
    status, found = live.api("GET", f"/api/v1/tags/{tag}/{repository}")
    assert status == 200
    assert isinstance(found, dict)
    envelope = json.dumps(found["statement"]).encode()
    return live.ring.trust.verify(envelope, TagStatement, now()).statement.number


def test_revoked_on_one_is_refused_by_all(lives: list[WholeRegistry]) -> None:
    built = _image("to be revoked")
    lives[0].push(REPOSITORY, built, "bad")
    lives[1].approve(REPOSITORY, built, "base", lives[0].ring.alice, lives[0].ring.bob)
    lives[2].until(REPOSITORY, built.digest, "cleared")
    lives[2].revoke(2, digests=(built.digest,))
    lives[0].until(REPOSITORY, built.digest, "revoked")
    for live in lives:
        answer = live.request("GET", f"/v2/{REPOSITORY}/manifests/{built.digest}", account="host")
        assert answer.status == 403


def test_token_of_one_counts_for_all_until_it_is_withdrawn_on_another(lives: list[WholeRegistry]) -> None:
    """Each has keys of its own; what is published of them, and what ends, is in the catalogue that they share."""
    path = "/token?scope=repository:team/tokens:pull,push"
    tokens = [json.loads(live.request("GET", path).body)["token"] for live in lives]

    def answers() -> Counter[int]:
        return Counter(
            live.request("GET", "/v2/team/tokens/tags/list", account=None, Authorization=f"Bearer {token}").status
            for live in lives
            for token in tokens
        )

    assert answers() == {404: 9}  # they may look, and nothing is there
    assert lives[1].api("DELETE", "/api/v1/token-keys", account="admin")[0] == 204
    _wait(lambda: answers() == {401: 9}, seconds=10)


def test_concurrent_pushes_of_one_tag_end_with_one_winner_and_no_orphan(lives: list[WholeRegistry]) -> None:
    built = [_image(f"contender {number}") for number in range(12)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(
            pool.map(lambda pair: lives[pair[0] % 3].push("team/raced", pair[1], "latest"), enumerate(built))
        )
    assert Counter(answer.status for answer in answers) == {201: 12}
    winners = {live.request("GET", "/v2/team/raced/manifests/latest").body for live in lives}
    assert len(winners) == 1
    assert winners < {each.manifest.raw for each in built}
    for each in built:  # whoever lost is there by its digest, whole
        for live in lives:
            assert live.request("GET", f"/v2/team/raced/manifests/{each.digest}").status == 200
    _check_whole(lives[0], "team/raced")


def _check_whole(live: WholeRegistry, repository: str) -> None:
    """Every blob that the catalogue has is in the store with its digest, and one row names each tag."""
    catalogue = live.catalogue()
    store = open_store(live.settings)
    with catalogue.read() as conn:
        digests = conn.scalars(select(repository_blobs.c.digest).where(repository_blobs.c.repository == repository))
        for digest in digests:
            with store.open(digest) as stream:
                assert Digest.of(stream.read()) == digest
        rows = conn.scalar(select(func.count()).select_from(tags).where(tags.c.repository == repository))
    assert rows == 1
    catalogue.close()


@dataclass(slots=True)
class Client:
    """Pushes images through whichever registry answers, as behind a load balancer; remembers what was acknowledged."""

    lives: list[WholeRegistry]
    number: int
    stop: threading.Event
    pushed: list[BuiltImage] = field(default_factory=list)
    blobs: set[Digest] = field(default_factory=set)
    failures: int = 0

    def run(self) -> None:
        chance = random.Random(self.number)
        for count in itertools.count():
            if self.stop.is_set():
                return
            built = image(
                [{"content": chance.randbytes(chance.choice([100, 200_000])), "count": f"{self.number} {count}"}]
            )
            try:
                self._push(built, chance)
            except (OSError, HTTPException, AssertionError):
                self.failures += 1

    def _push(self, built: BuiltImage, chance: random.Random) -> None:
        for digest, content in built.blobs.items():
            location = _chunk(self._any(chance), "POST", "/v2/team/chaos/blobs/uploads/").headers["location"]
            location = _chunk(self._any(chance), "PATCH", location, content).headers["location"]
            _chunk(self._any(chance), "PUT", f"{location}?digest={digest}")
            self.blobs.add(digest)
        live = self._any(chance)
        media_type = built.manifest.media_type
        answer = live.put_manifest("team/chaos", f"client-{self.number}", built.manifest.raw, media_type)
        assert answer.status == 201, answer
        self.pushed.append(built)

    def _any(self, chance: random.Random) -> WholeRegistry:
        return chance.choice(self.lives)


def test_one_killed_under_load_loses_nothing_acknowledged(server: Postgres, endpoint: str) -> None:
    with fleet(server, endpoint) as lives:
        lives[0].publish()
        stop = threading.Event()
        clients = [Client(lives, number, stop) for number in range(4)]
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(client.run) for client in clients]
            _wait(lambda: all(client.pushed for client in clients))
            kill(lives[0])  # the one that everything began with
            before = [len(client.pushed) for client in clients]
            _wait(lambda: all(len(c.pushed) > count + 1 for c, count in zip(clients, before, strict=True)))
            stop.set()
            for each in running:
                each.result()
        assert sum(client.failures for client in clients) > 0
        survivors = lives[1:]
        for client in clients:
            for live in survivors:
                _check_client(live, client)
        # What the killed one was at work on is done by the others.
        last = clients[0].pushed[-1]
        survivors[0].approve("team/chaos", last, "base", lives[0].ring.alice, lives[0].ring.bob)
        survivors[1].until("team/chaos", last.digest, "cleared", seconds=90)
        lives[0].start()
        _check_client(lives[0], clients[0])


def _check_client(live: WholeRegistry, client: Client) -> None:
    for built in client.pushed:
        assert live.request("GET", f"/v2/team/chaos/manifests/{built.digest}").body == built.manifest.raw
    for digest in client.blobs:
        assert Digest.of(live.request("GET", f"/v2/team/chaos/blobs/{digest}").body) == digest
    tag = live.request("GET", f"/v2/team/chaos/manifests/client-{client.number}")
    assert Digest.of(tag.body) == client.pushed[-1].digest


def _wait(what: Callable[[], bool], *, seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)
