"""A whole registry that tells how it does: metrics, JSON lines and traces of real pushes, and of hostile requests."""

from __future__ import annotations

import base64
import importlib.util
import json
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

import pytest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as classic

from registry.telemetry.lines import MAX_LINE
from registry.telemetry.metrics import DESCRIBED
from tests.support.collector import Collector, collector, silent
from tests.support.images import image
from tests.support.live import WholeRegistry, whole_registry
from tests.support.processes import free_port
from tests.support.tools import lacking

TOKEN = "of-the-tests"
SECRET_REPOSITORY = "team/only-in-logs"


@dataclass
class Observed:
    """The registry, and who listens to it."""

    live: WholeRegistry
    metrics_port: int
    collector: Collector
    outage: Callable[[], None]

    def scrape(self, **headers: str) -> tuple[int, str, str]:
        connection = HTTPConnection("127.0.0.1", self.metrics_port, timeout=30)
        try:
            connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {TOKEN}", **headers})
            answer = connection.getresponse()
            return answer.status, answer.getheader("Content-Type", ""), answer.read().decode()
        finally:
            connection.close()

    def families(self) -> dict[str, Metric]:
        return {family.name: family for family in classic(self.scrape()[2])}

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        return sum(
            sample.value
            for family in self.families().values()
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def lines(self) -> list[dict[str, Any]]:
        raw = (self.live.folder / "serve.log").read_bytes()
        return [json.loads(line) for line in raw.splitlines()]

    def access(self, path: str) -> dict[str, Any]:
        """The line of the one request for a path."""
        found: list[dict[str, Any]] = []

        def look() -> bool:
            found[:] = [line for line in self.lines() if line.get("path") == path]
            return bool(found)

        until(look)
        assert len(found) == 1
        return found[0]


def until(what: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def site() -> Iterator[Observed]:
    if importlib.util.find_spec("opentelemetry") is None:
        lacking("pratique[otel]")
    with ExitStack() as stack:
        port, hearing = free_port(), ExitStack()
        listening = hearing.enter_context(collector(free_port()))
        stack.callback(hearing.close)

        def outage() -> None:
            """From now on nobody answers where the collector was."""
            hearing.close()
            hearing.enter_context(silent(listening.port))

        live = stack.enter_context(
            whole_registry(
                environment={"OTEL_BSP_SCHEDULE_DELAY": "200"},
                metrics={"listen": f"127.0.0.1:{port}", "token": TOKEN},
                log={"format": "json"},
                traces={"endpoint": listening.endpoint, "percent": 100},
            )
        )
        live.publish()
        built = image([{"bin/": b"", "bin/sh": b"#!"}])
        live.push("team/base", built, "1")
        live.until("team/base", "1", "denied")
        yield Observed(live, port, listening, outage)


# ---- metrics -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text; version=1.0.0"])
def test_prometheus_parses_what_is_told_and_each_metric_is_described(site: Observed, accept: str) -> None:
    until(lambda: site.value("pratique_scrape_failed") == 0)
    status, content_type, text = site.scrape(Accept=accept)
    assert status == 200
    assert content_type.startswith(accept.partition(";")[0])
    families = list((openmetrics if "openmetrics" in accept else classic)(text))
    described = {each.name.removesuffix("_total"): each for each in DESCRIBED}
    for family in families:
        each = described[family.name.removesuffix("_total")]
        assert family.type == each.kind
        assert family.documentation == each.doc
        for sample in family.samples:
            assert set(sample.labels) - {"le"} <= set(each.labels)
    told = {family.name.removesuffix("_total") for family in families}
    # What only stands there once it happened, or where the settings have it.
    rare = {
        name for name in described if name.startswith(("pratique_collect", "pratique_certificate", "pratique_advis"))
    }
    failing = {name for name in described if name.endswith(("_errors", "_failures", "_refusals", "_dropped"))}
    assert set(described) - told <= rare | failing


def test_no_name_of_anybody_or_anything_is_told(site: Observed) -> None:
    site.live.request("GET", f"/v2/{SECRET_REPOSITORY}/tags/list")
    site.live.request("GET", f"/{SECRET_REPOSITORY}", account=None)
    site.live.request("EVIL", f"/v2/{SECRET_REPOSITORY}/tags/list")
    site.access(f"/{SECRET_REPOSITORY}")
    text = site.scrape()[2]
    for name in ("only-in-logs", "team", "pusher", "officer", "EVIL", "127.0.0.1"):
        assert name not in text


def test_requests_bytes_and_decisions_are_counted(site: Observed) -> None:
    labels = {"endpoint": "blobs.get_blob", "method": "GET", "status": "200"}
    digest = site.live.push_blob("team/app", bytes(1000))
    until(lambda: site.value("pratique_http_requests") == 0)
    before = site.value("pratique_http_request_seconds_count", **labels), site.value("pratique_http_sent_bytes_total")
    for _ in range(5):
        assert site.live.request("GET", f"/v2/team/app/blobs/{digest}").status == 200
    until(lambda: site.value("pratique_http_request_seconds_count", **labels) == before[0] + 5)
    assert site.value("pratique_http_sent_bytes_total") == before[1] + 5000
    assert site.value("pratique_decisions_total", state="denied") >= 1
    assert site.value("pratique_images", state="denied") >= 1
    assert site.value("pratique_job_seconds_count") >= 1
    assert site.value("pratique_signer_seconds_count") >= 1
    assert site.value("pratique_store_seconds_count", operation="put") >= 1
    assert site.value("pratique_store_seconds_count", operation="open") >= 5
    assert site.value("pratique_catalogue_connections", state="idle") >= 1
    assert site.value("pratique_revocation_list_number") == 1
    for name in ("supervisor", "web", "judge", "signer", "keeper", "metrics"):
        assert site.value("pratique_processes", process=name) >= 1
        assert site.value("pratique_process_resident_bytes", process=name) > 2**20
    assert site.value("pratique_ready", part="judge") == 1


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/metrics", {}, 401),
        ("/metrics", {"Authorization": "Bearer of-the-test"}, 401),
        ("/metrics", {"Authorization": f"Basic {TOKEN}"}, 401),
        ("/", {"Authorization": f"Bearer {TOKEN}"}, 404),
        ("/v2/", {"Authorization": f"Bearer {TOKEN}"}, 404),
    ],
)
def test_only_metrics_are_there_and_only_for_the_token(
    site: Observed, path: str, headers: dict[str, str], status: int
) -> None:
    connection = HTTPConnection("127.0.0.1", site.metrics_port, timeout=30)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    assert answer.status == status
    assert b"pratique_" not in answer.read()
    connection.close()


