"""The registry's processes: kept running, reloaded, and stopped in order.

A process that ends by itself is started again; one that cannot stay up stops the registry: half of one would be worse
to find. On SIGHUP new web processes are started beside the old ones, by the settings as they are then, at the same
socket; when they are ready, the old ones take no more requests and end with their last. On SIGTERM readiness turns
first, then the web ends, then all others; a second SIGTERM hastens that.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Final, Protocol

from registry import notify
from registry.errors import RegistryError

START_SECONDS: Final = 60.0
"""How long a process may take until it can be asked."""

STOP_SECONDS: Final = 30.0
"""How long a process other than the web may take to stop."""

HASTE_SECONDS: Final = 1.0
"""How long any may take, once a second signal hastens the stop."""

MAX_RESTARTS: Final = 5
"""Restarts of one process within RESTART_SECONDS, after which the registry stops."""

RESTART_SECONDS: Final = 60.0
TICK: Final = 0.1

_log = logging.getLogger("pratique.serve")


class Signals:
    """What was asked for by signals: SIGTERM and SIGINT to stop, SIGHUP to reload."""

    def __init__(self) -> None:
        """Take these signals from now on."""
        self.stops = 0
        self.reload = False
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        signal.signal(signal.SIGHUP, self._reload)

    @property
    def stop(self) -> bool:
        """True once the registry is to stop."""
        return self.stops > 0

    @property
    def haste(self) -> bool:
        """True once it is to stop without waiting for anybody."""
        return self.stops > 1

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stops += 1

    def _reload(self, _number: int, _frame: FrameType | None) -> None:
        self.reload = True


class Ready(Protocol):
    """Says when a process can be asked."""

    def look(self) -> bool:
        """True once it can; never blocks."""

    def close(self) -> None:
        """Nobody will look again."""


@dataclass(frozen=True, slots=True)
class Appears:
    """A process can be asked when its socket is there."""

    path: Path

    def look(self) -> bool:
        """See `Ready`."""
        return self.path.exists()

    def close(self) -> None:
        """See `Ready`."""


@dataclass(slots=True)
class Says:
    """A process can be asked when it has written `count` bytes into a pipe."""

    reader: int
    count: int

    def look(self) -> bool:
        """See `Ready`."""
        if self.count > 0:
            with suppress(BlockingIOError):
                self.count -= len(os.read(self.reader, 64))
        return self.count <= 0

    def close(self) -> None:
        """See `Ready`."""
        os.close(self.reader)


class Child(Protocol):
    """A process that was started; `subprocess.Popen` is one."""

    @property
    def pid(self) -> int:
        """Its number, and its session's."""

    @property
    def returncode(self) -> int | None:
        """Its exit code, once `poll` or `wait` has seen it."""

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""

    def wait(self, timeout: float | None = None, /) -> int | None:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, after so many seconds.
        """

    def send_signal(self, number: int, /) -> None:
        """Send it a signal."""


Launch = Callable[[], tuple[Child, Ready]]


@dataclass(slots=True, kw_only=True)
class Process:
    """One process that is kept running. `launch` starts it, and returns it with what says that it can be asked.

    With `renewed`, a reload ends it and starts it again: for what answers by settings or a certificate of its own.
    `retire` is the signal that ends it once another has taken its place.
    """

    name: str
    launch: Launch
    renewed: bool = False
    retire: signal.Signals = signal.SIGTERM
    popen: Child | None = None
    ready: Ready | None = None
    started: list[float] = field(default_factory=list)

    def start(self) -> None:
        """Start it, again if it has ended."""
        self._forget()
        self.started.append(time.monotonic())
        self.popen, self.ready = self.launch()

    def wait_until_ready(self, stopped: Callable[[], bool]) -> None:
        """Return when it can be asked, or the registry is to stop.

        Raises:
            RegistryError: it ended, or takes too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while self.ready is not None and not self.ready.look():
            if stopped():
                return
            if self.popen is None or self.popen.poll() is not None:
                code = self.popen.returncode if self.popen is not None else None
                raise RegistryError(f"process {self.name}: ended with {code} before it could be used")
            if time.monotonic() > deadline:
                raise RegistryError(f"process {self.name}: not ready within {START_SECONDS:g} s")
            time.sleep(0.02)

    @property
    def ended(self) -> bool:
        """True if it was started and does not run."""
        return self.popen is not None and self.popen.poll() is not None

    def failing(self) -> bool:
        """True if it was started too often of late."""
        now = time.monotonic()
        self.started[:] = [at for at in self.started if now - at < RESTART_SECONDS]
        return len(self.started) > MAX_RESTARTS

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.popen is not None and self.popen.poll() is None:
            self.popen.send_signal(number)

    def renew(self) -> None:
        """Have it end within HASTE_SECONDS, and start it again; not counted as a restart."""
        self.send(signal.SIGTERM)
        if self.popen is not None:
            with suppress(subprocess.TimeoutExpired):
                self.popen.wait(HASTE_SECONDS)
        self.kill()
        self.start()
        self.started.pop()

    def kill(self) -> None:
        """End it now if it runs, with all that it started in its session, and forget it."""
        if self.popen is not None and self.popen.poll() is None:
            _log.warning("process %s did not stop in time: it is killed", self.name)
            os.killpg(self.popen.pid, signal.SIGKILL)
            self.popen.wait()
        self._forget()

    def _forget(self) -> None:
        if self.ready is not None:
            self.ready.close()
            self.ready = None


