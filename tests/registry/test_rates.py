"""Requests a second: the buckets under a clock that is set, and a running registry that counts."""

from __future__ import annotations

import io
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from werkzeug.test import create_environ, run_wsgi_app

from registry.access import Role
from registry.app import open_app, utc_now
from registry.audit import read
from registry.catalogue.accounts import ANONYMOUS
from registry.context import context_of
from registry.errors import TooManyRequestsError
from registry.prepare import prepare
from registry.rates import MAX_KEPT, Buckets, Rates
from registry.settings import parse
from registry.settings_rates import RATES, RateSettings
from tests.support.registry import Answer, LiveRegistry, web_registry


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def taken(buckets: Buckets, key: str, tries: int) -> int:
    """How many of so many requests at once are let through."""
    return sum(buckets.take(key) == 0.0 for _ in range(tries))


@pytest.mark.parametrize(("rate", "burst"), [(1, 1), (1, 10), (7, 3), (100, 1), (1000, 10)])
def test_so_many_at_once_and_then_so_many_a_second(rate: int, burst: int) -> None:
    clock = Clock()
    buckets = Buckets(rate, burst, clock)
    assert taken(buckets, "a", rate * burst + 50) == rate * burst
    clock.now += 1
    assert taken(buckets, "a", 2 * rate) == rate
    clock.now += 3600
    assert taken(buckets, "a", rate * burst + 50) == rate * burst


@pytest.mark.parametrize("steps", [3, 10, 1000])
def test_a_client_that_asks_evenly_gets_its_rate_and_no_more(steps: int) -> None:
    clock = Clock()
    buckets = Buckets(10, 2, clock)
    through = 0
    for _ in range(100 * steps):
        clock.now += 1 / steps
        through += taken(buckets, "a", 1)
    assert abs(through - min(100 * steps, 100 * 10 + 20)) <= 1


def test_who_is_told_to_wait_gets_through_after_that_and_not_before() -> None:
    clock = Clock()
    buckets = Buckets(3, 2, clock)
    taken(buckets, "a", 6)
    wait = buckets.take("a")
    assert wait == pytest.approx(1 / 3)
    clock.now += wait * 0.9
    assert buckets.take("a") > 0
    clock.now += wait * 0.1 + 1e-6
    assert buckets.take("a") == 0


def test_what_is_refused_costs_nothing() -> None:
    """Who goes on asking is not kept out the longer for it."""
    clock = Clock()
    buckets = Buckets(1, 1, clock)
    assert taken(buckets, "a", 1000) == 1
    clock.now += 1
    assert taken(buckets, "a", 1) == 1


def test_one_does_not_use_what_is_anothers() -> None:
    buckets = Buckets(1, 1, Clock())
    assert taken(buckets, "a", 5) == 1
    assert taken(buckets, "b", 5) == 1


def test_memory_is_bounded_and_those_who_used_most_are_kept() -> None:
    clock = Clock()
    buckets = Buckets(1, 10, clock)
    assert taken(buckets, "greedy", 20) == 10
    for number in range(3 * MAX_KEPT):
        buckets.take(f"other-{number}")
    assert len(buckets) <= MAX_KEPT
    assert taken(buckets, "greedy", 1) == 0
    clock.now += 60
    for number in range(MAX_KEPT):
        buckets.take(f"later-{number}")
    assert len(buckets) <= MAX_KEPT


def test_many_threads_never_take_more_than_there_is() -> None:
    buckets = Buckets(50, 10, Clock())
    through: list[int] = []
    start = threading.Barrier(8)

    def ask() -> None:
        start.wait(30)
        through.append(taken(buckets, "a", 500))

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(through) == 500


def test_each_kind_has_buckets_of_its_own() -> None:
    clock = Clock()
    rates = Rates(RateSettings(account_reads=1, account_writes=1, address=2, unknown=1, burst=1), clock)
    rates.account("a", "192.0.2.1", reads=True)
    rates.account("a", "192.0.2.1", reads=False)
    rates.unknown("192.0.2.1")
    rates.address("192.0.2.1")
    rates.address("192.0.2.1")
    used: tuple[Callable[[], None], ...] = (
        lambda: rates.account("a", "192.0.2.1", reads=True),
        lambda: rates.account("a", "192.0.2.1", reads=False),
        lambda: rates.unknown("192.0.2.1"),
        lambda: rates.address("192.0.2.1"),
    )
    for again in used:
        with pytest.raises(TooManyRequestsError) as refused:
            again()
        assert refused.value.retry_after >= 1
    rates.account("b", "192.0.2.1", reads=True)
    rates.address("192.0.2.2")