def test_many_idle_clients_do_not_keep_prometheus_out_for_long(site: Observed) -> None:
    idle = [socket.create_connection(("127.0.0.1", site.metrics_port), timeout=30) for _ in range(20)]
    for each in idle:
        each.close()
    until(lambda: _scraped(site))


def _scraped(site: Observed) -> bool:
    try:
        return site.scrape()[0] == 200
    except OSError:
        return False


# ---- lines ---------------------------------------------------------------------------------------------------------


def test_each_line_is_an_object_and_a_request_can_be_followed_by_its_id(site: Observed) -> None:
    built = image([{"followed": b"yes"}])
    for content in built.blobs.values():
        site.live.push_blob("team/followed", content)
    answer = site.live.put_manifest("team/followed", "1", built.manifest.raw, built.manifest.media_type)
    line = site.access("/v2/team/followed/manifests/1")
    assert line["request"] == answer.headers["x-request-id"]
    assert (line["event"], line["method"], line["status"]) == ("access", "PUT", 201)
    assert (line["account"], line["source"], line["process"]) == ("pusher", "127.0.0.1", "web")
    for each in site.lines():
        assert {"time", "level", "process", "message"} <= set(each)


HOSTILE = [
    b"GET /v2/%0aFORGED%0d%0a HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%1b%5b2J%1b%5d0;title%07/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%ff%fe%c0%80/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/%e2%80%a8FORGED%c2%85/tags/list HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET /v2/" + b"a" * 5000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b'GET /v2/","level":"error","forged":" HTTP/1.1\r\nHost: x\r\n\r\n',
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nX-Request-Id: FORGED\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n",
    b"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + base64.b64encode(b"a\nFORGED\x1b[2J:x") + b"\r\n\r\n",
    b"FORGED" + b"M" * 300 + b" /v2/ HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01 no HTTP at all\r\n\r\n",
]


def test_hostile_requests_forge_no_line(site: Observed) -> None:
    before = len(site.lines())
    for raw in HOSTILE:
        with socket.create_connection(("127.0.0.1", site.live.port), timeout=30) as sender:
            sender.sendall(raw)
            sender.shutdown(socket.SHUT_WR)
            while sender.recv(4096):
                pass
    site.live.request("GET", "/v2/after/hostile/tags/list")
    site.access("/v2/after/hostile/tags/list")
    content = (site.live.folder / "serve.log").read_bytes()
    assert all(len(line) < MAX_LINE for line in content.split(b"\n"))
    assert not [byte for byte in content if (byte < 32 and byte != 10) or byte >= 127]
    new = site.lines()[before:]
    assert len(new) >= len(HOSTILE) - 1
    for line in new:
        assert set(line) <= {
            *("time", "level", "process", "message", "event", "method", "path", "status"),
            *("bytes_in", "bytes", "ms", "account", "source", "request"),
        }
        assert line["level"] in {"info", "warning"}
        assert "FORGED" not in line.get("request", "")
        assert line.get("source", "127.0.0.1") == "127.0.0.1"
        assert "FORGED" not in line.get("account", "")


# ---- traces --------------------------------------------------------------------------------------------------------


def test_a_trace_goes_from_the_push_to_the_judgement(site: Observed) -> None:
    spans = site.collector.spans

    def traces() -> list[str]:
        put = [each for each in spans if each.attributes.get("url.path") == "/v2/team/base/manifests/1"]
        return [each.trace for each in put if each.attributes["http.request.method"] == "PUT"]

    until(lambda: bool(traces()))
    (trace,) = traces()
    until(lambda: {"web", "judge-0"} <= {each.process for each in spans if each.trace == trace})
    whole = {each.span: each for each in spans if each.trace == trace}
    (root,) = [each for each in whole.values() if not each.parent]
    assert root.process == "web"
    assert root.kind == 2  # SPAN_KIND_SERVER
    assert root.attributes["http.route"] == "manifests.put_manifest"
    assert root.attributes["http.response.status_code"] == "201"
    assert {each.parent for each in whole.values()} <= {"", *whole}
    assert {"job judge", "signer judge", "store open"} <= {each.name for each in whole.values()}
    assert site.collector.services == {"pratique-registry"}


def test_a_span_has_the_id_of_the_request_and_clients_cannot_join_a_trace(site: Observed) -> None:
    other = "4bf92f3577b34da6a3ce929d0e0e4736"
    answer = site.live.request("GET", "/v2/team/traced/tags/list", traceparent=f"00-{other}-00f067aa0ba902b7-01")
    request = answer.headers["x-request-id"]
    until(lambda: bool([each for each in site.collector.spans if each.attributes.get("pratique.request") == request]))
    (span,) = [each for each in site.collector.spans if each.attributes.get("pratique.request") == request]
    assert span.trace != other
    assert span.attributes["http.response.status_code"] == str(answer.status)
    assert not span.failed


def test_a_collector_that_does_not_answer_holds_up_nobody(site: Observed) -> None:
    """The last test with the registry: collector and registry are gone after it."""
    site.outage()
    connection = HTTPConnection("127.0.0.1", site.live.port, timeout=5)
    for number in range(2500):  # more spans than the queue holds
        connection.request("GET", "/v2/", headers=site.live.header("pusher"))
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, number
    connection.close()
    said = Counter(line["message"][:40] for line in site.lines() if line["level"] in {"warning", "error"})
    assert sum(said.values()) < 100, said
    site.live.stop()  # waits for what is not sent yet, but not for long
    assert "did not stop in time" not in site.live.log()


def test_without_the_extra_one_line_says_what_is_missing() -> None:
    script = """
import sys
sys.modules["opentelemetry"] = None
from registry.errors import SettingsError
from registry.settings_operation import TraceSettings
from registry.telemetry import traces
traces.configure(TraceSettings(), process="web", registry="r")
try:
    traces.configure(TraceSettings(endpoint="http://127.0.0.1:1/v1/traces"), process="web", registry="r")
except SettingsError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.startswith("setting traces.endpoint: needs pratique[otel]")
