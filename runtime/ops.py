"""The operations of a sandbox that concern its first process, and what all operations have in common.

Each one is pure data with `describe()` and `execute(kernel, stage)`; a plan is a tuple of them, in the order
in which the container's first process executes them. They hand descriptors to each other through the stage,
never paths. Nothing is imported while they run: after the root has changed there is no standard library.
Comparison and repr are left out of the twenty classes: making them would cost every start three milliseconds.
`mountops.py` has those that mount.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import Final, Protocol

from runtime.linux import constants as c
from runtime.linux.kernel import Kernel
from runtime.linux.mounts import EXACTLY, closing, find_or_make, folder
from runtime.linux.trampoline import ERROR_FD
from runtime.model import Rlimit

SIGKILL: Final = 9
PROGRAM_FD: Final = ERROR_FD + 1
"""The memfd that is executed first: the trampoline, or the reaper."""


@dataclass(slots=True)
class Stage:
    """The descriptors of one start, by name.

    The launcher provides `image`, `bind:N`, `program`, `go`, `errors`, `stdout` and `stderr`, and `stdin` if
    there is input; operations add `scaffold`, `proc`, `sys` and `dev`, and then `root`.
    """

    fds: dict[str, int] = field(default_factory=dict)

    def __getitem__(self, name: str) -> int:
        return self.fds[name]

    def __setitem__(self, name: str, fd: int) -> None:
        self.fds[name] = fd


class Operation(Protocol):
    """One step of a start."""

    def describe(self) -> str:
        """What it does, for people and for the error if it fails."""

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        """Do it; raises OSError."""


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Isolate:
    """Die with the parent, be no one's to trace, and take nothing over: signals, session, keyring."""

    def describe(self) -> str:
        return "leave the launcher's session, signals and keyring"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        kernel.reset_signals()
        kernel.prctl(c.PR_SET_PDEATHSIG, SIGKILL)
        # /proc/<pid>/exe of this process is the host's interpreter until execve (X1).
        kernel.prctl(c.PR_SET_DUMPABLE, 0)
        kernel.setsid()
        kernel.join_session_keyring()
        # Modes are given whole to mkdir and mknod: a chmod by name afterwards could be led elsewhere.
        kernel.umask(0)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AwaitCgroup:
    """Wait until the launcher has put us into our cgroups, then make them the root of what we see of cgroups.

    In this order: a cgroup namespace made before a v1 attach stays rooted at the parent's group.
    """

    def describe(self) -> str:
        return "join the cgroup and its namespace"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        if kernel.read(stage["go"], 1) != b"G":
            raise OSError(errno.ECANCELED, "the launcher ended")
        kernel.unshare(c.CLONE_NEWCGROUP)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Loopback:
    """A network of its own has only a loopback interface, and that is down at first."""

    def describe(self) -> str:
        return "switch on the loopback interface"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        kernel.raise_loopback()


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AwaitWord:
    """Wait until the launcher has written down what this start is, and has set its limits."""

    def describe(self) -> str:
        return "wait for the launcher's word"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        if kernel.read(stage["go"], 1) != b"W":
            raise OSError(errno.ECANCELED, "the launcher ended")


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Names:
    """The host name."""

    hostname: str

    def describe(self) -> str:
        return f"set the host name {self.hostname}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        kernel.sethostname(self.hostname)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class KeepDescriptors:
    """Standard input, output and error, the error pipe and the first program; all others are closed (X2).

    `trampoline` says that the first program is the trampoline: it tells of errors too, and closes the pipe
    itself when it executes the container's program.
    """

    trampoline: bool

    def describe(self) -> str:
        return "close all other descriptors"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        if "stdin" not in stage.fds:
            # Our own null device: what has the host's open could change its mode.
            stage["stdin"] = kernel.openat2(stage["dev"], "null", os.O_RDONLY, EXACTLY)
        for number, name in enumerate(("stdin", "stdout", "stderr")):
            kernel.dup2(stage[name], number, inheritable=True)
        kernel.dup2(stage["errors"], ERROR_FD, inheritable=self.trampoline)
        kernel.dup2(stage["program"], PROGRAM_FD, inheritable=False)
        kernel.close_range(PROGRAM_FD + 1)
        stage.fds = {"errors": ERROR_FD, "program": PROGRAM_FD}


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class EnterFolder:
    """Change to the working directory, and prove that it lies inside (X2, CVE-2024-21626)."""

    path: str
    create: bool

    def describe(self) -> str:
        return f"enter the working directory {self.path}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        with closing(kernel, folder(kernel, "/")) as root:
            place = find_or_make(kernel, root, self.path, create=self.create)
            with closing(kernel, place):
                kernel.chdir(place)
        # Raises if the folder cannot be reached from the root.
        if not kernel.getcwd().startswith("/"):
            raise OSError(errno.EPERM, "it lies outside of the container's root", self.path)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Bounds:
    """Resource limits and the file mode mask."""

    rlimits: tuple[Rlimit, ...]
    umask: int

    def describe(self) -> str:
        return f"set {len(self.rlimits)} resource limits"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        for limit in self.rlimits:
            kernel.setrlimit(limit.name, limit.soft, limit.hard)
        kernel.umask(self.umask)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class DropPrivileges:
    """Become the container's user with the capabilities it was given, and no way to more.

    `bounding` and `ambient` are masks. Inheritable is what ambient needs and nothing else: a non-empty
    inheritable set gave file capabilities away (GHSA-f3fp-gc8g-vw66, X8).
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    bounding: int
    ambient: int
    last_capability: int
    no_new_privs: bool
    filter: bytes

    def describe(self) -> str:
        return f"become uid {self.uid}, gid {self.gid} with capabilities {self.bounding:#x} and load the filter"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        # (1) Without no_new_privs a filter needs CAP_SYS_ADMIN, so it comes before that is gone.
        if self.no_new_privs:
            kernel.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
        else:
            kernel.set_filter(self.filter)
        # (2) The bounding set needs CAP_SETPCAP.
        for number in range(self.last_capability + 1):
            if not self.bounding >> number & 1:
                kernel.prctl(c.PR_CAPBSET_DROP, number)
        # (3) The ids; capabilities survive the change of uid only if asked to.
        kernel.prctl(c.PR_SET_KEEPCAPS, 1)
        kernel.setgroups(self.groups)
        kernel.setresgid(self.gid)
        kernel.setresuid(self.uid)
        # (4) The sets: root's are the bounding set, everybody else's the ambient one.
        held = self.bounding if self.uid == 0 else self.ambient
        inheritable = 0 if self.uid == 0 else self.ambient
        kernel.capset(effective=held, permitted=held, inheritable=inheritable)
        kernel.prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_CLEAR_ALL)
        for number in range(self.last_capability + 1):
            if inheritable >> number & 1:
                kernel.prctl(c.PR_CAP_AMBIENT, c.PR_CAP_AMBIENT_RAISE, number)
        # (5) A change of ids resets both of these.
        kernel.prctl(c.PR_SET_PDEATHSIG, SIGKILL)
        kernel.prctl(c.PR_SET_DUMPABLE, 0)
        # (6) Last: from here on only execve.
        if self.no_new_privs:
            kernel.set_filter(self.filter)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Execute:
    """Become the container's program, by way of the trampoline, or of a reaper in front of it (X1)."""

    argv: tuple[str, ...]
    env: tuple[str, ...]
    reaper: str = ""
    """The reaper's name if the program in PROGRAM_FD is one."""

    def describe(self) -> str:
        return f"execute {self.argv[0]}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        path = self._look_up(kernel)
        if self.reaper:
            first: tuple[str, ...] = (self.reaper, "--", path, *self.argv[1:])
        else:
            first = (path, *self.argv)
        # Tells the launcher that whatever comes now is the program's own doing.
        kernel.write(stage["errors"], b"R")
        kernel.execve(stage["program"], first, self.env)

    def _look_up(self, kernel: Kernel) -> str:
        """Find argv[0] as execvp(3) does, inside the container, as the container's user."""
        name = self.argv[0]
        if "/" in name:
            candidates = [name]
        else:
            path = next((entry[5:] for entry in self.env if entry.startswith("PATH=")), "")
            candidates = [f"{folder.rstrip('/')}/{name}" for folder in path.split(":") if folder.startswith("/")]
        for candidate in candidates:
            if kernel.executable(candidate):
                return candidate
        found = [candidate for candidate in candidates if kernel.exists(candidate)]
        if found:
            raise OSError(errno.EACCES, "it is not an executable file for this user", found[0])
        raise OSError(errno.ENOENT, "no such file" if "/" in name else "no such file in PATH", name)
