"""Request bodies: bounded, counted against what was announced, and not waited for without end.

The server shows a body that was cut off as one that ended, so only the count tells; where no length was announced
(chunked), nothing but the digest does (decision 9). Whoever judges and whoever stores see the same bytes (R13).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from flask import request

from registry.errors import BodyCutOffError, TooLargeError
from registry.settings import HttpSettings

READ: Final = 256 * 1024
"""Bytes asked for at a time; a read waits until so many are there."""

WINDOW: Final = 10.0
"""Seconds over which the minimum rate is measured."""


def announced() -> int | None:
    """The Content-Length of this request, or None if none was announced."""
    return request.content_length


class Body:
    """The bytes of this request's body, as they come.

    Iterating ends early when the body is cut off, comes too slowly, or takes too long: `check` says so afterwards,
    when what came has been kept. `on_chunk` is called with the number of bytes so far, now and then.
    """

    def __init__(self, settings: HttpSettings, *, limit: int, on_chunk: Callable[[], None] | None = None) -> None:
        """Expect at most `limit` bytes.

        Raises:
            TooLargeError: more were announced.
        """
        self._settings = settings
        self._limit = limit
        self._announced = announced()
        self._on_chunk = on_chunk
        self._problem = ""
        self.received = 0
        if self._announced is not None and self._announced > limit:
            raise TooLargeError(f"body: got {self._announced} bytes, expected at most {limit}")

    def __iter__(self) -> Iterator[bytes]:
        """The chunks.

        Raises:
            TooLargeError: more came than `limit`.
        """
        stream = request.stream
        start = mark = time.monotonic()
        at_mark = 0
        while self._announced is None or self.received < self._announced:
            wanted = READ if self._announced is None else min(READ, self._announced - self.received)
            chunk = stream.read(wanted)
            if not chunk:
                break
            self.received += len(chunk)
            if self.received > self._limit:
                raise TooLargeError(f"body: got more than {self._limit} bytes")
            yield chunk
            now = time.monotonic()
            if now - start > self._settings.body_deadline:
                self._problem = f"took longer than {self._settings.body_deadline} seconds"
                return
            if now - mark > WINDOW:
                if self.received - at_mark < self._settings.body_minimum_rate * (now - mark):
                    self._problem = f"came slower than {self._settings.body_minimum_rate} bytes a second"
                    return
                mark, at_mark = now, self.received
                if self._on_chunk is not None:
                    self._on_chunk()
        if self._announced is not None and self.received < self._announced:
            self._problem = f"got {self.received} bytes, {self._announced} were announced"

    def check(self) -> None:
        """Say whether all of it came.

        Raises:
            BodyCutOffError: it did not.
        """
        if self._problem:
            raise BodyCutOffError(f"body: {self._problem}")


def whole_body(settings: HttpSettings, *, limit: int) -> bytes:
    """All of a short body.

    Raises:
        TooLargeError: more than `limit` bytes.
        BodyCutOffError: less than was announced.
    """
    body = Body(settings, limit=limit)
    content = b"".join(body)
    body.check()
    return content