def test_who_sends_a_body_is_refused_later_than_who_can_ask_again() -> None:
    clock = Clock()
    rates = Rates(RateSettings(account_writes=1, burst=5), clock)
    for _ in range(5):
        rates.account("a", "192.0.2.1", reads=False)
    with pytest.raises(TooManyRequestsError):
        rates.account("a", "192.0.2.1", reads=False)
    for _ in range(5):
        rates.account("a", "192.0.2.1", reads=False, body=True)
    for body in (True, False):
        with pytest.raises(TooManyRequestsError):
            rates.account("a", "192.0.2.1", reads=False, body=body)
    clock.now += 1
    rates.account("a", "192.0.2.1", reads=False, body=True)


def test_whoever_is_nobody_in_particular_is_counted_by_address() -> None:
    """One of them would use up what is everybody's."""
    rates = Rates(RateSettings(account_reads=1, burst=1), Clock())
    rates.account(ANONYMOUS, "192.0.2.1", reads=True)
    with pytest.raises(TooManyRequestsError, match=r"account anonymous at 192\.0\.2\.1"):
        rates.account(ANONYMOUS, "192.0.2.1", reads=True)
    rates.account(ANONYMOUS, "192.0.2.2", reads=True)
    rates.account("ci", "192.0.2.1", reads=True)
    with pytest.raises(TooManyRequestsError):
        rates.account("ci", "192.0.2.2", reads=True)


def test_one_customer_of_ipv6_is_one_address() -> None:
    rates = Rates(RateSettings(address=1, burst=1), Clock())
    rates.address("2001:db8:1:1::1")
    with pytest.raises(TooManyRequestsError, match=r"2001:db8:1:1::/64"):
        rates.address("2001:db8:1:1:ffff::2")
    rates.address("2001:db8:1:2::1")
    rates.address("::ffff:192.0.2.1")
    with pytest.raises(TooManyRequestsError):
        rates.address("192.0.2.1")


def test_nothing_is_counted_where_the_setting_is_0() -> None:
    rates = Rates(RateSettings(account_reads=0, account_writes=0, address=0, unknown=0), Clock())
    assert not rates.counts_addresses
    for _ in range(100_000):
        rates.account("a", "192.0.2.1", reads=True)
        rates.account("a", "192.0.2.1", reads=False)
        rates.address("192.0.2.1")
        rates.unknown("192.0.2.1")


def test_reads_of_a_fleet_behind_one_address_are_not_counted_by_default() -> None:
    assert (RATES.account_reads, RATES.address) == (0, 0)
    assert RATES.account_writes >= 1000


