"""See a running container through to its end: its output, the signals for it, and whether it may go on.

One loop in one thread. Nobody's slowness stops it: what a caller does not read waits in a bounded buffer and
then in the container's pipe, while the watch and the signals go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from runtime.linux import syscalls
from runtime.log import LogWriter, Stream
from runtime.model import StartRequest, StopReason
from runtime.spawn import Running

Watch = Callable[[], StopReason | None]
"""Asked again and again while a container runs; a reason stops it, and so does an exception."""
FORWARDED: Final = tuple(
    getattr(signal, f"SIG{name}") for name in ("HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "WINCH", "ALRM")
)
"""What a foreground launcher passes on to the container."""
_IMPATIENT: Final = frozenset({int(signal.SIGINT), int(signal.SIGTERM)})
IMPATIENCE: Final = 3
"""So many SIGINT or SIGTERM and the container is killed: a first process without a handler ignores them."""
_CHUNK: Final = 4096
"""PIPE_BUF: what poll(2) says can be written to a pipe without waiting."""
_BUFFER: Final = 64 * 1024
_DRAIN: Final = 5.0
"""Seconds to wait for the end of the output once the container is gone: somebody else may hold a pipe."""


class Sink(Protocol):
    """Where a stream of output goes."""

    def write(self, stream: Stream, data: bytes) -> None:
        """Take what the container wrote."""


class Forward:
    """Passes output on to the caller's own descriptors, never waiting for them."""

    def __init__(self, fds: dict[Stream, int]) -> None:
        """Write to these descriptors."""
        self._fds = fds
        self._pending: dict[Stream, bytes] = dict.fromkeys(fds, b"")

    def write(self, stream: Stream, data: bytes) -> None:
        """Queue output."""
        if stream in self._fds:
            self._pending[stream] += data

    def full(self, stream: Stream) -> bool:
        """True while the container had better wait."""
        return len(self._pending.get(stream, b"")) >= _BUFFER

    def waiting(self) -> dict[int, Stream]:
        """Descriptors that there is something for."""
        return {self._fds[stream]: stream for stream, data in self._pending.items() if data}

    def flush(self, stream: Stream) -> None:
        """Write a piece that poll(2) says there is room for. A reader that is gone loses the rest."""
        try:
            written = os.write(self._fds[stream], self._pending[stream][:_CHUNK])
        except BlockingIOError:
            return
        except OSError:
            self.abandon(stream)
        else:
            self._pending[stream] = self._pending[stream][written:]

    def abandon(self, stream: Stream) -> None:
        """Write nothing there any more."""
        self._fds.pop(stream, None)
        self._pending.pop(stream, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a container ended. A signal's number is added to 128."""

    exit_code: int
    reason: StopReason | None


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """The loop. `kill` kills everything in the container's cgroups."""

    request: StartRequest
    running: Running
    kill: Callable[[], None]
    log: LogWriter | None = None
    forward: Forward | None = None
    stdin: int | None = None
    watch: Watch | None = None
    watch_interval: float = 1.0
    idle: Callable[[], None] = lambda: None
    """Called once a watch interval: the launcher looks after its guard."""
    _reason: StopReason | None = None
    _kill_at: float | None = None
    _next_look: float = 0.0
    _impatient: int = 0
    _open: dict[int, Stream] = field(default_factory=dict)
    _input: bytes = b""

    def run(self, wake_fd: int | None = None) -> Ended:
        """Return when the container has ended and its output is written.

        Bytes on `wake_fd` are numbers of signals to pass on (signal.set_wakeup_fd). Where it ends, the caller is gone,
        and the container with it.
        """
        self._open = {self.running.stdout: "stdout", self.running.stderr: "stderr"}
        self._next_look = time.monotonic() + self.watch_interval
        while True:
            ready = self._wait(wake_fd)
            if wake_fd is not None and wake_fd in ready and not self._pass_on(wake_fd):
                wake_fd = None
            self._move(ready)
            self._look()
            if self.running.pidfd in ready:
                break
        status = os.waitid(os.P_PIDFD, self.running.pidfd, os.WEXITED)
        self._drain(wake_fd)
        if self.log is not None:
            self.log.close()
        code = 0 if status is None else status.si_status
        signalled = status is not None and status.si_code != os.CLD_EXITED
        return Ended(exit_code=128 + code if signalled else code, reason=self._reason)

    def _wait(self, wake_fd: int | None) -> frozenset[int]:
        poller = select.poll()
        poller.register(self.running.pidfd, select.POLLIN)
        if wake_fd is not None:
            poller.register(wake_fd, select.POLLIN)
        self._register_streams(poller)
        deadlines = [self._next_look, *([] if self._kill_at is None else [self._kill_at])]
        timeout = max(0.0, min(deadlines) - time.monotonic())
        return frozenset(fd for fd, _ in poller.poll(timeout * 1000 + 1))

    def _register_streams(self, poller: select.poll) -> None:
        for fd, stream in self._open.items():
            if self.forward is None or not self.forward.full(stream):
                poller.register(fd, select.POLLIN)
        if self.forward is not None:
            for fd in self.forward.waiting():
                poller.register(fd, select.POLLOUT)
        if self.running.stdin is not None:
            if self._input:
                poller.register(self.running.stdin, select.POLLOUT)
            elif self.stdin is not None:
                poller.register(self.stdin, select.POLLIN)

    def _move(self, ready: Iterable[int]) -> None:
        """Move what can be moved between the container's streams, the log and the caller."""
        for fd in ready:
            if fd in self._open:
                self._read(fd)
        if self.forward is not None:
            for fd, stream in self.forward.waiting().items():
                if fd in ready:
                    self.forward.flush(stream)
        if self.running.stdin is not None:
            self._feed(ready)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, _BUFFER)
        except BlockingIOError:
            return
        stream = self._open[fd]
        if not data:
            del self._open[fd]
            return
        if self.log is not None:
            self.log.write(stream, data)
        if self.forward is not None:
            self.forward.write(stream, data)

    def _feed(self, ready: Iterable[int]) -> None:
        """Standard input, a piece at a time; its end is passed on once all of it is."""
        if self.stdin is not None and self.stdin in ready and not self._input:
            try:
                self._input = os.read(self.stdin, _CHUNK)
            except OSError:
                self._input = b""
            if not self._input:
                self._close_input()
        if self._input and self.running.stdin is not None:
            try:
                written = os.write(self.running.stdin, self._input)
            except BlockingIOError:
                return
            except OSError:
                self._close_input()
            else:
                self._input = self._input[written:]

    def _close_input(self) -> None:
        self.running.close_stdin()
        self._input, self.stdin = b"", None

    def _pass_on(self, wake_fd: int) -> bool:
        """Pass signals on; False if whoever sends them is gone."""
        numbers = _numbers(wake_fd)
        if numbers is None:
            self.kill()
            if self.forward is not None:
                for stream in ("stdout", "stderr"):
                    self.forward.abandon(stream)
            return False
        for number in numbers:
            if number not in FORWARDED:
                continue
            self._signal(number)
            if number in _IMPATIENT:
                self._impatient += 1
                if self._impatient >= IMPATIENCE:
                    self.kill()
        return True

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            syscalls.pidfd_send_signal(self.running.pidfd, number)

    def _look(self) -> None:
        """Ask whether the container may go on, and kill one that was told to stop and did not."""
        now = time.monotonic()
        if self._kill_at is not None and now >= self._kill_at:
            self._kill_at = None
            self.kill()
        if now < self._next_look:
            return
        self._next_look = now + self.watch_interval
        self.idle()
        if self.watch is None or self._reason is not None:
            return
        try:
            reason = self.watch()
        except Exception as error:
            reason = StopReason(code="watch-failed", message=f"{type(error).__name__}: {error}")
        if reason is not None:
            self.stop(reason)

    def stop(self, reason: StopReason) -> None:
        """Tell the container to stop, and remember why; it is killed after its grace, or at once."""
        self._reason = reason
        if reason.at_once:
            self.kill()
            return
        self._signal(self.request.stop_signal)
        self._kill_at = time.monotonic() + self.request.stop_grace

    def _drain(self, wake_fd: int | None) -> None:
        """Take the rest of the output and hand it on, unless SIGINT or SIGTERM says to leave it."""
        deadline = time.monotonic() + _DRAIN
        while self._open or (self.forward is not None and self.forward.waiting()):
            poller = select.poll()
            self._register_streams(poller)
            if wake_fd is not None:
                poller.register(wake_fd, select.POLLIN)
            left = deadline - time.monotonic()
            if left <= 0:
                self._open = {}
            ready = [fd for fd, _ in poller.poll(left * 1000 if self._open else None)]
            if wake_fd is not None and wake_fd in ready:
                numbers = _numbers(wake_fd)
                if numbers is None or {*numbers} & _IMPATIENT:
                    return
            self._move(ready)


def _numbers(wake_fd: int) -> bytes | None:
    """Numbers of signals that came; None if whoever sends them is gone."""
    try:
        return os.read(wake_fd, 64) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None
