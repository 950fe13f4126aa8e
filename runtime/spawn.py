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
from collections.abc import Iterable
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
_LOWEST: Final = 10
"""The child moves descriptors to 0-4; those it takes them from lie above."""
_SIGKILL: Final = 9


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


def spawn(request: StartRequest, plan: Plan, group: Group, reaper_fd: int | None = None) -> Running:
    """Start what was planned, in a group that exists; return when the container's program runs.

    `reaper_fd` and the image's descriptors stay the caller's.

    Raises:
        StepError: a step failed; the message has its description. NotFoundError and NotExecutableError tell
            of the program itself.
        HostError: the image or a bind could not be opened, or no process made or attached.
    """
    with Owned() as owned:
        stage = Stage()
        _provide(stage, request, reaper_fd, owned)
        streams = _streams(stage, request, owned)
        stage["go"], go = owned.pipe()
        report, errors = owned.pipe()
        stage["errors"] = owned.above(errors, _LOWEST)
        pid, pidfd = _clone(plan, group)
        if pid == 0:
            _child(plan.operations, stage)
        owned.add(pidfd)
        try:
            for fd in (errors, *stage.fds.values()):
                owned.close(fd)
            _attach(group, pid)
            with contextlib.suppress(BrokenPipeError):  # it has failed, and its report says how
                os.write(go, b"GW")  # its limits are set, and its record is written
            _await_execve(report, plan.operations)
        except BaseException:
            _end(pidfd)
            raise
        for fd in (pidfd, *streams.values()):
            owned.release(fd)
    return Running(pid=pid, pidfd=pidfd, stdin=streams.get("stdin"), stdout=streams["stdout"], stderr=streams["stderr"])


def _provide(stage: Stage, request: StartRequest, reaper_fd: int | None, owned: Owned) -> None:
    """Open what comes from the host: the image's mount, the binds' mounts, the first program."""
    root = request.root
    try:
        attributes = root_attributes(request) | c.MOUNT_ATTR_RDONLY
        stage["image"] = owned.above(owned.add(mount_image(root.index_fd, root.layer_fds, attributes)), _LOWEST)
    except OSError as error:
        raise HostError(f"mount the image: {error}") from error
    for number, (bind, attributes) in enumerate(zip(request.mounts, bind_attributes(request), strict=True)):
        try:
            mount = _open_bind(bind.source, attributes)
        except OSError as error:
            raise HostError(f"bind {bind.source}: {error}") from error
        stage[f"bind:{number}"] = owned.above(owned.add(mount), _LOWEST)
    first = owned.add(trampoline()) if reaper_fd is None else reaper_fd
    stage["program"] = owned.above(first, _LOWEST)


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


def _streams(stage: Stage, request: StartRequest, owned: Owned) -> dict[str, int]:
    """Pipes as standard streams; return our ends.

    Always pipes, never the caller's own terminal or files: a container could reopen those for writing by
    /proc/self/fd, or type into the terminal. The container's user owns them, so that it can reopen them.
    """
    ours: dict[str, int] = {}
    for name in ("stdin", "stdout", "stderr") if request.stdin else ("stdout", "stderr"):
        read, write = owned.pipe()
        theirs, ours[name] = (read, write) if name == "stdin" else (write, read)
        os.fchown(theirs, request.process.uid, request.process.gid)
        os.set_blocking(ours[name], False)
        stage[name] = owned.above(theirs, _LOWEST)
        owned.close(theirs)
    return ours


def _clone(plan: Plan, group: Group) -> tuple[int, int]:
    cgroup_fd = group.open_v2()
    try:
        return syscalls.clone3(plan.namespaces, cgroup_fd=cgroup_fd)
    except OSError as error:
        raise HostError(f"make the container's first process: {error}") from error
    finally:
        if cgroup_fd is not None:
            os.close(cgroup_fd)


def _attach(group: Group, pid: int) -> None:
    try:
        group.attach(pid)
    except ProcessLookupError:
        return  # it has failed already, and its report says how
    except OSError as error:
        raise HostError(f"attach to the cgroup: {error}") from error


def _child(operations: Iterable[Operation], stage: Stage) -> NoReturn:
    """Execute the operations; never return, whatever happens."""
    number, description, cause = 0, "begin", OSError(errno.EINVAL, "no operation executed a program")
    try:
        gc.disable()  # finalizers of the parent's objects are the parent's
        # Once the root has changed, an import would be looked up in the image and run with all our privileges.
        for places in (sys.meta_path, sys.path_hooks, sys.path):
            places.clear()
        # The parent's end of a pipe, open here, would keep those who wait for the parent's death waiting.
        close_all_but((0, 1, 2, *stage.fds.values()))
        for number, operation in enumerate(operations):  # noqa: B007  # read where it failed
            description = operation.describe()
            operation.execute(syscalls, stage)
    except OSError as error:
        cause = error
    except BaseException as error:
        cause = OSError(errno.EINVAL, f"{type(error).__name__}: {error}")
    try:
        where = "" if cause.filename is None else f": {cause.filename}"
        report = f"E{number}\0{cause.errno}\0{description}\0{cause.strerror}{where}"
        os.write(stage["errors"], report.encode("utf-8", "replace")[:MAX_REPORT])
    finally:
        os._exit(125)


def _await_execve(report_fd: int, operations: tuple[Operation, ...]) -> None:
    """Read the child's report: nothing but an `R` at its end means that execve succeeded."""
    report = b""
    while len(report) < MAX_REPORT and (part := os.read(report_fd, MAX_REPORT)):
        report += part
    if report == b"R":
        return
    if not report:
        raise StepError("the container's first process was killed before it could execute anything")
    if len(report) == 5 and report[:1] == b"R":  # from the trampoline: execve's errno, negative
        number = -int.from_bytes(report[1:], "little", signed=True)
        execute = operations[-1]
        raise _program_error(number, f"{execute.describe()}: {os.strerror(number)}")
    _, _, failed = report.partition(b"E")
    step, number_text, description, words = failed.decode("utf-8", "replace").split("\0", 3)
    message = f"{description}: {words}"
    if isinstance(operations[int(step)], Execute):
        raise _program_error(int(number_text), message)
    raise StepError(message)


def _program_error(number: int, message: str) -> StepError:
    if number in (errno.ENOENT, errno.ENOTDIR):
        return NotFoundError(message)
    return NotExecutableError(message)


def _end(pidfd: int) -> None:
    """Kill the first process, and with it all of its namespace, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        syscalls.pidfd_send_signal(pidfd, _SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
