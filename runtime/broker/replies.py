"""What a caller is told: lines for its standard output and error, and at the end a code to end with.

A message is a byte and its text: `1` and `2` a line for that stream, `x` the exit code in decimals, `-` that the broker
does not do this, and the caller may.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from runtime.broker import wire
from runtime.errors import ContainerError


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller at the other end of a connection. One that is gone is told nothing."""

    connection: socket.socket

    def say(self, text: str) -> None:
        """Have it print a line."""
        self._send(b"1" + _clean(text))

    def complain(self, text: str) -> None:
        """Have it print a line on standard error."""
        self._send(b"2" + _clean(text))

    def give(self, text: str, *, stderr: bool = False) -> None:
        """Have it print text as it is: what a verb printed."""
        for start in range(0, len(text), _PIECE):
            self._send((b"2" if stderr else b"1") + text[start : start + _PIECE].encode("utf-8", "replace"))

    def failed(self, error: ContainerError) -> None:
        """Nothing was started, or what was started broke."""
        self.complain(f"pratique: {'; '.join(str(error).splitlines())}")
        self.end(error.exit_code)

    def end(self, code: int) -> None:
        """Have it end with this code."""
        self._send(b"x%d" % code)

    def leave(self) -> None:
        """Have it do by itself what it asked for."""
        self._send(b"-")

    def _send(self, message: bytes) -> None:
        with contextlib.suppress(OSError):
            wire.send(self.connection, message)


_PIECE = 16 * 1024


def _clean(text: str) -> bytes:
    """A line in which nothing steers a terminal (as `pratique.output.clean` has it)."""
    shown = (c if c.isprintable() or c == " " else c.encode("unicode_escape").decode() for c in text)
    return "".join(shown).encode("utf-8", "replace") + b"\n"
