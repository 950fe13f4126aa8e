"""What can be done with a container that exists: list, inspect, stop, read its log, remove.

Each call first clears up after supervisors that were killed, so what is listed as running does run.
"""

from __future__ import annotations

import contextlib
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from runtime.errors import NoSuchContainerError, StateError
from runtime.linux import syscalls
from runtime.log import LogLine, read_log
from runtime.model import ContainerId, StopReason
from runtime.record import Container
from runtime.state import DEFAULT_STATE, StateStore, process_start

STOPPED: Final = StopReason(code="stopped", message="stopped by command")
_FINISH: Final = 15.0
"""Seconds for a supervisor to clear up after its container has died."""
_PAUSE: Final = 0.01


def list_containers(state_dir: Path = DEFAULT_STATE) -> tuple[Container, ...]:
    """Every container, running or kept, by name.

    Raises:
        StateError: the state folder, or a file in it, is not as we left it.
    """
    store = StateStore.open(state_dir)
    store.reconcile()
    found: list[Container] = []
    for name in store.names():
        with contextlib.suppress(NoSuchContainerError):  # it ended meanwhile
            found.append(store.read(name))
    return tuple(found)


def inspect(name: ContainerId, state_dir: Path = DEFAULT_STATE) -> Container:
    """What is known of one container.

    Raises:
        NoSuchContainerError: there is none of this name.
    """
    store = StateStore.open(state_dir)
    store.reconcile()
    return store.read(name)


def stop(
    name: ContainerId,
    grace: float | None = None,
    *,
    state_dir: Path = DEFAULT_STATE,
    reason: StopReason = STOPPED,
) -> Container | None:
    """Send the stop signal, wait, kill; return the record of the stopped container, None if it was not kept.

    `grace` is in seconds (None: as the request had it). One that has ended already is left as it is.

    Raises:
        NoSuchContainerError: there is none of this name.
        StateError: its supervisor does not come to an end.
    """
    store = StateStore.open(state_dir)
    store.reconcile()
    container = _started(store, name)
    if container.status == "running":
        store.ask_stop(name, reason)
        _end(container, container.stop_grace if grace is None else grace)
    _await_supervisor(store, container)
    with contextlib.suppress(NoSuchContainerError):
        return store.read(name)
    return None


def _started(store: StateStore, name: ContainerId) -> Container:
    """The record, once the container is past its start."""
    deadline = time.monotonic() + _FINISH
    while (container := store.read(name)).status == "starting":
        if time.monotonic() > deadline:
            raise StateError(f"container {name}: it does not get past its start")
        time.sleep(_PAUSE)
    return container


def _await_supervisor(store: StateStore, container: Container) -> None:
    """Return when nobody is responsible for an ended container any more: its supervisor has cleared up."""
    deadline = time.monotonic() + _FINISH
    while store.held(container.name):
        if time.monotonic() > deadline:
            who = f"its supervisor (process {container.supervisor})"
            raise StateError(f"container {container.name}: {who} does not end")
        time.sleep(_PAUSE)


def _end(container: Container, grace: float) -> None:
    """Signal the first process, and kill the group if it is there after the grace."""
    try:
        pidfd = os.pidfd_open(container.pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor holds whatever process has this number now; its start time tells whether it is ours.
        if process_start(container.pid) != container.pid_start:
            return
        with contextlib.suppress(ProcessLookupError):
            syscalls.pidfd_send_signal(pidfd, container.stop_signal)
        if not select.select([pidfd], [], [], grace)[0]:
            container.group.kill()
    finally:
        os.close(pidfd)


def logs(name: ContainerId, *, follow: bool = False, state_dir: Path = DEFAULT_STATE) -> Iterator[LogLine]:
    """The container's output, oldest first; with `follow`, until it ends.

    Raises:
        NoSuchContainerError: there is none of this name.
    """
    store = StateStore.open(state_dir)
    store.reconcile()
    store.read(name)
    return read_log(store.folder(name), follow=follow, ended=lambda: not store.held(name))


def remove(name: ContainerId, *, force: bool = False, state_dir: Path = DEFAULT_STATE) -> None:
    """Remove what is kept of a container that has ended; with `force`, kill one that has not.

    Raises:
        NoSuchContainerError: there is none of this name.
        StateError: it is running, and `force` was not asked for.
    """
    store = StateStore.open(state_dir)
    store.reconcile()
    container = store.read(name)
    if container.status != "exited":
        if not force:
            raise StateError(f"container {name}: it is {container.status}, expected one that has ended")
        stop(name, 0.0, state_dir=state_dir, reason=StopReason(code="removed", message="removed by force"))
    _await_supervisor(store, container)
    with store.locked():
        if not store.held(name):  # else somebody removed it and started another one of this name
            store.discard(name)
