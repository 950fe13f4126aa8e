"""The guard: a small process beside a supervisor, which clears up if the supervisor is killed.

It sleeps in one read(2) on a pipe whose other end only the supervisor has. A byte there means that the
supervisor has cleared up itself; the end of the pipe, that it died. Both killed at once leave the container
to its parent-death signal and the rest to the next command (StateStore.reconcile).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from dataclasses import dataclass, replace
from typing import Final, NoReturn

from runtime.linux import syscalls
from runtime.linux.owned import close_all_but
from runtime.log import timestamp
from runtime.model import StopReason
from runtime.record import Container
from runtime.state import Claim, clear

_KILLED: Final = 137


@dataclass(frozen=True, slots=True)
class Guard:
    """A running guard, as its supervisor sees it."""

    pid: int
    pidfd: int
    lifeline: int

    def dismiss(self) -> None:
        """Say that everything was cleared up, and wait for the guard to end."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self.lifeline, b"x")
        self.close()

    def close(self) -> None:
        """Reap a guard that has ended, or is about to."""
        os.close(self.lifeline)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
        os.close(self.pidfd)


class GuardPost:
    """Keeps one guard standing for a container: a guard that was killed is replaced."""

    def __init__(self, claim: Claim, container: Container) -> None:
        """Start the first guard."""
        self._claim, self._container = claim, container
        self._guard = start_guard(claim, container)

    def look(self) -> None:
        """Replace the guard if it has ended."""
        if select.select([self._guard.pidfd], [], [], 0)[0]:
            self._guard.close()
            self._guard = start_guard(self._claim, self._container)

    def dismiss(self) -> None:
        """End the guard: everything was cleared up."""
        self._guard.dismiss()


def start_guard(claim: Claim, container: Container) -> Guard:
    """Start the guard of a container whose folder is claimed, before anything of it exists."""
    theirs, ours = os.pipe()
    pid = os.fork()
    if pid == 0:
        _guard(claim, container, theirs)
    os.close(theirs)
    return Guard(pid=pid, pidfd=os.pidfd_open(pid), lifeline=ours)


def keep_only(*kept: int) -> None:
    """Put /dev/null on the standard streams and close every descriptor but `kept`."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    close_all_but((0, 1, 2, *kept))


def _guard(claim: Claim, container: Container, lifeline: int) -> NoReturn:
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
            signal.signal(number, signal.SIG_IGN)
        keep_only(lifeline, claim.lock_fd)
        os.chdir("/")
        syscalls.prctl_name("pratique-guard")
        if os.read(lifeline, 1) != b"x":
            _clear_up(claim, container)
    finally:
        os._exit(0)


def _clear_up(claim: Claim, container: Container) -> None:
    clear(container)
    if container.keep:
        with contextlib.suppress(Exception):  # whatever else the supervisor had written
            container = claim.store.read(claim.name)
        reason = StopReason(code="supervisor-died", message="its supervisor was killed")
        now = timestamp(time.time())
        claim.write(replace(container, status="exited", pid=0, finished=now, exit_code=_KILLED, reason=reason))
    claim.release(remove=not container.keep)
