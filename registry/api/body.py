"""Request bodies: bounded, counted against what was announced, and not waited for without end.

The server shows a body that was cut off as one that ended, so only the count tells; where no length was announced
(chunked), nothing but the digest does (decision 9). Whoever judges and whoever stores see the same bytes (R13).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from typing import Final

from flask import g, request

from registry.access import Principal
from registry.api.ahead import ahead
from registry.context import context, peer, source
from registry.errors import BodyCutOffError, CodingError, TooLargeError
from registry.telemetry.environ import RECEIVED

READ: Final = 256 * 1024
"""Bytes asked for at a time; a read waits until so many are there."""

DRAIN_SECONDS: Final = 5.0
"""How long the rest of a refused body is read for."""

PAUSE: Final = 10.0
"""Seconds between two looks at whether the session is still ours."""


def check_coding() -> None:
    """Check that what is hashed, judged and stored is what stands in this request, and not what a coding makes of it.

    Whoever looks at a request before us (a proxy, an authorisation plug-in) may decode, or may not (R13). What could be
    framed in two ways is the server's to refuse, before this.

    Raises:
        CodingError: its body is compressed, by a content coding or a transfer coding.
    """
    for name, plain in (("Content-Encoding", "identity"), ("Transfer-Encoding", "chunked")):
        coding = request.headers.get(name)
        if coding is not None and coding.strip().lower() not in {plain, ""}:
            raise CodingError(f"{name}: got {coding[:80]!r}, expected none or {plain}")


def announced() -> int | None:
    """The Content-Length of this request, or None if none was announced."""
    return request.content_length


class Body:
    """The bytes of this request's body, as they come.

    Iterating ends early when the body is cut off (by the client, or by `stalled.py`) or takes too long, so that what
    came can be kept: `check` says so afterwards. `on_pause` is called before a chunk is handed on if the last call
    is PAUSE seconds ago, and may raise.
    """

    def __init__(self, *, limit: int, length: int | None, on_pause: Callable[[], None] | None = None) -> None:
        """Expect `length` bytes (None: unknown), at most `limit`.

        Raises:
            TooLargeError: more were announced.
        """
        self._limit = limit
        self._length = length
        self._on_pause = on_pause
        self._problem = ""
        self._received = 0
        if length is not None and length > limit:
            raise TooLargeError(f"body: got {length} bytes, expected at most {limit}")

    def __iter__(self) -> Iterator[bytes]:
        """The chunks; those of a body without a length are read ahead where they come fast.

        Raises:
            TooLargeError: more came than `limit`.
            TooManyRequestsError: this process receives as many bodies already as it may.
        """
        return self._chunks() if self._length is not None else ahead(self._chunks(), context().placement)

    def _chunks(self) -> Generator[bytes, None, None]:
        """The chunks, as they are read.

        Raises:
            TooLargeError: more came than `limit`.
            TooManyRequestsError: this process receives as many bodies already as it may.
        """
        started = paused = time.monotonic()
        deadline = context().settings.http.body_deadline
        with context().bodies.watched(peer(), _sender()) as progress:
            while chunk := request.stream.read(self._wanted()):
                self._received += len(chunk)
                progress.received = request.environ[RECEIVED] = self._received
                if self._received > self._limit:
                    raise TooLargeError(f"body: got more than {self._limit} bytes")
                now = time.monotonic()
                if self._on_pause is not None and now - paused > PAUSE:
                    self._on_pause()
                    paused = now
                yield chunk
                if now - started > deadline:
                    self._problem = f"took longer than {deadline} seconds"
                    return
        if self._length is not None and self._received < self._length:
            self._problem = f"got {self._received} bytes, {self._length} were announced"

    def to_the_end(self) -> Iterator[bytes]:
        """The chunks, for somebody who has no use for half of them.

        Raises:
            TooLargeError: more came than `limit`.
            BodyCutOffError: it was cut off.
        """
        yield from self
        self.check()

    def check(self) -> None:
        """Say whether all of it came.

        Raises:
            BodyCutOffError: it did not.
        """
        if self._problem:
            raise BodyCutOffError(f"body: {self._problem}")

    def _wanted(self) -> int:
        return READ if self._length is None else min(READ, self._length - self._received)


def drain() -> None:
    """Read and drop the rest of a refused request's body, for a while.

    A server that answers and closes while the client still sends makes most clients say "broken pipe" instead of
    what they were answered.
    """
    ends = time.monotonic() + DRAIN_SECONDS
    with context().bodies.drained(peer(), _sender()) as room:
        while room and time.monotonic() < ends and request.stream.read(READ):
            pass


def whole_body(*, limit: int) -> bytes:
    """All of a short body.

    Raises:
        TooLargeError: more than `limit` bytes.
        BodyCutOffError: less than was announced.
        TooManyRequestsError: too many are being sent.
    """
    with context().bodies.one(_sender(), "short bodies"):
        return b"".join(Body(limit=limit, length=announced()).to_the_end())


def _sender() -> str:
    """Whose body this is: an account's, or of somebody whom only the address tells."""
    principal: Principal | None = g.get("principal")
    return principal.name if principal is not None else source()
