"""An object's bytes as they come from an engine; what breaks off is gone on with."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from registry.errors import StorageError
from registry.store.s3_engine import translated
from registry.store.s3_time import Allowance, seconds_left

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_BROKEN: Final = 5
"""Answers that may break off one after the other without giving a byte."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer to a GET: its body, the bytes that it promises, and what tells this object from another."""

    body: Any
    length: int
    tag: str


class ObjectStream(io.RawIOBase):
    """The bytes of an object from `start` on, exactly as many as the first answer promised.

    An answer that ends early, or does not come in time, is asked for again from where it ended. The time that reading
    may wait for the engine is bounded in all, and grows with the bytes that come; the reader's own time is not counted.
    """

    def __init__(
        self,
        ask: Callable[[int, int], Answer],
        first: Answer,
        *,
        what: str,
        start: int,
        allowance: Allowance,
        rate: int,
    ) -> None:
        """Read `first`; `ask(start, end)` gives another answer; `rate` bytes a second let the allowance grow."""
        self._ask = ask
        self._answer = first
        self._what = what
        self._at = start
        self._end = start + first.length
        self._allowance = allowance
        self._rate = rate
        self._broken = 0

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        """See `io.RawIOBase`.

        Raises:
            StorageError: the engine does not give the rest, or not in time.
        """
        view = memoryview(buffer).cast("B")[: self._end - self._at]
        if not view:
            return 0
        with self._allowance.running():
            while not (chunk := self._read(len(view))):
                self._answer.body.close()
                self._answer = self._ask_again()
        self._at += len(chunk)
        self._allowance.grow(len(chunk) / self._rate)
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        """Give the connection up, if there is more to come on it."""
        self._answer.body.close()
        super().close()

    def _read(self, wanted: int) -> bytes:
        """What comes next; nothing if the answer broke off."""
        try:
            with translated(self._what):
                chunk: bytes = self._answer.body.read(wanted)
        except StorageError as error:
            return self._count(error)
        if chunk:
            self._broken = 0
            return chunk
        return self._count(None)

    def _count(self, cause: StorageError | None) -> bytes:
        self._broken += 1
        if self._broken > MAX_BROKEN or seconds_left() <= 0:
            missing = self._end - self._at
            raise StorageError(f"{self._what}: the engine did not give the last {missing} bytes in time") from cause
        return b""

    def _ask_again(self) -> Answer:
        time.sleep(max(0.0, min(0.05 * 2**self._broken, seconds_left())))
        found = self._ask(self._at, self._end)
        if (found.length, found.tag) != (self._end - self._at, self._answer.tag):
            found.body.close()
            raise StorageError(f"{self._what}: it was replaced while it was read")
        return found
