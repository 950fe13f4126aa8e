"""200 slow clients of each kind are held, and a healthy client is answered: everything it asks, by everybody it is.

No clock is asserted here: that an answer comes at all, while every slow client is still there, is what fails where one
of them has taken what others need. How long answers take is measured by `python -m benchmarks.slow`.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from ocispec.digest import Digest
from registry.access import Role
from registry.errors import TooManyRequestsError
from registry.limits import Bodies, Shares
from tests.support.images import image
from tests.support.registry import LiveRegistry, web_registry

REPOSITORY = "team/app"
SLOW = 200
STALL = 3600
"""Nothing is cut off while a test goes on: that is test_stalled.py."""

LARGE = 32 * 1024 * 1024
"""Bytes of a blob: more than all buffers between the registry and who does not read."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A registry with few threads, and the limits that it is shipped with."""
    with web_registry(tmp_path_factory.mktemp("slow"), http={"threads": 4, "body_stall": STALL}) as running:
        running.push(REPOSITORY, image([{"srv/": b""}]), "1")
        running.push_blob(REPOSITORY, bytes(LARGE))
        yield running


def connected(live: LiveRegistry, stack: ExitStack, head: str) -> socket.socket:
    """A connection on which something was sent."""
    connection = socket.socket()
    stack.enter_context(connection)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(30)
    connection.connect(("127.0.0.1", live.port))
    connection.sendall(head.encode())
    return connection


def idle(live: LiveRegistry, stack: ExitStack, _number: int) -> socket.socket:
    """Connects, and says nothing."""
    return connected(live, stack, "")


def half_header(live: LiveRegistry, stack: ExitStack, _number: int) -> socket.socket:
    """Stops in the middle of a header."""
    return connected(live, stack, "GET /v2/ HTTP/1.1\r\nHost: x\r\nAuthoriz")


def authorized(live: LiveRegistry, method: str, path: str, account: str, rest: str = "") -> str:
    """The head of a request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Authorization: {live.header(account)['Authorization']}"]
    return "\r\n".join(lines) + f"\r\n{rest}\r\n"


def half_body(live: LiveRegistry, stack: ExitStack, number: int) -> socket.socket:
    """Stops in the middle of a body: of a blob, a manifest, a statement, or one that is refused for other reasons."""
    half = Digest.of(b"half")
    method, path, account = (
        ("POST", f"/v2/{REPOSITORY}/blobs/uploads/?digest={half}", "pusher"),
        ("PUT", f"/v2/{REPOSITORY}/manifests/half", "pusher"),
        ("POST", "/api/v1/statements", "officer"),
        ("PUT", f"/v2/{REPOSITORY}/manifests/half", "host"),
        ("POST", "/api/v1/bootstrap", "host"),
    )[number % 5]
    return connected(live, stack, authorized(live, method, path, account, "Content-Length: 1000\r\n") + "x" * 100)


def no_reader(live: LiveRegistry, stack: ExitStack, number: int) -> socket.socket:
    """Asks for a large blob, and reads none of it."""
    path = f"/v2/{REPOSITORY}/blobs/{Digest.of(bytes(LARGE))}"
    return connected(live, stack, authorized(live, "GET", path, "scanner" if number % 2 else "auditor"))


KINDS: dict[str, Callable[[LiveRegistry, ExitStack, int], socket.socket]] = {
    "idle": idle,
    "half headers": half_header,
    "half bodies": half_body,
    "readers that do not read": no_reader,
}


def healthy(live: LiveRegistry, number: int) -> None:
    """Asks for this and that, and pushes: all of it is answered."""
    assert live.request("GET", "/v2/").status == 200
    assert live.request("GET", f"/v2/{REPOSITORY}/manifests/1", account="pusher").status == 200
    assert live.request("HEAD", f"/v2/{REPOSITORY}/blobs/{Digest.of(bytes(LARGE))}", account="pusher").status == 200
    account = f"healthy-{number}"
    live.account(account, Role.PUSHER)
    content = b"healthy %d" % number
    digest = live.push_blob(REPOSITORY, content, account=account)
    assert live.request("GET", f"/v2/{REPOSITORY}/blobs/{digest}", account=account).body == content
    built = image([{"srv/number": content}])
    for blob in built.blobs.values():
        live.push_blob(REPOSITORY, blob, account=account)
    raw, kind = built.manifest.raw, built.manifest.media_type
    assert live.put_manifest(REPOSITORY, account, raw, kind, account=account).status == 201


def is_held(connection: socket.socket) -> bool:
    """True if the server has neither answered nor closed; what a reader does not read counts as held."""
    connection.setblocking(False)
    try:
        got = connection.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    return got == b"H" and connection.recv(12, socket.MSG_PEEK) == b"HTTP/1.1 200"


@pytest.mark.parametrize("kind", KINDS)
def test_a_healthy_client_is_answered_while_200_slow_ones_are_held(live: LiveRegistry, kind: str) -> None:
    with ExitStack() as stack:
        slow = [KINDS[kind](live, stack, number) for number in range(SLOW)]
        for number in range(5):
            healthy(live, len(live.secrets) + number)
        held = sum(map(is_held, slow))
        # Of bodies and downloads some are refused at once: who is refused waits for nothing either.
        assert held == SLOW if kind in {"idle", "half headers"} else held >= 30


def test_an_account_gets_a_part_of_what_there_is() -> None:
    shares = Shares("downloads", 8, 4)
    ends = [shares.begin("slow") for _ in range(4)]
    with pytest.raises(TooManyRequestsError, match="account slow: 4 downloads"):
        shares.begin("slow")
    ends[0](), ends[0]()  # what ends twice counts once
    assert shares.count() == 3
    shares.begin("slow")
    assert shares.count() == 4


def test_the_last_quarter_is_for_who_has_none() -> None:
    shares = Shares("downloads", 8, 8)
    ends = [shares.begin("slow") for _ in range(6)]
    with pytest.raises(TooManyRequestsError, match="6 downloads are under way already"):
        shares.begin("slow")
    ends += [shares.begin("a"), shares.begin("b")]
    with pytest.raises(TooManyRequestsError, match="8 downloads are under way already"):
        shares.begin("c")
    for end in ends:
        end()
    assert shares.count() == 0


def test_bodies_are_as_many_as_there_are_threads_for() -> None:
    bodies = Bodies(16, 8)
    address = "198.51.100.1"
    with ExitStack() as stack:
        for number in range(7):
            stack.enter_context(bodies.watched(address, f"slow-{number}"))
        with bodies.drained(address, "a") as first, bodies.drained(address, "b") as second:
            assert (first, second) == (True, False)
            assert bodies.count() == 8
            with pytest.raises(TooManyRequestsError, match="8 bodies"), bodies.watched(address, "c"):
                pass
        stack.enter_context(bodies.watched(address, "c"))
        with bodies.drained(address, "a") as third:
            assert not third
    assert bodies.count() == 0
