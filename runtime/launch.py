"""Start a container and see it through: the one way in, for the command line and later for the broker.

    code = run(request)                       # foreground: the container's own exit code
    name = run(request, detach=True)          # a supervisor of its own; returns when the program runs

In the foreground this process is the supervisor. Detached, a child of init is. Either way a guard stands
beside it, and every mount lies in the container's own namespace, so that nothing is left when any of them is
killed. The caller has one thread and calls from it: the first process is cloned from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

from runtime import errors
from runtime.errors import ContainerError, HostError
from runtime.facts import facts_for, host_facts
from runtime.filters import filter_for
from runtime.guard import GuardPost, keep_only
from runtime.life import Attached, Life, signals
from runtime.linux import syscalls
from runtime.linux.cgroups import Group, Hierarchies
from runtime.linux.owned import Owned
from runtime.model import ContainerId, StartRequest, StopReason
from runtime.plan import Plan, plan
from runtime.reaper import open_reaper
from runtime.record import Container
from runtime.spawn import Running, spawn
from runtime.state import DEFAULT_STATE, Claim, StateStore
from runtime.supervise import Ended, Forward, Watch

DEFAULT_PARENT: Final = "pratique"
"""The cgroup that the groups of all containers of DEFAULT_STATE lie in."""
MAX_ARGV: Final = 64
"""Arguments of a command line that the state remembers."""
_PATIENCE: Final = 0.2
"""Seconds that a thread may take to end after it was joined."""


def run(
    request: StartRequest,
    *,
    state_dir: Path = DEFAULT_STATE,
    detach: bool = False,
    watch: Watch | None = None,
    watch_interval: float = 1.0,
    on_stop: Callable[[StopReason], None] | None = None,
    cgroup_parent: str | None = None,
) -> int | ContainerId:
    """Start the container; return its exit code, or with `detach` its name as soon as its program runs.

    `watch` is asked every `watch_interval` seconds while it runs; a reason, or an exception, stops it.
    Detached, `watch` opens what it needs when it is asked: descriptors do not survive the change of process.
    `on_stop` is told of the reason, in the foreground. `cgroup_parent` is by default the state folder's own.

    Raises:
        ContainerError: nothing was started, and nothing is left. Its `exit_code` is what a command ends
            with: 125, or 126 and 127 for a program that cannot be executed or is not there.
    """
    _alone()
    launch = Launch(
        request=request,
        store=StateStore.open(state_dir),
        watch=watch,
        watch_interval=watch_interval,
        on_stop=on_stop,
        cgroup_parent=str(ContainerId(cgroup_parent or parent_of(state_dir))),
        detach=detach,
    )
    return launch.detached() if detach else launch.foreground()


def parent_of(state_dir: Path) -> str:
    """The parent cgroup of the containers in a state folder: names are unique in one folder, cgroups on one host."""
    if state_dir == DEFAULT_STATE:
        return DEFAULT_PARENT
    return f"{DEFAULT_PARENT}-{hashlib.sha256(os.fsencode(state_dir.absolute())).hexdigest()[:12]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """One start, with all that it needs."""

    request: StartRequest
    store: StateStore
    cgroup_parent: str
    detach: bool
    watch: Watch | None
    watch_interval: float
    on_stop: Callable[[StopReason], None] | None

    def foreground(self) -> int:
        """Start it and supervise it here."""
        forward = Forward({"stdout": 1, "stderr": 2})
        ended = self._whole_life(lambda: None, forward, 0 if self.request.stdin else None)
        if ended.reason is not None and self.on_stop is not None:
            self.on_stop(ended.reason)
        return ended.exit_code

    def detached(self) -> ContainerId:
        """Start it under a supervisor that outlives this process."""
        ready, report = os.pipe()
        pid = os.fork()
        if pid == 0:
            self._become_supervisor(report)
        os.close(report)
        with os.fdopen(ready, "rb") as file:
            os.waitpid(pid, 0)
            said = file.read(64 * 1024)
        if said == b"R":
            return self.request.name
        raise _error(said)

    def _become_supervisor(self, report: int) -> NoReturn:
        """Leave the caller's session and terminal, and live as long as the container."""
        try:
            os.setsid()
            if os.fork() != 0:
                os._exit(0)
            image = (self.request.root.index_fd, *self.request.root.layer_fds)
            keep_only(report, *image)
            os.chdir("/")
            syscalls.prctl_name("pratique-super")

            def started() -> None:
                os.write(report, b"R")
                for fd in (report, *image):
                    os.close(fd)

            self._whole_life(started, None, None)
        except ContainerError as error:
            _tell(report, error)
        except BaseException as error:
            _tell(report, HostError(f"supervisor: {type(error).__name__}: {error}"))
        finally:
            os._exit(0)

    def _whole_life(self, started: Callable[[], None], forward: Forward | None, stdin: int | None) -> Ended:
        """From the claim of the name to the last thing removed."""
        request = self.request
        with Owned() as owned:
            reaper, reaper_fd = open_reaper() if request.init else ("", None)
            if reaper_fd is not None:
                owned.add(reaper_fd)
            facts = host_facts(self.store)
            planned = plan(request, facts_for(request, facts, reaper), self._filter())
            claim = self.store.claim(request.name)
            life = self._life(claim, facts.hierarchies)
            try:
                container = self._begin(life)
            except BaseException:
                claim.release(remove=True)
                raise
            guards = GuardPost(claim, container)
            life = replace(life, idle=guards.look, last=guards.dismiss)
            try:
                running = self._start(life.group, planned, reaper_fd)
            except BaseException:
                life.abandon()
                raise
        with signals() as wake:
            caller = Attached(signals=wake, forward=forward, stdin=stdin)
            return life.see_through(container, running, started, caller)

    def _life(self, claim: Claim, hierarchies: Hierarchies) -> Life:
        return Life(
            request=self.request,
            claim=claim,
            group=Group(hierarchies=hierarchies, parent=self.cgroup_parent, name=str(self.request.name)),
            detached=self.detach,
            watch=self.watch,
            watch_interval=self.watch_interval,
        )

    def _filter(self) -> bytes:
        capabilities = self.request.process.capabilities
        return filter_for(self.request.seccomp, capabilities=capabilities, cache=self.store.path / "cache")

    def _begin(self, life: Life) -> Container:
        container = life.container()
        group = life.group
        if group.exists():
            if group.pids():
                raise HostError(f"cgroup {group.parent}/{group.name}: it is in use")
            group.remove()
        life.claim.write(container)
        return container

    def _start(self, group: Group, planned: Plan, reaper_fd: int | None) -> Running:
        try:
            group.create(planned.limits)
        except OSError as error:
            raise HostError(f"cgroup {group.parent}/{group.name}: {error}") from error
        return spawn(self.request, planned, group, reaper_fd)


def _alone() -> None:
    """Refuse a process with several threads: a clone copies one, and what the others had locked stays locked.

    A thread that was joined may take the kernel a moment longer to forget.
    """
    deadline = time.monotonic() + _PATIENCE
    while (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        if time.monotonic() > deadline:
            raise HostError(f"launch: got a process of {threads} threads, expected one")
        time.sleep(0.001)


def _tell(report: int, error: ContainerError) -> None:
    """Send an error to the process that asked for the start, if it still wants to hear it."""
    with contextlib.suppress(OSError):
        os.write(report, f"{type(error).__name__}\0{error}".encode("utf-8", "replace")[: 32 * 1024])


def _error(said: bytes) -> ContainerError:
    """The error that a supervisor sent."""
    name, separator, message = said.decode("utf-8", "replace").partition("\0")
    if not separator:
        return HostError("supervisor: it ended before the container had started")
    kind = getattr(errors, name, ContainerError)
    return kind(message) if issubclass(kind, ContainerError) else ContainerError(message)
