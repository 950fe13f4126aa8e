"""An S3 engine that misbehaves as it is told: one behaviour for each request, the last for all that follow.

with bad_engine(whole, broken(1000)) as engine:
    store = S3Store(engine.settings(deadline=2))
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from registry.settings_storage import S3Settings

CONTENT: Final = bytes(range(256)) * 4096 * 3
"""The one object, of 3 MiB, under whatever key."""

Behaviour = Callable[["Request"], None]


@dataclass(slots=True, kw_only=True)
class BadEngine:
    """A running one: its address, and what it was asked, in order."""

    port: int
    asked: list[tuple[str, str | None]] = field(default_factory=list)

    def settings(self, **more: Any) -> S3Settings:
        """How to reach it."""
        keys = {"access_key": "tester", "secret_key": "a-secret-of-the-tests"}
        named: dict[str, Any] = {"bucket": "bucket", "endpoint": f"http://127.0.0.1:{self.port}", **keys, **more}
        return S3Settings(**named)


class Request(BaseHTTPRequestHandler):
    """A request, as a behaviour sees it."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Do what is told."""
        self.server.engine.asked.append((self.command, self.headers["Range"]))
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        with suppress(OSError):
            self.server.next_behaviour()(self)

    do_PUT = do_POST = do_HEAD = do_DELETE = do_GET  # noqa: N815 -- http.server calls them so

    def asked_range(self) -> tuple[int, int]:
        """The bytes of CONTENT that are asked for."""
        text = self.headers["Range"]
        if text is None:
            return 0, len(CONTENT)
        start, _, last = text.removeprefix("bytes=").partition("-")
        return int(start), min(int(last) + 1, len(CONTENT)) if last else len(CONTENT)

    def head(self, status: int, **headers: object) -> None:
        """Send a head; names with `_` for `-`."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def head_of_object(self, *, tag: str = "tag") -> bytes:
        """Send the head of what is asked for; returns the body that belongs to it."""
        start, end = self.asked_range()
        more = {"Content_Range": f"bytes {start}-{end - 1}/{len(CONTENT)}"} if self.headers["Range"] else {}
        self.head(206 if more else 200, Content_Length=end - start, ETag=f'"{tag}"', **more)
        return CONTENT[start:end]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its base's name
        """Say nothing."""


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = False

    def __init__(self, behaviours: tuple[Behaviour, ...]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.engine = BadEngine(port=self.server_address[1])
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._behaviours = list(behaviours)

    def next_behaviour(self) -> Behaviour:
        with self._lock:
            return self._behaviours.pop(0) if len(self._behaviours) > 1 else self._behaviours[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is what these tests are about."""


@contextmanager
def bad_engine(*behaviours: Behaviour) -> Iterator[BadEngine]:
    """A running engine."""
    with _Server(behaviours) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield server.engine
        finally:
            server.over.set()
            server.shutdown()
            thread.join()


# ---- behaviours --------------------------------------------------------------------------------------------------


def whole(request: Request) -> None:
    """What was asked for."""
    request.wfile.write(request.head_of_object())


def broken(count: int) -> Behaviour:
    """`count` bytes of it; then the connection ends."""

    def behave(request: Request) -> None:
        request.wfile.write(request.head_of_object()[:count])
        request.close_connection = True

    return behave


def replaced(request: Request) -> None:
    """Another object, under the same key."""
    request.wfile.write(request.head_of_object(tag="another"))


def all_of_it(request: Request) -> None:
    """The whole object, whatever was asked for."""
    request.head(200, Content_Length=len(CONTENT), ETag='"tag"')
    request.wfile.write(CONTENT)


def silent(request: Request) -> None:
    """No answer."""
    request.server.over.wait(30)
    request.close_connection = True


def stalled(count: int) -> Behaviour:
    """`count` bytes of it; then nothing, on an open connection."""

    def behave(request: Request) -> None:
        request.wfile.write(request.head_of_object()[:count])
        silent(request)

    return behave


def _trickle(request: Request, content: bytes) -> None:
    for byte in content:
        if request.server.over.is_set():
            return
        request.wfile.write(bytes([byte]))
        time.sleep(0.05)


def trickling_head(request: Request) -> None:
    """An answer whose head comes byte by byte, and never ends."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    _trickle(request, b"x" * 10_000)


def trickling_body(request: Request) -> None:
    """What was asked for, byte by byte: never silent for as long as a timeout, and never done."""
    _trickle(request, request.head_of_object())


def refusing(status: int, code: str) -> Behaviour:
    """An error of the S3 API."""

    def behave(request: Request) -> None:
        body = f"<Error><Code>{code}</Code><Message>says the test</Message></Error>".encode()
        request.head(status, Content_Length=len(body), Content_Type="application/xml")
        if request.command != "HEAD":
            request.wfile.write(body)

    return behave


def endless_list(request: Request) -> None:
    """A page of a list that is said to go on where it began."""
    going_on = b"<IsTruncated>true</IsTruncated><NextContinuationToken>a</NextContinuationToken>"
    body = b"<ListBucketResult>" + going_on + b"</ListBucketResult>"
    request.head(200, Content_Length=len(body), Content_Type="application/xml")
    request.wfile.write(body)


def huge_answer(request: Request) -> None:
    """A page of a list without end."""
    request.head(200, Content_Length=2**40, Content_Type="application/xml")
    request.wfile.write(b"<ListBucketResult>")
    while not request.server.over.is_set():
        request.wfile.write(b" " * 2**20)


def accepting(request: Request) -> None:
    """Done, whatever it was."""
    request.head(200, Content_Length=0, ETag='"tag"')
