"""A confined child as its owner sees it: a descriptor to wait on, and one outcome.

What a child answers is bounded, and nothing of it is believed but that it is bytes. A crash, a signal, a
timeout or an answer that is too long is a `Failed`, never an empty result (L6: a scanner that crashed is not
a pass).
"""

from __future__ import annotations

import os
import select
import struct
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from registry.judge.confine import MAX_MESSAGE, Limits

MAX_PARTS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The child did its work."""

    parts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """The work refused its input, with the reason: the same input will be refused again."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The child did not answer; `code` is `timeout`, `crashed`, `too-large` or `not-confined`."""

    code: str
    message: str


Outcome = Answered | Refused | Failed


class Process(Protocol):
    """The process behind a child, wherever it was forked."""

    def kill(self) -> None:
        """End it, if it has not ended."""

    def wait(self) -> int:
        """Its wait status (wait(2)), once it has ended; called once."""


class Spawner(Protocol):
    """Starts confined children; `work` is a name in the table of works."""

    def spawn(self, work: str, arguments: Mapping[str, str | int], *, sources: Sequence[int], limits: Limits) -> Child:
        """Start `work` on the descriptors `sources`, which stay the caller's to close.

        Raises:
            OSError: no child could be made.
        """


@dataclass(slots=True, kw_only=True)
class Child:
    """A running child. `fileno` becomes readable when `poll` has something to do."""

    process: Process
    answer: int
    limits: Limits
    deadline: float = 0.0
    _read: bytearray = field(default_factory=bytearray)
    _outcome: Outcome | None = None

    def __post_init__(self) -> None:
        """The clock of its deadline starts now."""
        self.deadline = time.monotonic() + self.limits.seconds
        os.set_blocking(self.answer, False)

    def fileno(self) -> int:
        """The descriptor of its answer, for a selector; valid until `poll` gave an outcome."""
        return self.answer

    def poll(self) -> Outcome | None:
        """Read what there is; the outcome once the child has ended, None before. Never blocks for long."""
        while self._outcome is None:
            if time.monotonic() >= self.deadline:
                return self._end(Failed(code="timeout", message=f"no answer within {self.limits.seconds:g} s"))
            try:
                chunk = os.read(self.answer, 1024 * 1024)
            except BlockingIOError:
                return None
            if not chunk:
                return self._end(None)
            self._read += chunk
            if len(self._read) > self.limits.answer:
                return self._end(Failed(code="too-large", message=f"answer beyond {self.limits.answer} bytes"))
        return self._outcome

    def kill(self) -> None:
        """End it now, whatever it does; no error if it has ended."""
        if self._outcome is None:
            self._end(Failed(code="crashed", message="ended by its owner"))

    def wait(self) -> Outcome:
        """Block until it has ended, its deadline at the latest."""
        while (outcome := self.poll()) is None:
            select.select([self], [], [], max(0.0, self.deadline - time.monotonic()))
        return outcome

    def _end(self, failed: Failed | None) -> Outcome:
        if failed is not None:
            self.process.kill()
        os.close(self.answer)
        status = self.process.wait()
        self._outcome = failed if failed is not None else read_outcome(bytes(self._read), status)
        self._read.clear()
        return self._outcome


def read_outcome(answer: bytes, status: int) -> Outcome:
    """What an answer and a wait status come to (the format is in `confine.py`)."""
    if os.WIFSIGNALED(status):
        return Failed(code="crashed", message=f"ended by signal {os.WTERMSIG(status)}")
    code = os.waitstatus_to_exitcode(status)
    if code != 0 or not answer:
        return Failed(code="crashed", message=f"ended with status {code} and {len(answer)} bytes of answer")
    kind, body = answer[:1], answer[1:]
    if kind == b"A":
        parts = _split(body)
        return Failed(code="crashed", message="its answer is cut off") if parts is None else Answered(parts=parts)
    message = body[:MAX_MESSAGE].decode("utf-8", "replace")
    if kind == b"R":
        return Refused(message=message)
    return Failed(code="not-confined" if kind == b"N" else "crashed", message=message)


def _split(body: bytes) -> tuple[bytes, ...] | None:
    parts: list[bytes] = []
    position = 0
    while position < len(body):
        if len(body) - position < 8 or len(parts) == MAX_PARTS:
            return None
        (length,) = struct.unpack_from(">Q", body, position)
        position += 8
        if length > len(body) - position:
            return None
        parts.append(body[position : position + length])
        position += length
    return tuple(parts)
