"""Descriptors with one owner: closed at the end of a block unless they were given away before."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from types import TracebackType
from typing import Self


class Owned:
    """Closes what it owns when its block ends, however it ends."""

    def __init__(self) -> None:
        """Own nothing yet."""
        self._fds: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for fd in self._fds:
            os.close(fd)
        self._fds.clear()

    def add(self, fd: int) -> int:
        """Own `fd` from now on, and return it."""
        self._fds.add(fd)
        return fd

    def close(self, fd: int) -> None:
        """Close one of them now."""
        self._fds.remove(fd)
        os.close(fd)

    def release(self, fd: int) -> int:
        """Give one away: it stays open, and is somebody else's."""
        self._fds.remove(fd)
        return fd

    def pipe(self) -> tuple[int, int]:
        """A new pipe, (read end, write end), both close-on-exec."""
        read, write = os.pipe()
        return self.add(read), self.add(write)

    def above(self, fd: int, lowest: int) -> int:
        """A copy of `fd` with a number of at least `lowest`, close-on-exec."""
        return self.add(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest))


def close_all_but(kept: Iterable[int]) -> None:
    """Close every descriptor of this process but `kept`."""
    wanted = sorted({-1, *kept})
    for lower, upper in zip(wanted, [*wanted[1:], 1 << 30], strict=True):
        if upper > lower + 1:
            os.closerange(lower + 1, upper)
