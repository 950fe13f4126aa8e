"""Start a planned container: mount its image, clone its first process, and see it through to execve.

The child executes the plan's operations and tells of a failure on a pipe that execve closes. The parent
attaches it to its v1 cgroups meanwhile: from idle that takes the kernel 6 to 12 ms, as long as all the
child's mounts.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

from runtime.errors import HostError, NotExecutableError, NotFoundError, StepError
from runtime.linux import constants as c
from runtime.linux import syscalls
from runtime.linux.cgroups import Group
from runtime.linux.erofs import mount_image
from runtime.linux.mounts import copy_tree
from runtime.linux.owned import Owned, close_all_but
from runtime.linux.trampoline import trampoline
from runtime.model import StartRequest
from runtime.ops import Execute, Operation, Stage
from runtime.plan import Plan, bind_attributes, root_attributes

MAX_REPORT: Final = 4096
"""Bytes of a child's report that are read."""
LOWEST: Final = 10
"""The child moves descriptors to 0-4; those it takes them from lie above."""
_SIGKILL: Final = 9
_STEP: Final = "step"
_PROGRAM: Final = "program"


@dataclass(slots=True, kw_only=True)
class Running:
    """A started container: its first process, and our ends of its standard streams."""

    pid: int
    pidfd: int
    stdin: int | None
    stdout: int
    stderr: int

    def close_stdin(self) -> None:
        """Tell the container that there is no more input."""
        if self.stdin is not None:
            os.close(self.stdin)
            self.stdin = None

    def close(self) -> None:
        """Close every descriptor, once."""
        self.close_stdin()
        for fd in (self.pidfd, self.stdout, self.stderr):
            os.close(fd)


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A first process on its way: it executes operations, and waits for words on `go` where they say so."""

    pid: int
    pidfd: int
    go: int
    report: int

    def attach(self, group: Group) -> None:
        """Put it into its v1 cgroups. Into the v2 one it was born.

        Raises:
            HostError: the kernel refuses.
        """
        try:
            group.attach(self.pid)
        except ProcessLookupError:
            return  # it has failed already, and its report says how
        except OSError as error:
            raise HostError(f"attach to the cgroup: {error}") from error

    def word(self, said: bytes) -> None:
        """Say that it may go on: `G` once it is in its cgroups, `W` once this start is written down."""
        with contextlib.suppress(BrokenPipeError):  # it has failed, and its report says how
            os.write(self.go, said)

    def end(self) -> None:
        """Kill it, and with it all of its namespace, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            syscalls.pidfd_send_signal(self.pidfd, _SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)

    def await_execve(self, program: str) -> None:
        """Read its report: nothing but an `R` at its end means that execve succeeded.

        Raises:
            StepError: a step failed; the message has its description. NotFoundError and NotExecutableError tell of
                `program` itself.
        """
        report = b""
        while len(report) < MAX_REPORT and (part := os.read(self.report, MAX_REPORT)):
            report += part
        if report == b"R":
            return
        if not report:
            raise StepError("the container's first process was killed before it could execute anything")
        if len(report) == 5 and report[:1] == b"R":  # from the trampoline: execve's errno, negative
            number = -int.from_bytes(report[1:], "little", signed=True)
            raise _program_error(number, f"execute {program}: {os.strerror(number)}")
        _, _, failed = report.partition(b"E")
        kind, number_text, description, words = failed.decode("utf-8", "replace").split("\0", 3)
        message = f"{description}: {words}"
        raise _program_error(int(number_text), message) if kind == _PROGRAM else StepError(message)


def spawn(request: StartRequest, plan: Plan, group: Group, reaper_fd: int | None = None) -> Running:
    """Start what was planned, in a group that exists; return when the container's program runs.

    `reaper_fd` and the image's descriptors stay the caller's.

    Raises:
        StepError: a step failed; the message has its description. NotFoundError and NotExecutableError tell
            of the program itself.
        HostError: the image or a bind could not be opened, or no process made or attached.
    """
    with Owned() as owned:
        fds = provide(request, reaper_fd, owned)
        streams = Streams.make(request, owned)
        begun = begin(plan.operations, fds | streams.theirs, plan.namespaces, group, owned)
        try:
            for fd in (*fds.values(), *streams.theirs.values()):
                owned.close(fd)
            begun.attach(group)
            begun.word(b"GW")  # its limits are set, and its record is written
            begun.await_execve(request.process.argv[0])
        except BaseException:
            begun.end()
            raise
        return streams.running(begun, owned)


