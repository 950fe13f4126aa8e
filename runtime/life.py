"""A container's life as its supervisor leads it: its name claimed, its record written, seen through, all removed.

    life = Life(request=request, claim=store.claim(request.name), cgroup=Cgroup(parent, name), detached=False)
    container = life.begin()
    …                                  # its first process is started in container.group
    ended = life.see_through(running, started, attached)

Who supervises is the launcher's to say: the command itself, a process that it left behind, or one of the broker's.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final

from runtime.errors import ContainerError
from runtime.linux.cgroups import Group
from runtime.linux.owned import Owned
from runtime.log import LogWriter, timestamp
from runtime.model import StartRequest, StopReason
from runtime.record import Container
from runtime.spawn import Running
from runtime.state import Claim, process_start
from runtime.supervise import FORWARDED, Ended, Forward, Supervisor, Watch

MAX_ARGV: Final = 64
"""Arguments of a command line that the state remembers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """The caller, for as long as a container runs in the foreground.

    `forward` and `stdin` are its standard streams. Bytes on `signals` are numbers of signals to pass on; its end, where
    it is a socket, that the caller is gone. Nobody is attached to what was detached.
    """

    signals: int | None = None
    forward: Forward | None = None
    stdin: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One container, from the claim of its name on."""

    request: StartRequest
    claim: Claim
    group: Group
    """Its cgroups, by the container's name or another one."""
    detached: bool
    watch: Watch | None = None
    watch_interval: float = 1.0
    idle: Callable[[], None] = lambda: None
    """Called once a watch interval."""
    last: Callable[[], None] = lambda: None
    """Called when all but its folder was cleared up."""
    clear_group: bool = True
    """False where somebody else removes the group, once this is over.

    An ordinary end leaves nothing in it: with the first process all of its PID namespace is gone.
    """

    def container(self) -> Container:
        """Its first record. Once it is written, whoever finds the folder without a holder can clear up."""
        request = self.request
        return Container(
            name=request.name,
            status="starting",
            created=timestamp(time.time()),
            supervisor=os.getpid(),
            argv=tuple(_printable(argument) for argument in request.process.argv[:MAX_ARGV]),
            shown=request.shown,
            hostname=request.hostname or str(request.name),
            network=request.network,
            memory=request.memory,
            pids=request.pids,
            cpu=request.cpu,
            stop_signal=request.stop_signal,
            stop_grace=request.stop_grace,
            cgroup_parent=self.group.parent,
            cgroup="" if self.group.name == str(request.name) else self.group.name,
            detached=self.detached,
            keep=request.keep,
        )

    def abandon(self) -> None:
        """Clear up after a start that came to nothing."""
        with contextlib.suppress(OSError):
            self.group.clear()
        self.last()
        self.claim.release(remove=True)

    def see_through(
        self, container: Container, running: Running, started: Callable[[], None], attached: Attached
    ) -> Ended:
        """From the first instruction of its program to the last thing removed; `started` is called at the beginning."""
        container = replace(
            container,
            status="running",
            started=timestamp(time.time()),
            pid=running.pid,
            pid_start=process_start(running.pid),
        )
        try:
            self.claim.write(container)
            started()
            supervisor = Supervisor(
                request=self.request,
                running=running,
                kill=self.group.kill,
                log=LogWriter(self.claim.folder, self.request.log) if self.request.keep else None,
                forward=attached.forward,
                stdin=attached.stdin,
                watch=self.watch,
                watch_interval=self.watch_interval,
                idle=self.idle,
            )
            ended = supervisor.run(attached.signals)
        except BaseException as error:
            failed = StopReason(code="supervisor-failed", message=f"{type(error).__name__}: {error}")
            self._end(container, running, Ended(exit_code=ContainerError.exit_code, reason=failed))
            raise
        ended = replace(ended, reason=ended.reason or self.claim.store.asked_stop(container.name))
        self._end(container, running, ended)
        return ended

    def _end(self, container: Container, running: Running, ended: Ended) -> None:
        """Clear up after a container that has ended, or must."""
        if self.clear_group:
            self.group.clear()
        with contextlib.suppress(ChildProcessError):  # in the ordinary case it was reaped already
            os.waitid(os.P_PIDFD, running.pidfd, os.WEXITED)
        running.close()
        if container.keep:
            now = timestamp(time.time())
            last = replace(container, status="exited", pid=0, finished=now)
            self.claim.write(replace(last, exit_code=ended.exit_code, reason=ended.reason))
        self.last()
        self.claim.release(remove=not container.keep)


@contextmanager
def signals() -> Iterator[int]:
    """Signals for the container as bytes on a descriptor, until the block ends."""
    with Owned() as owned:
        wake, write = owned.pipe()
        os.set_blocking(wake, False)
        os.set_blocking(write, False)
        before = {number: signal.signal(number, lambda *_: None) for number in FORWARDED}
        previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        try:
            yield wake
        finally:
            signal.set_wakeup_fd(previous)
            for number, handler in before.items():
                signal.signal(number, handler)


def _printable(argument: str) -> str:
    """What the state file can hold of an argument that need not be UTF-8."""
    return argument.encode("utf-8", "backslashreplace").decode()
