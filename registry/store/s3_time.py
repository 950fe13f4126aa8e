"""How long an engine may take, in all: kept at every socket operation, so that no trickle of bytes gets round it.

    allowance = Allowance(seconds)
    with allowance.running():       # time runs, for this thread
        ...                         # whatever reads from or writes to an engine's socket ends in time

A socket's own timeout begins anew with each byte, so an engine that sends one now and then would never be late. The
sockets here ask the allowance of the thread that uses them, before each operation.
"""

from __future__ import annotations

import io
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from botocore.awsrequest import (
    AWSHTTPConnection,
    AWSHTTPConnectionPool,
    AWSHTTPSConnection,
    AWSHTTPSConnectionPool,
    AWSResponse,
)
from botocore.httpsession import URLLib3Session

MAX_ANSWER: Final = 16 * 2**20
"""Bytes of an answer that is no object: a page of a list has a thousand entries at most."""

SEND: Final = 256 * 1024
"""Bytes that are sent in one operation."""


class _Running(threading.local):
    ends: float | None = None
    patient: bool = False


_running: Final = _Running()


class Allowance:
    """Seconds for one thing, used up while `running`; by one thread at a time."""

    def __init__(self, seconds: float) -> None:
        """Nothing runs yet."""
        self._left = seconds

    def grow(self, seconds: float) -> None:
        """Allow more: for bytes that came."""
        self._left += seconds

    @contextmanager
    def running(self, *, patient: bool = False) -> Iterator[None]:
        """Let time run; inside of another allowance, the shorter one counts.

        While `patient`, silence is no failure: the engine works, and has nothing to say before it is done.
        """
        started = time.monotonic()
        before, before_patient = _running.ends, _running.patient
        ends = started + self._left
        _running.ends, _running.patient = ends if before is None else min(before, ends), patient
        try:
            yield
        finally:
            _running.ends, _running.patient = before, before_patient
            self._left -= time.monotonic() - started


def seconds_left() -> float:
    """What is left of the allowance that runs in this thread; endless if none does."""
    return float("inf") if _running.ends is None else _running.ends - time.monotonic()


def _bounded(wanted: float | None) -> float | None:
    """A timeout for one operation.

    Raises:
        TimeoutError: there is no time left.
    """
    if _running.ends is None:
        return wanted
    left = seconds_left()
    if left <= 0:
        raise TimeoutError("the time allowed for the engine is over")
    return left if wanted is None or _running.patient else min(wanted, left)


class _Socket(socket.socket):
    """A socket whose timeout is the wanted one, or what is left of the allowance."""

    _wanted: float | None = None

    def settimeout(self, value: float | None, /) -> None:
        self._wanted = value
        super().settimeout(value)

    def _bound(self) -> None:
        super().settimeout(_bounded(self._wanted))

    def recv_into(self, *args: Any) -> int:
        self._bound()
        return super().recv_into(*args)

    def send(self, *args: Any) -> int:
        self._bound()
        return super().send(*args)

    def sendall(self, data: Any, *flags: int) -> None:
        for piece in _pieces(data):
            self._bound()
            super().sendall(piece, *flags)


class _TlsSocket(ssl.SSLSocket):
    """The same with TLS."""

    _wanted: float | None = None

    def settimeout(self, value: float | None, /) -> None:
        self._wanted = value
        super().settimeout(value)

    def _bound(self) -> None:
        super().settimeout(_bounded(self._wanted))

    def recv_into(self, *args: Any, **named: Any) -> int:
        self._bound()
        return super().recv_into(*args, **named)

    def send(self, *args: Any) -> int:
        self._bound()
        return super().send(*args)

    def sendall(self, data: Any, *flags: int) -> None:
        for piece in _pieces(data):
            self._bound()
            super().sendall(piece, *flags)


def _pieces(data: Any) -> Iterator[memoryview]:
    """A body in steps: a timeout is one of silence, and `sendall` would take it for the whole of a large part."""
    view = memoryview(data).cast("B")
    for start in range(0, len(view), SEND):
        yield view[start : start + SEND]


class _Connection(AWSHTTPConnection):  # type: ignore[misc]  # botocore ships no types
    timeout: float | None
    sock: Any

    def connect(self) -> None:
        self.timeout = _bounded(self.timeout)
        super().connect()
        plain = self.sock
        self.sock = _Socket(fileno=plain.detach())
        self.sock.settimeout(self.timeout)


class _TlsConnection(AWSHTTPSConnection):  # type: ignore[misc]  # botocore ships no types
    timeout: float | None

    def connect(self) -> None:
        self.timeout = _bounded(self.timeout)
        super().connect()


class _Pool(AWSHTTPConnectionPool):  # type: ignore[misc]  # botocore ships no types
    ConnectionCls = _Connection


class _TlsPool(AWSHTTPSConnectionPool):  # type: ignore[misc]  # botocore ships no types
    ConnectionCls = _TlsConnection


class BoundedSession(URLLib3Session):  # type: ignore[misc]  # botocore ships no types
    """botocore's way to send requests, over sockets that keep the allowance, and with bounded answers."""

    def __init__(self, **settings: Any) -> None:
        """See `URLLib3Session`."""
        super().__init__(**settings)
        self._pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
        self._manager.pool_classes_by_scheme = self._pool_classes_by_scheme

    def send(self, request: Any) -> Any:
        """Send a request; an answer that is no object is read at once, and no further than MAX_ANSWER.

        Raises:
            ValueError: there is more.
        """
        is_object, request.stream_output = request.stream_output, True
        answer = super().send(request)
        if is_object and answer.status_code < 300:
            return answer
        content = answer.raw.read(MAX_ANSWER + 1)
        if len(content) > MAX_ANSWER:
            answer.raw.close()
            raise ValueError(f"an answer of more than {MAX_ANSWER} bytes")
        return AWSResponse(answer.url, answer.status_code, answer.headers, _Whole(content))

    def _get_ssl_context(self) -> ssl.SSLContext:
        context: ssl.SSLContext = super()._get_ssl_context()
        context.sslsocket_class = _TlsSocket
        return context


class _Whole(io.BytesIO):
    """An answer's body that was read already, as botocore asks for it."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()
