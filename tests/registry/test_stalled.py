"""Clients that stop in the middle of a body are cut off, and do not keep others from being served."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from ocispec.digest import Digest
from registry.errors import TooManyRequestsError
from registry.limits import Bodies
from tests.support.registry import LiveRegistry, web_registry

REPOSITORY = "team/app"
THREADS = 4


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A registry with few threads and little patience."""
    http = {"threads": THREADS, "body_stall": 2, "bodies_per_account": THREADS}
    with web_registry(tmp_path_factory.mktemp("stalled"), http=http) as running:
        yield running


def half_sent(live: LiveRegistry, stack: ExitStack, method: str, path: str) -> socket.socket:
    """A connection on which a request with a tenth of its body was sent."""
    authorization = live.header("pusher")["Authorization"]
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: 1000\r\n\r\n"
    connection = stack.enter_context(socket.create_connection(("127.0.0.1", live.port), timeout=30))
    connection.sendall(head.encode() + b"x" * 100)
    return connection


def test_half_bodies_on_every_thread_are_cut_off_and_others_served(live: LiveRegistry) -> None:
    half = Digest.of(b"x" * 100)
    session = live.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]
    requests = [
        ("POST", f"/v2/{REPOSITORY}/blobs/uploads/?digest={half}"),
        ("PATCH", session),
        ("PUT", f"/v2/{REPOSITORY}/manifests/latest"),
        ("PUT", "/v2/NOT-A-NAME/manifests/latest"),
    ]
    assert len(requests) == THREADS
    with ExitStack() as stack:
        connections = [half_sent(live, stack, method, path) for method, path in requests]
        # Every thread waits for a body; this is answered as soon as they are cut off.
        assert live.request("GET", "/v2/").status == 200
        for connection in connections:
            while connection.recv(65536):
                pass
    assert live.request("HEAD", f"/v2/{REPOSITORY}/blobs/{half}").status == 404
    assert live.request("GET", f"/v2/{REPOSITORY}/manifests/latest").status == 404
    # The client sees the end of its connection before what came of its chunk is recorded.
    deadline = time.monotonic() + 10
    while live.request("GET", session).headers["range"] != "0-99":
        assert time.monotonic() < deadline
        time.sleep(0.02)


def trickle(connection: socket.socket) -> int:
    """Send a byte ten times a second until the connection is closed; returns how many went out."""
    for number in range(300):
        try:
            connection.sendall(b"x")
        except OSError:
            return number
        time.sleep(0.1)
    return 300


def test_a_body_that_trickles_is_cut_off_too(live: LiveRegistry) -> None:
    with ExitStack() as stack:
        session = live.request("POST", f"/v2/{REPOSITORY}/blobs/uploads/").headers["location"]
        connection = half_sent(live, stack, "PATCH", session)
        assert trickle(connection) < 300


def test_a_slow_body_at_the_minimum_rate_is_taken(live: LiveRegistry) -> None:
    content = bytes(range(250)) * 27
    authorization = live.header("pusher")["Authorization"]
    path = f"/v2/{REPOSITORY}/blobs/uploads/?digest={Digest.of(content)}"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", live.port), timeout=30) as connection:
        connection.sendall(head.encode())
        for start in range(0, len(content), 250):
            connection.sendall(content[start : start + 250])
            time.sleep(0.1)
        assert connection.recv(65536).startswith(b"HTTP/1.1 201")


def test_an_idle_connection_of_the_same_address_may_stay(live: LiveRegistry) -> None:
    with socket.create_connection(("127.0.0.1", live.port), timeout=30) as idle:
        time.sleep(3)
        authorization = live.header("pusher")["Authorization"]
        idle.sendall(f"GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthorization: {authorization}\r\n\r\n".encode())
        assert idle.recv(65536).startswith(b"HTTP/1.1 200")


def test_an_account_sends_a_bounded_number_of_blobs_at_a_time() -> None:
    bodies = Bodies(2, 8)
    with (
        bodies.one("a"),
        bodies.one("a"),
        bodies.one("b"),
        pytest.raises(TooManyRequestsError, match="account a: 2 blobs"),
        bodies.one("a"),
    ):
        pass
    with bodies.one("a"):
        pass


def test_a_body_is_slow_by_what_came_over_the_whole_time() -> None:
    bodies = Bodies(1, 8)
    with bodies.watched("198.51.100.1", "fast") as fast, bodies.watched("198.51.100.2", "slow") as slow:
        start = min(fast.marked, slow.marked)
        fast.received, slow.received = 20_000, 100
        assert bodies.slow(10, 1000, start + 5) == {}
        assert bodies.slow(10, 1000, start + 11) == {"198.51.100.2": 1}
        # What came before the last look does not count again.
        assert bodies.slow(10, 1000, start + 25) == {"198.51.100.1": 1, "198.51.100.2": 1}
    assert bodies.slow(10, 1000, start + 100) == {}
