"""Around the application: ids, sources, log lines and counts of requests, however they end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from registry.proxies import Proxies
from registry.telemetry import metrics
from registry.telemetry.environ import ACCOUNT, ENDPOINT, RECEIVED, REQUEST, SOURCE
from registry.telemetry.lines import Formatter
from registry.telemetry.origin import current
from registry.telemetry.reporter import MAX_WAITING, Reporter
from registry.telemetry.requests import Observed

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

PROXY, CLIENT = "10.0.0.1", "198.51.100.7"


class Site:
    """An application that answers as told, observed, and what was reported of it."""

    def __init__(self, answer: Iterable[bytes] | Exception = (b"ok",), *, proxies_only: bool = False) -> None:
        self.answer = answer
        self.seen: dict[str, Any] = {}
        self.written: list[bytes] = []
        self.reporter = Reporter(
            formatter=Formatter("web", as_json=True), access=True, count=True, write=self.written.append
        )
        proxies = Proxies((ip_network("10.0.0.0/8"),), "x-forwarded-for")
        self.observed = Observed(self._application, proxies=proxies, reporter=self.reporter, proxies_only=proxies_only)
        self.status, self.headers = "", dict[str, str]()

    def _application(self, environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        self.seen = {"source": environ[SOURCE], "request": environ[REQUEST], "origin": current.get().request}
        environ[ENDPOINT], environ[ACCOUNT] = "test.site", "dev"
        if isinstance(self.answer, Exception):
            raise self.answer
        start("200 OK", [("X-Own", "1")])
        return self.answer

    def ask(self, peer: str = CLIENT, method: str = "GET", path: str = "/v2/", **environ: Any) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *_: object) -> Any:
            self.status, self.headers = status, dict(headers)

        return self.observed({"REQUEST_METHOD": method, "PATH_INFO": path, "REMOTE_ADDR": peer, **environ}, start)

    def lines(self) -> list[dict[str, Any]]:
        self.reporter.flush()
        return [json.loads(line) for chunk in self.written for line in chunk.splitlines()]


def test_a_request_has_an_id_a_line_and_a_place_in_the_histogram() -> None:
    site = Site([b"four", b"5"])
    before = _observed("GET")
    assert list(site.ask()) == [b"four", b"5"]
    (line,) = site.lines()
    assert site.headers == {"X-Own": "1", "X-Request-Id": site.seen["request"]}
    assert line["request"] == site.seen["request"] == site.seen["origin"]
    assert (line["event"], line["status"], line["bytes"]) == ("access", 200, 5)
    assert (line["account"], line["source"]) == ("dev", CLIENT)
    assert _observed("GET") == before + 1
    assert current.get().request == ""
    assert not site.observed.under_way


def _observed(method: str) -> float:
    return sum(
        sample.value
        for family in metrics.REQUEST_SECONDS.collect()
        for sample in family.samples
        if sample.name.endswith("_count")
        and sample.labels["endpoint"] == "test.site"
        and sample.labels["method"] == method
    )


def test_methods_that_nobody_knows_share_one_label() -> None:
    site = Site()
    before = _observed("other")
    for number in range(3):
        list(site.ask(method=f"EVIL{number}"))
    site.lines()
    assert _observed("other") == before + 3


def test_ids_are_a_believed_proxys_or_ours() -> None:
    site = Site()
    list(site.ask(PROXY, HTTP_X_REQUEST_ID="from.the-proxy_1", HTTP_X_FORWARDED_FOR=CLIENT))
    assert site.seen["request"] == "from.the-proxy_1"
    assert site.seen["source"] == CLIENT
    for bad in ("", "a" * 65, "a b", "a\nb", 'a"b'):
        list(site.ask(PROXY, HTTP_X_REQUEST_ID=bad))
        assert site.seen["request"] != bad
    list(site.ask(CLIENT, HTTP_X_REQUEST_ID="from-a-client"))
    assert site.seen["request"] != "from-a-client"


def test_every_request_has_another_id() -> None:
    site = Site()
    found = set()
    for _ in range(100):
        list(site.ask())
        found.add(site.seen["request"])
    assert len(found) == 100


def test_what_breaks_is_counted_as_500_and_raised_on() -> None:
    site = Site(RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        site.ask()
    (line,) = site.lines()
    assert line["status"] == 500
    assert not site.observed.under_way


def _pieces(closed: list[bool]) -> Iterator[bytes]:
    try:
        yield b"1234"
        yield b"5678"
    finally:
        closed.append(True)


def test_an_answer_that_is_given_up_is_closed_and_counted_once() -> None:
    closed: list[bool] = []
    site = Site(_pieces(closed))
    answer: Any = site.ask()
    assert len(site.observed.under_way) == 1
    assert next(answer) == b"1234"
    answer.close()
    answer.close()
    assert closed == [True]
    (line,) = site.lines()
    assert line["bytes"] == 4
    assert not site.observed.under_way


def test_an_answer_that_breaks_in_the_middle_is_over() -> None:
    def broken() -> Iterator[bytes]:
        yield b"12"
        raise OSError("the disk")

    site = Site(broken())
    answer: Any = site.ask()
    assert next(answer) == b"12"
    with pytest.raises(OSError, match="the disk"):
        next(answer)
    assert len(site.lines()) == 1
    assert not site.observed.under_way


def test_plain_http_is_answered_to_proxies_alone_where_only_they_may_ask() -> None:
    site = Site(proxies_only=True)
    assert b"DENIED" in b"".join(site.ask(CLIENT))
    assert site.status == "403 Forbidden"
    assert site.seen == {}
    for path in ("/healthz", "/readyz"):
        assert list(site.ask(CLIENT, path=path)) == [b"ok"]
    assert list(site.ask(PROXY)) == [b"ok"]


@pytest.mark.parametrize(
    ("environ", "received"),
    [({"CONTENT_LENGTH": "12"}, 12), ({"CONTENT_LENGTH": "-1"}, 0), ({"CONTENT_LENGTH": "x"}, 0), ({RECEIVED: 7}, 7)],
)
def test_bytes_of_a_body_are_those_that_were_read(environ: dict[str, Any], received: int) -> None:
    site = Site()
    list(site.ask(method="PUT", **environ))
    (line,) = site.lines()
    assert line["bytes_in"] == received


def test_the_query_is_not_logged() -> None:
    site = Site()
    list(site.ask(QUERY_STRING="token=a-secret"))
    site.lines()
    assert b"a-secret" not in b"".join(site.written)


def test_where_nobody_writes_lines_are_dropped_and_counted() -> None:
    site = Site([b"ok"])
    before = _dropped()
    for _ in range(MAX_WAITING + 25):
        site.reporter.line(b"x\n")
    site.reporter.flush()
    assert len(b"".join(site.written).splitlines()) == MAX_WAITING
    assert _dropped() == before + 25


def _dropped() -> float:
    return sum(
        sample.value
        for family in metrics.LINES_DROPPED.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    )
