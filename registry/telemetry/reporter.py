"""The thread of a web process that writes log lines and counts requests, so that no request waits for either.

Requests only append to a queue. Where standard error is not read, or more comes than can be written, lines are
dropped, which is counted; a request is never held up by it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from registry.telemetry import lines, metrics

if TYPE_CHECKING:
    from prometheus_client import Gauge

PAUSE: Final = 0.05
"""Seconds that things are collected for, so that many are written at once."""

LOOK: Final = 1.0
"""Seconds between two looks at what is shown as it is now."""

MAX_WAITING: Final = 20_000
"""Lines and requests that wait; what comes beyond them is dropped."""

_METHODS: Final = frozenset({"GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"})


class Finished(NamedTuple):
    """A request that is over; `began` in seconds since 1970, bytes are of bodies."""

    began: float
    seconds: float
    method: str
    path: str
    endpoint: str
    status: int
    received: int
    sent: int
    account: str
    source: str
    request: str


@dataclass(slots=True, kw_only=True)
class Reporter:
    """Takes lines and requests from many threads. `access` says whether requests are lines, `count` whether metrics
    are kept."""

    formatter: lines.Formatter
    access: bool
    count: bool
    write: lines.Sink = lines.to_stderr
    shown: list[tuple[Gauge, Callable[[], int]]] = field(default_factory=list)
    """Gauges, and the functions that give what they show."""

    _waiting: deque[bytes | Finished] = field(default_factory=deque)
    _wake: threading.Event = field(default_factory=threading.Event)
    _busy: threading.Lock = field(default_factory=threading.Lock)
    _dropped: int = 0

    def start(self) -> None:
        """Write and count until the process ends; `flush` sees to what is left then."""
        threading.Thread(target=self._run, name="reporter", daemon=True).start()

    def line(self, line: bytes) -> None:
        """Have a log line written."""
        self._take(line)

    def finished(self, request: Finished) -> None:
        """Have a request counted and logged."""
        self._take(request)

    def flush(self) -> None:
        """Write and count what waits; also at the end of the process."""
        with self._busy:
            self._report()

    def _take(self, item: bytes | Finished) -> None:
        if len(self._waiting) >= MAX_WAITING:
            self._dropped += 1
            return
        self._waiting.append(item)
        if not self._wake.is_set():
            self._wake.set()

    def _run(self) -> None:
        while True:
            if self._wake.wait(LOOK):
                time.sleep(PAUSE)
            self._wake.clear()
            self.flush()

    def _report(self) -> None:
        batch = bytearray()
        for _ in range(len(self._waiting)):
            item = self._waiting.popleft()
            if isinstance(item, Finished):
                if self.count:
                    _count(item)
                if not self.access:
                    continue
                item = _access_line(self.formatter, item)
            if len(batch) + len(item) > lines.MAX_LINE:
                self.write(bytes(batch))
                batch.clear()
            batch += item
        if batch:
            self.write(bytes(batch))
        if self.count:
            self._show()

    def _show(self) -> None:
        dropped, self._dropped = self._dropped, 0
        metrics.LINES_DROPPED.inc(dropped)
        for gauge, value in self.shown:
            gauge.set(value())


_CHILDREN: Final[dict[tuple[str, str, int], Callable[[float], None]]] = {}
"""The histogram of each combination of labels: looking it up by its labels costs more than counting."""


def _count(request: Finished) -> None:
    method = request.method if request.method in _METHODS else "other"
    key = (method, request.endpoint, request.status)
    observe = _CHILDREN.get(key)
    if observe is None:
        observe = _CHILDREN[key] = metrics.REQUEST_SECONDS.labels(method, request.endpoint, request.status).observe
    observe(request.seconds)
    if request.received:
        metrics.RECEIVED.inc(request.received)
    if request.sent:
        metrics.SENT.inc(request.sent)


def _access_line(formatter: lines.Formatter, request: Finished) -> bytes:
    # The query is left out: clients put tokens and signatures there.
    method, path = request.method[:16], request.path[:512]
    numbers: dict[str, str | int | float] = {
        "bytes_in": request.received,
        "bytes": request.sent,
        "ms": round(request.seconds * 1000, 2),
        "account": request.account,
        "source": request.source,
        "request": request.request,
    }
    if formatter.as_json:
        numbers = {"event": "access", "method": method, "path": path, "status": request.status, **numbers}
    return formatter.line(request.began, "info", f"{method} {path} {request.status}", numbers)
