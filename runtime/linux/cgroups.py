"""Control groups on v1, v2 and hybrid hosts: where the hierarchies are, and one group in all of them.

A group lies at `<hierarchy>/<parent>/<name>` in every hierarchy that we use; nothing outside of it is
touched but `<parent>` itself and, on v2, the list of controllers above it. Kernel documentation:
admin-guide/cgroup-v1/ and admin-guide/cgroup-v2.rst.
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtime.linux import syscalls
from runtime.linux.devices import DeviceRule, restrict

V1_CONTROLLERS: Final = ("memory", "pids", "cpu", "cpuacct", "devices", "freezer")
"""The v1 controllers that a group joins; in others the container stays where its launcher was."""
V2_CONTROLLERS: Final = ("memory", "pids", "cpu")
_SIGKILL: Final = 9
_PAUSE: Final = 0.005
"""Seconds between two looks at a group that is not empty yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hierarchies:
    """Where this host's cgroup hierarchies are mounted."""

    v1: Mapping[str, Path] = field(default_factory=dict)
    """Controller to mount point; two controllers may share one."""
    v2: Path | None = None
    v2_controllers: frozenset[str] = frozenset()

    @property
    def controllers(self) -> frozenset[str]:
        """Every controller that some hierarchy has."""
        return frozenset(self.v1) | self.v2_controllers


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a group may use; None is unlimited."""

    memory: int | None = None
    """Bytes, with swap: none beyond it."""
    pids: int | None = None
    cpu: int | None = None
    """Microseconds in each `cpu_period`."""
    cpu_period: int = 100_000
    devices: tuple[DeviceRule, ...] = ()


def parse_mountinfo(text: str) -> tuple[dict[str, Path], Path | None]:
    """Find the cgroup mounts in the text of /proc/self/mountinfo (proc_pid_mountinfo(5)).

    The first mount of a hierarchy counts: a later one is somebody's copy of a part of it.
    """
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for line in text.splitlines():
        head, _, tail = line.partition(" - ")
        kind = tail.split(" ", 1)[0]
        if kind not in ("cgroup", "cgroup2"):
            continue
        point = Path(head.split(" ")[4].replace("\\040", " "))
        if kind == "cgroup2":
            v2 = v2 or point
            continue
        for option in tail.split(" ", 2)[2].split(","):
            if option in V1_CONTROLLERS:
                v1.setdefault(option, point)
    return v1, v2


def find_hierarchies() -> Hierarchies:
    """The hierarchies that this process sees."""
    v1, v2 = parse_mountinfo(Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape"))
    listed = "" if v2 is None else (v2 / "cgroup.controllers").read_text()
    return Hierarchies(v1=v1, v2=v2, v2_controllers=frozenset(listed.split()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """One group, by name, in all hierarchies. Making one of these touches nothing."""

    hierarchies: Hierarchies
    parent: str
    name: str

    @property
    def v1_folders(self) -> tuple[Path, ...]:
        """Its folders in v1 hierarchies, each once."""
        points = dict.fromkeys(self.hierarchies.v1[name] for name in V1_CONTROLLERS if name in self.hierarchies.v1)
        return tuple(point / self.parent / self.name for point in points)

    @property
    def v2_folder(self) -> Path | None:
        """Its folder in the v2 hierarchy."""
        return None if self.hierarchies.v2 is None else self.hierarchies.v2 / self.parent / self.name

    @property
    def folders(self) -> tuple[Path, ...]:
        """All its folders."""
        return self.v1_folders + (() if self.v2_folder is None else (self.v2_folder,))

    def create(self, limits: Limits) -> None:
        """Make the folders, set the limits, and let only the devices in that they name.

        Raises:
            FileExistsError: a group of this name is there already.
            OSError: a limit has no controller here (ENODEV), or the kernel refuses a value.
        """
        self._check(limits)
        for folder in self.folders:
            _make(folder)
        if self.v2_folder is not None:
            self._delegate(self.v2_folder)
        self._restrict(limits)
        self._write(limits)

    def limit(self, limits: Limits) -> None:
        """Set the limits of a group that was created before; its devices stay as they are.

        Raises:
            OSError: as `create`.
        """
        self._check(limits)
        self._write(limits)

    def _write(self, limits: Limits) -> None:
        for controller, writes in _v1_writes(limits).items():
            if (point := self.hierarchies.v1.get(controller)) is not None:
                for name, value in writes:
                    _set(point / self.parent / self.name / name, value)
        if self.v2_folder is not None:
            for name, value in _v2_writes(limits, self._ours()):
                _set(self.v2_folder / name, value)

    def _check(self, limits: Limits) -> None:
        if not self.folders:
            raise OSError(errno.ENODEV, "no cgroup hierarchy is mounted", "/proc/self/mountinfo")
        wanted = {"memory": limits.memory, "pids": limits.pids, "cpu": limits.cpu}
        for controller, value in wanted.items():
            if value is not None and controller not in self.hierarchies.controllers:
                raise OSError(errno.ENODEV, "no cgroup hierarchy has this controller", controller)

    def _ours(self) -> list[str]:
        return [name for name in V2_CONTROLLERS if name in self.hierarchies.v2_controllers]

    def _delegate(self, folder: Path) -> None:
        """Have the groups above hand down the controllers that we use."""
        if switch := " ".join(f"+{name}" for name in self._ours()):
            for above in (folder.parent.parent, folder.parent):
                _set(above / "cgroup.subtree_control", switch)

    def _restrict(self, limits: Limits) -> None:
        if (point := self.hierarchies.v1.get("devices")) is not None:
            for name, value in (("devices.deny", "a"), *(("devices.allow", rule.text()) for rule in limits.devices)):
                _set(point / self.parent / self.name / name, value)
        elif self.v2_folder is not None:
            fd = os.open(self.v2_folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                restrict(fd, limits.devices)
            finally:
                os.close(fd)

    def open_v2(self) -> int | None:
        """The v2 folder as a descriptor, for CLONE_INTO_CGROUP; None without v2."""
        return None if self.v2_folder is None else os.open(self.v2_folder, os.O_RDONLY | os.O_CLOEXEC)

    def attach(self, pid: int) -> None:
        """Move a process into the v1 folders. Into the v2 folder it is born."""
        for folder in self.v1_folders:
            _set(folder / "cgroup.procs", str(pid))

    def pids(self) -> frozenset[int]:
        """Every process in any folder of the group, and of groups below it."""
        found: set[int] = set()
        for folder in self.folders:
            for below in _tree(folder):
                with _unless_gone():
                    found.update(int(line) for line in (below / "cgroup.procs").read_text().split())
        return frozenset(found - {0})

    def kill(self, within: float = 10.0) -> None:
        """Kill everything in the group, and return when it is empty.

        Raises:
            OSError: processes are left after `within` seconds (ETIME).
        """
        deadline = time.monotonic() + within
        while pids := self.pids():
            self._thaw()
            if self.v2_folder is not None:
                with contextlib.suppress(OSError):  # no cgroup.kill before Linux 5.14: the signals below do it
                    _set(self.v2_folder / "cgroup.kill", "1")
            self._signal(pids)
            if time.monotonic() > deadline:
                raise OSError(errno.ETIME, f"processes are left: {sorted(pids)[:8]}", f"{self.parent}/{self.name}")
            time.sleep(_PAUSE)

    def _signal(self, pids: frozenset[int]) -> None:
        """SIGKILL to those that are still in the group once a descriptor holds them: a pid alone may be reused."""
        held: dict[int, int] = {}
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                held[pid] = os.pidfd_open(pid)
        still = self.pids()
        for pid, pidfd in held.items():
            with contextlib.suppress(ProcessLookupError):
                if pid in still:
                    syscalls.pidfd_send_signal(pidfd, _SIGKILL)
            os.close(pidfd)

    def _thaw(self) -> None:
        """A frozen task of v1 does not die of SIGKILL before it is thawed."""
        if (point := self.hierarchies.v1.get("freezer")) is not None:
            with _unless_gone():
                _set(point / self.parent / self.name / "freezer.state", "THAWED")

    def remove(self, within: float = 10.0) -> None:
        """Remove the (empty) folders, and the parent's if nothing else is in them. What is gone is fine.

        Raises:
            OSError: still busy after `within` seconds.
        """
        deadline = time.monotonic() + within
        for folder in self.folders:
            for below in reversed(list(_tree(folder))):
                _remove(below, deadline)
            with contextlib.suppress(OSError):
                folder.parent.rmdir()

    def clear(self) -> None:
        """Kill what is in it, and remove it.

        Raises:
            OSError: as `kill` and `remove`.
        """
        self.kill()
        self.remove()

    def exists(self) -> bool:
        """True if any of its folders is there."""
        return any(folder.exists() for folder in self.folders)


def _v1_writes(limits: Limits) -> dict[str, list[tuple[str, str]]]:
    """Controller to the files to write, in order."""
    writes: dict[str, list[tuple[str, str]]] = {}
    if limits.memory is not None:
        # Memory first: memory+swap may never be below it.
        names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
        writes["memory"] = [(name, str(limits.memory)) for name in names]
    if limits.pids is not None:
        writes["pids"] = [("pids.max", str(limits.pids))]
    if limits.cpu is not None:
        writes["cpu"] = [("cpu.cfs_period_us", str(limits.cpu_period)), ("cpu.cfs_quota_us", str(limits.cpu))]
    return writes


def _v2_writes(limits: Limits, controllers: Sequence[str]) -> list[tuple[str, str]]:
    """The files to write in a v2 folder that has these controllers."""
    writes: list[tuple[str, str]] = []
    if limits.memory is not None and "memory" in controllers:
        writes += [("memory.max", str(limits.memory)), ("memory.swap.max", "0")]
    if limits.pids is not None and "pids" in controllers:
        writes.append(("pids.max", str(limits.pids)))
    if limits.cpu is not None and "cpu" in controllers:
        writes.append(("cpu.max", f"{limits.cpu} {limits.cpu_period}"))
    return writes


_OPTIONAL: Final = frozenset({"memory.memsw.limit_in_bytes", "memory.swap.max"})
"""Missing where the kernel does not account swap; there is no swap to limit then, or no way to."""


def _set(file: Path, value: str) -> None:
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        if file.name in _OPTIONAL:
            return
        raise
    try:
        os.write(fd, value.encode())
    except OSError as error:
        raise OSError(error.errno, f"write {value!r}: {error.strerror}", str(file)) from error
    finally:
        os.close(fd)


@contextmanager
def _unless_gone() -> Iterator[None]:
    """Pass over a folder that somebody removes meanwhile: ENOENT before its file was opened, ENODEV after."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENODEV):
            raise


def _make(folder: Path) -> None:
    """Make a folder and its parent; another container's end may remove the parent in between."""
    for _ in range(8):
        with contextlib.suppress(FileExistsError):
            folder.parent.mkdir()
        try:
            folder.mkdir()
        except FileNotFoundError:
            continue
        return
    raise FileNotFoundError(errno.ENOENT, "mkdir: its parent is removed again and again", str(folder))


def _remove(folder: Path, deadline: float) -> None:
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            # EBUSY until the last task has left it for good, which is a little after it was reaped.
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_PAUSE)
        else:
            return


def _tree(folder: Path) -> Iterator[Path]:
    """A group and all groups below it, parents first. What vanishes meanwhile is left out."""
    try:
        with os.scandir(folder) as entries:
            below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return
    yield folder
    for child in below:
        yield from _tree(child)
