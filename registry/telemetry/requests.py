"""Around the application: who asks, under which id, and what came of it.

What is found out stands in the request's environment (`environ.py`), for handlers.
"""

from __future__ import annotations

import itertools
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final

from registry.proxies import Proxies
from registry.telemetry import traces
from registry.telemetry.environ import ACCOUNT, ENDPOINT, RECEIVED, REQUEST, SOURCE
from registry.telemetry.origin import REQUEST_ID, Origin, current
from registry.telemetry.reporter import Finished, Reporter

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_OPEN: Final = frozenset({"/healthz", "/readyz"})
_REFUSED: Final = b'{"errors": [{"code": "DENIED", "message": "plain HTTP is answered to proxies alone; use HTTPS"}]}'


class Observed:
    """A WSGI application whose requests are named, counted and logged."""

    def __init__(
        self, application: WSGIApplication, *, proxies: Proxies, reporter: Reporter, proxies_only: bool = False
    ) -> None:
        """Observe `application`; with `proxies_only`, others than proxies are refused (health checks excepted)."""
        self._application, self._proxies, self._reporter = application, proxies, reporter
        self._proxies_only = proxies_only
        self._prefix = secrets.token_hex(6)
        self._numbers = itertools.count(1)
        self.under_way: Final[set[int]] = set()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """As PEP 3333 has it."""
        began, number = time.perf_counter(), next(self._numbers)
        self.under_way.add(number)
        peer, request = environ["REMOTE_ADDR"], f"{self._prefix}-{number:x}"
        source, believed = peer, self._proxies.believes(peer)
        if believed:
            source = self._proxies.source(peer, environ.get(self._proxies.variable, ""))
            named = environ.get("HTTP_X_REQUEST_ID", "")
            request = named if REQUEST_ID.fullmatch(named) else request
        environ[SOURCE], environ[REQUEST] = source, request
        span = traces.begin(environ, believed=believed) if traces.on() else None
        token = current.set(Origin(request, span.traceparent if span is not None else ""))
        status = 500

        def start(
            line: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            nonlocal status
            status = int(line[:3])
            return start_response(line, [*headers, ("X-Request-Id", request)], exc_info)

        def finish(sent: int) -> None:
            seconds = time.perf_counter() - began
            self.under_way.discard(number)
            self._reporter.finished(_finished(environ, seconds, status, sent))
            if span is not None:
                span.end(environ.get(ENDPOINT, ""), status)

        try:
            if self._proxies_only and not believed and environ["PATH_INFO"] not in _OPEN:
                answer: Iterable[bytes] = _refuse(start)
            else:
                answer = self._application(environ, start)
        except BaseException:
            finish(0)
            raise
        finally:
            current.reset(token)
            if span is not None:
                span.leave()
        if isinstance(answer, list):
            finish(sum(map(len, answer)))
            return answer
        return _Sent(answer, finish)


class _Sent:
    """The pieces of an answer on their way; over when the server closes it, whether all were sent or not."""

    def __init__(self, pieces: Iterable[bytes], finish: Callable[[int], None]) -> None:
        self._pieces, self._next, self._finish = pieces, iter(pieces), finish
        self._sent = 0
        self._over = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            piece = next(self._next)
        except BaseException:
            self._end()
            raise
        self._sent += len(piece)
        return piece

    def close(self) -> None:
        try:
            if (close := getattr(self._pieces, "close", None)) is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._finish(self._sent)


def _refuse(start: Callable[[str, list[tuple[str, str]]], object]) -> list[bytes]:
    start("403 Forbidden", [("Content-Type", "application/json"), ("Content-Length", str(len(_REFUSED)))])
    return [_REFUSED]


def _finished(environ: WSGIEnvironment, seconds: float, status: int, sent: int) -> Finished:
    received = environ.get(RECEIVED)
    if received is None:
        length = environ.get("CONTENT_LENGTH", "")
        received = int(length) if length.isascii() and length.isdigit() else 0
    return Finished(
        time.time() - seconds,
        seconds,
        environ["REQUEST_METHOD"],
        environ["PATH_INFO"],
        environ.get(ENDPOINT, "none"),
        status,
        received,
        0 if environ["REQUEST_METHOD"] == "HEAD" else sent,
        environ.get(ACCOUNT, ""),
        environ[SOURCE],
        environ[REQUEST],
    )
