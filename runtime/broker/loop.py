"""The broker's loop: one thread, descriptors and what is to be called for them, and what is called again and again."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Timer:
    call: Callable[[], None]
    interval: float
    due: float


@dataclass(slots=True)
class Loop:
    """Calls back when descriptors can be read, or a time has come, until it is stopped.

    `failed` is told of what a callback raises; the others are called all the same.
    """

    failed: Callable[[Exception], None]
    _poller: select.epoll = field(default_factory=select.epoll)
    _readers: dict[int, Callable[[], None]] = field(default_factory=dict)
    _timers: list[_Timer] = field(default_factory=list)
    _stop: int = field(default_factory=lambda: os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))

    def watch(self, fd: int, call: Callable[[], None]) -> None:
        """Call when `fd` can be read, or its other end is gone."""
        self._readers[fd] = call
        self._poller.register(fd, select.EPOLLIN)

    def forget(self, fd: int) -> None:
        """Stop watching `fd`, before it is closed."""
        if self._readers.pop(fd, None) is not None:
            self._poller.unregister(fd)

    def every(self, seconds: float, call: Callable[[], None]) -> None:
        """Call again and again."""
        self._timers.append(_Timer(call, seconds, time.monotonic() + seconds))

    def run(self) -> None:
        """Go round until `stop`."""
        self._poller.register(self._stop, select.EPOLLIN)
        while True:
            now = time.monotonic()
            wait = min((timer.due for timer in self._timers), default=now + 60) - now
            for fd, _ in self._poller.poll(max(0.0, wait)):
                if fd == self._stop:
                    return
                call = self._readers.get(fd)
                if call is not None:  # forgotten by one that was called before it
                    self._call(call)
            now = time.monotonic()
            for timer in self._timers:
                if timer.due <= now:
                    timer.due = now + timer.interval
                    self._call(timer.call)

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            self.failed(error)

    def stop(self) -> None:
        """Leave `run`; a signal handler may call this."""
        os.eventfd_write(self._stop, 1)