class Unread(io.RawIOBase):
    """A body that nobody may read."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: object) -> int:
        raise AssertionError("the body was read")


def test_who_is_not_known_is_refused_without_a_look_at_the_body(tmp_path: Path) -> None:
    """The rest of a refused body is read for a while, so that clients see the answer: that takes a thread."""
    rates = {"unknown": 1, "burst": 1}
    members = {"name": "registry.test", "data": str(tmp_path), "judge": {"push_wait_ms": 0}, "rates": rates}
    settings = parse(json.dumps(members).encode())
    prepare(settings, now=utc_now())
    app = open_app(settings)
    found: list[str] = []
    for _ in range(4):
        environ = create_environ(f"/v2/team/app/blobs/uploads/?digest=sha256:{'0' * 64}", method="POST")
        environ |= {"CONTENT_LENGTH": str(10**9), "wsgi.input": io.BufferedReader(Unread()), "REMOTE_ADDR": "192.0.2.1"}
        found.append(run_wsgi_app(app, environ)[1][:3])
    context_of(app).refusals.flush()
    context_of(app).catalogue.close()
    assert found[0] == "401"
    assert found[-1] == "429"


# ---- on a running registry ------------------------------------------------------------------------------------------


@pytest.fixture
def counting(tmp_path: Path) -> Iterator[LiveRegistry]:
    """A registry whose buckets hold a few requests, and run out within minutes at the earliest."""
    rates = {"account_reads": 1, "account_writes": 1, "unknown": 1, "burst": 5}
    with web_registry(tmp_path / "registry", rates=rates, http={"threads": 4}) as running:
        yield running


def statuses(live: LiveRegistry, times: int, method: str, path: str, **more: object) -> Counter[int]:
    """What so many requests at once are answered."""
    answers: list[Answer] = []

    def ask() -> None:
        answers.append(live.request(method, path, **more))  # type: ignore[arg-type]  # by name

    threads = [threading.Thread(target=ask) for _ in range(times)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for answer in answers:
        if answer.status == 429:
            assert json.loads(answer.body)["errors"][0]["code"] == "TOOMANYREQUESTS"
            assert int(answer.headers["retry-after"]) >= 1
    return Counter(answer.status for answer in answers)


def test_an_account_that_asks_too_often_is_429_and_no_other_is(counting: LiveRegistry) -> None:
    found = statuses(counting, 30, "GET", "/v2/")
    assert found[200] >= 5
    assert found[429] >= 10
    assert set(found) == {200, 429}
    assert counting.request("GET", "/v2/", account="host").status == 200
    assert counting.request("POST", "/v2/team/app/blobs/uploads/").status == 202  # writes are counted apart
    found = statuses(counting, 30, "POST", "/v2/team/app/blobs/uploads/")
    assert found[429] >= 10
    assert set(found) == {202, 429}


def test_nobody_we_know_is_401_and_then_429_and_whoever_is_known_is_served(counting: LiveRegistry) -> None:
    found = statuses(counting, 30, "GET", "/v2/", account=None)
    assert found[401] >= 5
    assert found[429] >= 10
    assert set(found) == {401, 429}
    counting.secrets["nobody"] = "wrong"
    assert counting.request("GET", "/v2/", account="nobody").status in {401, 429}
    assert counting.request("GET", "/v2/", account="pusher").status == 200
    assert counting.request("GET", "/healthz", account=None).status == 200


def test_tokens_cost_their_account_and_those_without_one_their_address(counting: LiveRegistry) -> None:
    found = statuses(counting, 20, "GET", "/token", account="host")
    assert found[429] >= 5
    assert set(found) == {200, 429}
    found = statuses(counting, 20, "GET", "/token", account=None)
    assert found[429] >= 5
    assert set(found) == {401, 429}


def test_the_one_time_token_cannot_be_guessed_at_speed(counting: LiveRegistry) -> None:
    body = json.dumps({"token": "x" * 43, "name": "root"}).encode()
    found = statuses(counting, 20, "POST", "/api/v1/bootstrap", account=None, body=body)
    assert found[429] >= 5
    assert set(found) == {401, 429}


def test_an_address_has_so_many_requests_whoever_makes_them_but_health_checks(tmp_path: Path) -> None:
    with web_registry(tmp_path / "registry", rates={"address": 1, "burst": 5}) as live:
        roles = [str(role) for role in Role if role is not Role.REGISTRY]
        found = Counter(live.request("GET", "/v2/", account=role).status for role in roles * 5)
        assert found[429] >= 10
        assert set(found) == {200, 429}
        assert statuses(live, 30, "GET", "/readyz", account=None) == {200: 30}


def test_behind_a_proxy_each_client_is_counted_for_itself(tmp_path: Path) -> None:
    http = {"proxies": ["127.0.0.1"]}
    with web_registry(tmp_path / "registry", http=http, rates={"address": 1, "burst": 5}) as live:

        def ask(address: str) -> int:
            return live.request("GET", "/v2/", X_Forwarded_For=address).status

        greedy = Counter(ask("198.51.100.7") for _ in range(30))
        assert greedy[429] >= 10
        assert ask("198.51.100.8") == 200


def test_a_refused_push_leaves_nothing_and_is_counted_in_the_audit(counting: LiveRegistry) -> None:
    paths = [f"/v2/team/app-{number}/blobs/uploads/?digest=sha256:{'0' * 64}" for number in range(24)]
    refused = [path for path in paths if counting.request("POST", path, body=b"x" * 100_000).status == 429]
    assert refused
    counting.stop()
    catalogue = counting.catalogue()
    with catalogue.read() as conn:
        records = [record for record in read(conn, after=0, limit=1000) if record.event == "refused"]
    catalogue.close()
    assert {record.subject for record in records} == {f"POST {path.partition('?')[0]}" for path in refused}
    assert {(record.principal, record.source) for record in records} == {("pusher", "127.0.0.1")}
    assert all("too many requests" in record.after for record in records)
