"""Whether what runs may go on: every container of the state folder that a slot supervises, whoever had it started.

Each is judged anew whenever something changed (runtime.watch). Registries are asked by another process (clerk.py). A
container whose record of what to watch cannot be read is stopped: nobody knows what it is.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from runtime.broker.slot import WATCHED
from runtime.errors import ContainerError, NoSuchContainerError
from runtime.host import Host
from runtime.linux import syscalls
from runtime.model import ContainerId, StopReason
from runtime.record import Container
from runtime.state import StateStore, process_start
from runtime.store import Store
from runtime.watch import Watcher
from runtime.watched import Watched, decode


@dataclass(slots=True, kw_only=True)
class Watching:
    """Watches all of them, from one loop."""

    host: Host
    store: StateStore
    clock: Callable[[], datetime]
    _watchers: dict[ContainerId, Watcher | None] = field(default_factory=dict)
    _kill_at: dict[ContainerId, float] = field(default_factory=dict)

    def find(self) -> None:
        """Watch what runs in slots and is not watched yet: that a former broker started."""
        for name in self.store.names():
            with contextlib.suppress(NoSuchContainerError):
                container = self.store.read(name)
                if container.status == "running" and container.cgroup and name not in self._watchers:
                    self.begin(name)

    def begin(self, name: ContainerId, what: Watched | None = None) -> None:
        """Watch a container that has started."""
        try:
            self._watchers[name] = self._watcher(what or read_watched(self.store, self.host.store, name))
        except (ContainerError, OSError):
            self._watchers[name] = None

    def end(self, name: ContainerId) -> None:
        """It has ended."""
        self._watchers.pop(name, None)
        self._kill_at.pop(name, None)

    @property
    def any(self) -> bool:
        """True while something runs."""
        return bool(self._watchers)

    def look(self) -> None:
        """Ask for each whether it may go on; to be called every second."""
        self.find()  # also what was on its way when this broker came up
        now = time.monotonic()
        for name in [name for name, deadline in self._kill_at.items() if deadline <= now]:
            self._kill_at.pop(name)
            self._kill(name)
        for name, watcher in list(self._watchers.items()):
            if not self.store.held(name):
                self.end(name)  # an adopted one, whose slot tells nobody
            elif name not in self._kill_at:
                reason = _ask(watcher)
                if reason is not None:
                    self._stop(name, reason)

    def _watcher(self, what: Watched) -> Watcher:
        return Watcher(host=self.host, watched=what, clock=self.clock, sync_every=None)

    def _stop(self, name: ContainerId, reason: StopReason) -> None:
        self.store.ask_stop(name, reason)
        with contextlib.suppress(NoSuchContainerError):
            container = self.store.read(name)
            if reason.at_once:
                self._kill_at[name] = time.monotonic()
                container.group.kill()
            else:
                self._kill_at[name] = time.monotonic() + container.stop_grace
                _signal(container)

    def _kill(self, name: ContainerId) -> None:
        with contextlib.suppress(NoSuchContainerError, OSError):
            if self.store.held(name):
                self.store.read(name).group.kill()


def read_watched(states: StateStore, store: Store, name: ContainerId) -> Watched:
    """What was written of a container before its program ran.

    Raises:
        StateError: it is damaged.
        StoreError: the record of its image is.
        OSError: it is not there.
    """
    return decode((states.folder(name) / WATCHED).read_bytes(), store, what=f"{WATCHED} of {name}")


def _ask(watcher: Watcher | None) -> StopReason | None:
    if watcher is None:
        return StopReason(code="unknown", message="nothing says what it was started from", at_once=True)
    try:
        return watcher()
    except Exception as error:
        return StopReason(code="watch-failed", message=f"{type(error).__name__}: {error}")


def _signal(container: Container) -> None:
    """Send the stop signal to the first process, if it is the one of the record."""
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        return
    try:
        if process_start(container.pid) == container.pid_start:
            with contextlib.suppress(ProcessLookupError):
                syscalls.pidfd_send_signal(pidfd, container.stop_signal)
    finally:
        os.close(pidfd)
