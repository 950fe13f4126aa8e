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
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, NoReturn

from runtime import errors
from runtime.errors import ContainerError, HostError
from runtime.filters import filter_for
from runtime.guard import GuardPost, keep_only
from runtime.linux import syscalls
from runtime.linux.capabilities import NAMES, held, last_capability, mask
from runtime.linux.cgroups import find_hierarchies
from runtime.linux.owned import Owned
from runtime.log import LogWriter, timestamp
from runtime.model import ContainerId, StartRequest, StopReason
from runtime.plan import HostFacts, Plan, plan
from runtime.reaper import open_reaper
from runtime.record import Container
from runtime.spawn import Running, spawn
from runtime.state import DEFAULT_STATE, Claim, StateStore, clear, process_start
from runtime.supervise import FORWARDED, Ended, Forward, Supervisor, Watch

DEFAULT_PARENT: Final = "pratique"
"""The cgroup that the groups of all containers of DEFAULT_STATE lie in."""
MAX_ARGV: Final = 64
"""Arguments of a command line that the state remembers."""
_PATIENCE: Final = 0.2
"""Seconds that a thread may take to end after it was joined."""
_PROCESSORS: Final = Path("/sys/devices/system/cpu")
_RESOLV_CONF: Final = Path("/etc/resolv.conf")


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
        ended = self._whole_life(lambda: None, forward, stdin=0 if self.request.stdin else None)
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

            self._whole_life(started, None, stdin=None)
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
            planned = plan(request, self._facts(reaper), self._filter())
            claim = self.store.claim(request.name)
            try:
                container = self._begin(claim)
            except BaseException:
                claim.release(remove=True)
                raise
            guards = GuardPost(claim, container)
            try:
                running = self._start(container, planned, reaper_fd)
            except BaseException:
                self._abandon(claim, container, guards)
                raise
        return self._see_through(claim, container, guards, running, started, forward, stdin)

    def _facts(self, reaper: str) -> HostFacts:
        throttles = list(_PROCESSORS.glob("cpu[0-9]*/thermal_throttle"))
        resolv_conf = b""
        if self.request.network == "host":
            with contextlib.suppress(OSError):
                resolv_conf = _RESOLV_CONF.read_bytes()[: 64 * 1024]
        if lacking := mask(self.request.process.capabilities) & ~held():
            names = ", ".join(name for number, name in enumerate(NAMES) if lacking >> number & 1)
            raise HostError(f"capabilities {names}: this process does not have them to give")
        return HostFacts(
            hierarchies=find_hierarchies(),
            last_capability=last_capability(),
            scaffold_point=str(self.store.path / "parts"),
            root_point=str(self.store.path / "root"),
            files_point=str(self.store.path / "files"),
            masked=tuple(("sys", f"devices/system/cpu/{path.parent.name}/{path.name}") for path in throttles),
            resolv_conf=resolv_conf,
            reaper=reaper,
        )

    def _filter(self) -> bytes:
        capabilities = self.request.process.capabilities
        return filter_for(self.request.seccomp, capabilities=capabilities, cache=self.store.path / "cache")

    def _begin(self, claim: Claim) -> Container:
        """Write the first record. From here on, whoever finds the folder without a holder can clear up."""
        request = self.request
        container = Container(
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
            cgroup_parent=self.cgroup_parent,
            detached=self.detach,
            keep=request.keep,
        )
        group = container.group
        if group.exists():
            if group.pids():
                raise HostError(f"cgroup {group.parent}/{group.name}: it is in use")
            group.remove()
        claim.write(container)
        return container

    def _start(self, container: Container, planned: Plan, reaper_fd: int | None) -> Running:
        group = container.group
        try:
            group.create(planned.limits)
        except OSError as error:
            raise HostError(f"cgroup {group.parent}/{group.name}: {error}") from error
        return spawn(self.request, planned, group, reaper_fd)

    def _abandon(self, claim: Claim, container: Container, guards: GuardPost) -> None:
        with contextlib.suppress(OSError):
            clear(container)
        guards.dismiss()
        claim.release(remove=True)

    def _see_through(
        self,
        claim: Claim,
        container: Container,
        guards: GuardPost,
        running: Running,
        started: Callable[[], None],
        forward: Forward | None,
        stdin: int | None,
    ) -> Ended:
        container = replace(
            container,
            status="running",
            started=timestamp(time.time()),
            pid=running.pid,
            pid_start=process_start(running.pid),
        )
        try:
            claim.write(container)
            with _signals() as wake:
                started()
                supervisor = Supervisor(
                    request=self.request,
                    running=running,
                    kill=container.group.kill,
                    log=LogWriter(claim.folder, self.request.log) if self.request.keep else None,
                    forward=forward,
                    stdin=stdin,
                    watch=self.watch,
                    watch_interval=self.watch_interval,
                    idle=guards.look,
                )
                ended = supervisor.run(wake)
        except BaseException as error:
            failed = StopReason(code="supervisor-failed", message=f"{type(error).__name__}: {error}")
            self._end(claim, container, guards, running, Ended(exit_code=ContainerError.exit_code, reason=failed))
            raise
        ended = replace(ended, reason=ended.reason or self.store.asked_stop(container.name))
        self._end(claim, container, guards, running, ended)
        return ended

    def _end(self, claim: Claim, container: Container, guards: GuardPost, running: Running, ended: Ended) -> None:
        """Clear up after a container that has ended, or must."""
        clear(container)
        with contextlib.suppress(ChildProcessError):  # in the ordinary case it was reaped already
            os.waitid(os.P_PIDFD, running.pidfd, os.WEXITED)
        running.close()
        if container.keep:
            now = timestamp(time.time())
            last = replace(container, status="exited", pid=0, finished=now)
            claim.write(replace(last, exit_code=ended.exit_code, reason=ended.reason))
        guards.dismiss()
        claim.release(remove=not container.keep)


def _alone() -> None:
    """Refuse a process with several threads: a clone copies one, and what the others had locked stays locked.

    A thread that was joined may take the kernel a moment longer to forget.
    """
    deadline = time.monotonic() + _PATIENCE
    while (threads := len(list(Path("/proc/self/task").iterdir()))) != 1:
        if time.monotonic() > deadline:
            raise HostError(f"launch: got a process of {threads} threads, expected one")
        time.sleep(0.001)


@contextmanager
def _signals() -> Iterator[int]:
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