def provide(request: StartRequest, reaper_fd: int | None, owned: Owned) -> dict[str, int]:
    """Open what comes from the host: the image's mount, the binds' mounts, the first program. All lie above 4.

    Raises:
        HostError: the image or a bind cannot be opened.
    """
    root = request.root
    fds: dict[str, int] = {}
    try:
        attributes = root_attributes(request) | c.MOUNT_ATTR_RDONLY
        fds["image"] = above(owned, mount_image(root.index_fd, root.layer_fds, attributes))
    except OSError as error:
        raise HostError(f"mount the image: {error}") from error
    for number, (bind, attributes) in enumerate(zip(request.mounts, bind_attributes(request), strict=True)):
        try:
            fds[f"bind:{number}"] = above(owned, _open_bind(bind.source, attributes))
        except OSError as error:
            raise HostError(f"bind {bind.source}: {error}") from error
    if reaper_fd is None:
        fds["program"] = above(owned, trampoline())
    else:
        fds["program"] = owned.above(reaper_fd, LOWEST)
    return fds


def above(owned: Owned, fd: int) -> int:
    """`fd`, moved to a number that the child moves no other to."""
    moved = owned.above(owned.add(fd), LOWEST)
    owned.close(fd)
    return moved


def _open_bind(source: str, attributes: int) -> int:
    """A detached copy of the mount at `source`, found without following any link."""
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        strict = c.RESOLVE_NO_SYMLINKS | c.RESOLVE_NO_MAGICLINKS | c.RESOLVE_BENEATH
        place = syscalls.openat2(root, source.strip("/"), os.O_PATH, strict)
    finally:
        os.close(root)
    try:
        return copy_tree(syscalls, place, "", attributes, recursive=True)
    finally:
        os.close(place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Streams:
    """A container's standard streams: pipes, by name; `theirs` are its ends, `ours` the others.

    Always pipes, never the caller's own terminal or files: a container could reopen those for writing by
    /proc/self/fd, or type into the terminal. The container's user owns them, so that it can reopen them.
    """

    theirs: dict[str, int]
    ours: dict[str, int]

    @classmethod
    def make(cls, request: StartRequest, owned: Owned) -> Streams:
        """Make them; standard input only if it is asked for."""
        theirs: dict[str, int] = {}
        ours: dict[str, int] = {}
        for name in ("stdin", "stdout", "stderr") if request.stdin else ("stdout", "stderr"):
            read, write = owned.pipe()
            their, ours[name] = (read, write) if name == "stdin" else (write, read)
            os.fchown(their, request.process.uid, request.process.gid)
            os.set_blocking(ours[name], False)
            theirs[name] = above(owned, their)
        return cls(theirs=theirs, ours=ours)

    def running(self, begun: Begun, owned: Owned) -> Running:
        """The started container, which owns our ends from now on."""
        for fd in (begun.pidfd, *self.ours.values()):
            owned.release(fd)
        return Running(
            pid=begun.pid,
            pidfd=begun.pidfd,
            stdin=self.ours.get("stdin"),
            stdout=self.ours["stdout"],
            stderr=self.ours["stderr"],
        )


def begin(
    operations: Iterable[Operation], fds: Mapping[str, int], namespaces: int, group: Group, owned: Owned
) -> Begun:
    """Clone a first process that executes `operations`, with these descriptors for its stage.

    Raises:
        HostError: no process could be made.
    """
    child_go, go = owned.pipe()
    report, errors = owned.pipe()
    stage = Stage({**fds, "go": above(owned, child_go), "errors": above(owned, errors)})
    cgroup_fd = group.open_v2()
    try:
        pid, pidfd = syscalls.clone3(namespaces, cgroup_fd=cgroup_fd)
    except OSError as error:
        raise HostError(f"make the container's first process: {error}") from error
    finally:
        if cgroup_fd is not None:
            os.close(cgroup_fd)
    if pid == 0:
        _child(operations, stage)
    for name in ("go", "errors"):
        owned.close(stage[name])
    return Begun(pid=pid, pidfd=owned.add(pidfd), go=go, report=report)


def _child(operations: Iterable[Operation], stage: Stage) -> NoReturn:
    """Execute the operations; never return, whatever happens."""
    kind, description, cause = _STEP, "begin", OSError(errno.EINVAL, "no operation executed a program")
    try:
        gc.disable()  # finalizers of the parent's objects are the parent's
        # Once the root has changed, an import would be looked up in the image and run with all our privileges.
        for places in (sys.meta_path, sys.path_hooks, sys.path):
            places.clear()
        # The parent's end of a pipe, open here, would keep those who wait for the parent's death waiting.
        close_all_but((0, 1, 2, *stage.fds.values()))
        for operation in operations:
            kind, description = _PROGRAM if isinstance(operation, Execute) else _STEP, operation.describe()
            operation.execute(syscalls, stage)
    except OSError as error:
        cause = error
    except BaseException as error:
        cause = OSError(errno.EINVAL, f"{type(error).__name__}: {error}")
    try:
        where = "" if cause.filename is None else f": {cause.filename}"
        report = f"E{kind}\0{cause.errno}\0{description}\0{cause.strerror}{where}"
        os.write(stage["errors"], report.encode("utf-8", "replace")[:MAX_REPORT])
    finally:
        os._exit(125)


def _program_error(number: int, message: str) -> StepError:
    if number in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(message)
    return NotExecutableError(message)