@dataclass(slots=True, kw_only=True)
class Supervisor:
    """Keeps `inner` and `fronts` running. `reload` makes those in front by the settings as they are now.

    `drain` makes readiness turn, `refuse` has nobody connect any more. Seconds: `drain_seconds` between the two,
    `stop_seconds` for requests that are under way then, `retire_seconds` for those that old web processes still have
    after a reload.
    """

    inner: Sequence[Process]
    fronts: Sequence[Process]
    signals: Signals
    reload: Callable[[], Sequence[Process]]
    drain: Callable[[], None]
    refuse: Callable[[], None]
    drain_seconds: float
    stop_seconds: float
    retire_seconds: float
    _retiring: list[tuple[Process, float]] = field(default_factory=list)
    _watchdog: float | None = field(default_factory=notify.watchdog_seconds)
    _told: float = 0.0

    @property
    def processes(self) -> tuple[Process, ...]:
        """All that are kept running."""
        return (*self.inner, *self.fronts)

    def start(self) -> None:
        """Start all, and return when they can be asked.

        Raises:
            RegistryError: one does not come up.
        """
        for process in self.processes:
            process.start()
        for process in self.processes:
            process.wait_until_ready(self._stops)

    def _stops(self) -> bool:
        """True if the registry is to stop before it is up.

        Raises:
            RegistryError: a process has ended, perhaps one that others wait for.
        """
        for process in self.processes:
            if process.popen is not None and process.ended:
                raise RegistryError(f"process {process.name}: ended with {process.popen.returncode} as it was started")
        return self.signals.stop

    def watch(self) -> None:
        """Keep them running until the registry is to stop, and has drained.

        Raises:
            RegistryError: a process does not stay up.
        """
        while not self.signals.stop:
            self._step()
            if self.signals.reload:
                self.signals.reload = False
                self._reload()
        notify.tell(notify.STOPPING)
        self.drain()
        ends = time.monotonic() + self.drain_seconds
        while time.monotonic() < ends and not self.signals.haste:
            self._step()

    def stop(self) -> None:
        """Those in front first, which finish their requests; then the others at once: their work is in the queue."""
        fronts = [*self.fronts, *(process for process, _ in self._retiring)]
        for process in fronts:
            process.send(signal.SIGTERM)
        self.refuse()
        self._await(fronts, self.stop_seconds)
        for process in self.inner:
            process.send(signal.SIGTERM)
        self._await(self.inner, STOP_SECONDS)

    def _step(self) -> None:
        time.sleep(TICK)
        for process in self.processes:
            if not process.ended:
                continue
            code = process.popen.returncode if process.popen is not None else None
            _log.warning("process %s ended with %s: it is started again", process.name, code)
            if process.failing():
                raise RegistryError(f"process {process.name}: ended {MAX_RESTARTS} times in {RESTART_SECONDS:g} s")
            process.start()
        self._look_after_retiring()
        if self._watchdog is not None and time.monotonic() - self._told >= self._watchdog:
            self._told = time.monotonic()
            notify.tell(notify.WATCHDOG)

    def _look_after_retiring(self) -> None:
        for retiring in tuple(self._retiring):
            process, ends = retiring
            if time.monotonic() > ends:
                process.kill()
            if process.ended:
                process.kill()
                self._retiring.remove(retiring)

    def _reload(self) -> None:
        notify.tell(notify.reloading())
        fronts: Sequence[Process] = ()
        try:
            fronts = self.reload()
            for process in fronts:
                process.start()
            for process in fronts:
                process.wait_until_ready(lambda: self.signals.stop)
        except (RegistryError, OSError) as error:
            _log.error("reload: %s; all goes on by the settings before", error)
            for process in fronts:
                process.kill()
        else:
            for process in self.fronts:
                process.send(process.retire)
                self._retiring.append((process, time.monotonic() + self.retire_seconds))
            self.fronts = fronts
            for each in self.inner:
                if each.renewed:
                    each.renew()
            _log.info("reloaded: new web processes serve, the old ones end with their last requests")
        notify.tell(notify.READY)

    def _await(self, processes: Sequence[Process], seconds: float) -> None:
        """Return when all have ended, by force after so many seconds, or sooner if the stop is hastened."""
        ends = time.monotonic() + seconds
        while not all(process.popen is None or process.ended for process in processes):
            if self.signals.haste:
                ends = min(ends, time.monotonic() + HASTE_SECONDS)
            if time.monotonic() > ends:
                break
            time.sleep(0.02)
        for process in processes:
            process.kill()
