"""The seam between admission and the sandbox: one container, whole.

Admission proves an image, has the start policy judge what is asked (policy/start.py caps memory, capabilities,
networks and mounts), and fills in a `StartRequest`; the sandbox starts exactly that and asks nobody anything.
Nothing here was read from an image without being checked: uid, gid, groups and working
directory were resolved when the clearance was made (layers.md), and labels of an image never get here.
All sizes are bytes, all times seconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from runtime.errors import RequestError
from runtime.linux.capabilities import NUMBERS

CPU_PERIOD: Final = 100_000
"""Microseconds of wall time over which `cpu_max` microseconds of CPU may be used."""
MAX_ID: Final = 2**32 - 2
"""Highest uid or gid; 2^32-1 means "leave as it is" to the kernel (X7: an overflow made root of it)."""
NAME_MAX: Final = 63
HOSTNAME_MAX: Final = 64
"""__NEW_UTS_LEN, linux/utsname.h."""
MIN_MEMORY: Final = 6 * 1024 * 1024
"""The least that a container's first process fits in, as docker has it."""
MIN_CPU: Final = 1000
"""The kernel's least quota (Documentation/scheduler/sched-bwc.rst)."""
MAX_GRACE: Final = 3600.0
RLIMITS: Final = frozenset(
    f"RLIMIT_{name}"
    for name in (
        *("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "MSGQUEUE", "NICE"),
        *("NOFILE", "NPROC", "RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK"),
    )
)
CAPABILITIES: Final = frozenset(NUMBERS)
"""The names that Linux 6.12 has."""
_FIRST: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_REST: Final = _FIRST | frozenset("_.-")

Network = Literal["none", "host"]


@dataclass(frozen=True, slots=True, order=True)
class ContainerId:
    """A container's name, which is its only identity: safe as a path component and as a cgroup's name."""

    value: str

    def __post_init__(self) -> None:
        """Refuse what is not a letter or digit followed by at most 62 letters, digits, `_`, `.` or `-`."""
        text = self.value
        if not 0 < len(text) <= NAME_MAX or text[0] not in _FIRST or not _REST.issuperset(text):
            raise RequestError(
                f"container name {text[:80]!r}: expected a letter or digit, "
                f"then at most {NAME_MAX - 1} letters, digits, '_', '.' or '-'"
            )

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A verified image: descriptors that stay open and owned by the caller until the start returned.

    The bytes were proven through these very descriptors, and it is they that are mounted: no path is
    looked up again in between.
    """

    index_fd: int
    """The root index, an EROFS image."""
    layer_fds: tuple[int, ...] = ()
    """The layers' uncompressed tars, in the order of the index's device slots (lowest layer first)."""
    writable: bool = False
    """Put an overlay over it whose upper is a tmpfs and dies with the container."""
    upper_max: int | None = None
    """Bytes of that tmpfs; None leaves the kernel's default (half of memory)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rlimit:
    """One resource limit; `name` as in getrlimit(2) (`RLIMIT_NOFILE`), -1 for unlimited."""

    name: str
    soft: int
    hard: int

    def __post_init__(self) -> None:
        """Refuse a name that is no limit, and numbers that setrlimit(2) would."""
        if self.name not in RLIMITS:
            raise RequestError(f"resource limit {self.name[:40]!r}: expected one of {', '.join(sorted(RLIMITS))}")
        soft, hard = (2**64 if value == -1 else value for value in (self.soft, self.hard))
        if not 0 <= soft <= hard:
            raise RequestError(f"resource limit {self.name}: got soft {self.soft}, hard {self.hard}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """The program that becomes the container."""

    argv: tuple[str, ...]
    """argv[0] with a slash is a path, without one it is looked up along PATH of `env`."""
    env: tuple[str, ...] = ()
    """The whole environment, `NAME=VALUE`."""
    cwd: str = "/"
    """Absolute; where it is missing it is made if the root is writable."""
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = ()
    """The bounding set; for uid 0 also the permitted and effective sets. Inheritable stays empty (X8)."""
    ambient: tuple[str, ...] = ()
    """Those of `capabilities` that a uid other than 0 holds as well (they are then inheritable too)."""
    no_new_privs: bool = True
    terminal: bool = False
    """Reserved: a start with a terminal is refused until there is one."""
    rlimits: tuple[Rlimit, ...] = ()
    umask: int = 0o022

    def __post_init__(self) -> None:
        """Refuse what no process can be started with."""
        if not self.argv or not self.argv[0]:
            raise RequestError("process: no program to execute")
        for text in (*self.argv, *self.env, self.cwd):
            if "\0" in text:
                raise RequestError(f"process: {text[:80]!r} holds a NUL")
        for entry in self.env:
            if entry.find("=") < 1:
                raise RequestError(f"process: environment entry {entry[:80]!r} is not NAME=VALUE")
        if not self.cwd.startswith("/"):
            raise RequestError(f"process: working directory {self.cwd[:80]!r} is not absolute")
        for number in (self.uid, self.gid, *self.groups):
            if not 0 <= number <= MAX_ID:
                raise RequestError(f"process: id {number} is out of range, expected 0 to {MAX_ID}")
        if unknown := [name for name in self.capabilities if name not in CAPABILITIES]:
            raise RequestError(f"process: capability {unknown[0][:40]!r} is unknown, expected a name like CAP_CHOWN")
        if extra := [name for name in self.ambient if name not in self.capabilities]:
            raise RequestError(f"process: ambient capability {extra[0][:40]!r} is not among its capabilities")
        if not 0 <= self.umask <= 0o777:
            raise RequestError(f"process: umask {self.umask:o} is out of range")
        if self.terminal:
            raise RequestError("process: a terminal is not supported yet")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A host file or folder shown inside. By default it can be read, and nothing in it executed."""

    source: str
    """Absolute and free of symlinks, `.` and `..`: it is opened that way, so what was judged is what is mounted."""
    target: str
    """Absolute, inside the container; symlinks in it are followed inside the container's root only."""
    read_only: bool = True
    nosuid: bool = True
    nodev: bool = True
    noexec: bool = True

    def __post_init__(self) -> None:
        """Refuse a source that is not spelled out, and a target that is no place to mount."""
        parts = self.source.split("/")
        if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[1:]) or "\0" in self.source:
            raise RequestError(f"bind {self.source[:80]!r}: expected an absolute path without '.', '..' or '//'")
        _check_target(self.target)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """An empty folder in memory."""

    target: str
    size: int = 64 * 1024 * 1024
    mode: int = 0o1777
    uid: int = 0
    gid: int = 0
    noexec: bool = True

    def __post_init__(self) -> None:
        """Refuse a target that is no place to mount, and numbers out of range."""
        _check_target(self.target)
        owned = all(0 <= number <= MAX_ID for number in (self.uid, self.gid))
        if self.size < 1 or not 0 <= self.mode <= 0o7777 or not owned:
            raise RequestError(f"tmpfs {self.target[:80]!r}: size, mode or owner is out of range")


def _check_target(target: str) -> None:
    if not target.startswith("/") or not target.strip("/.") or "\0" in target or ".." in target.split("/"):
        raise RequestError(f"mount target {target[:80]!r}: expected an absolute path below '/', without '..'")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What `ps` says of the image. Nothing is decided by it."""

    image: str = ""
    """The reference as it was asked for."""
    digest: str = ""
    """The platform manifest's digest."""
    level: str = ""
    notes: tuple[str, ...] = ()
    """E.g. a break-glass override, or a revocation list past its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """Bounds of the log that is kept: at most `files` files of `max_bytes` each, the oldest dropped."""

    max_bytes: int = 4 * 1024 * 1024
    files: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """One container, whole. `None` for a limit is none."""

    name: ContainerId
    root: Root
    process: Process
    hostname: str = ""
    """Empty: the container's name."""
    memory: int | None = None
    pids: int | None = None
    cpu: int | None = None
    """Microseconds of CPU in each CPU_PERIOD."""
    network: Network = "none"
    mounts: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    init: bool = False
    """Put a static reaper in front: it is pid 1, and the program its child."""
    seccomp: bytes | None = None
    """A profile in the form that docker and podman share (JSON); None is the one shipped with runtime/."""
    stdin: bool = False
    """Copy the caller's standard input in; otherwise it is empty."""
    stop_signal: int = 15
    stop_grace: float = 10.0
    """Seconds between the stop signal and SIGKILL."""
    keep: bool = False
    """Keep exit code and log in the state folder after the end, until `remove`; else nothing is left."""
    log: LogLimits = field(default_factory=LogLimits)
    shown: Shown = field(default_factory=Shown)

    def __post_init__(self) -> None:
        """Refuse limits that nothing can run in, and a host name that is none."""
        if self.memory is not None and self.memory < MIN_MEMORY:
            raise RequestError(f"memory limit {self.memory}: expected at least {MIN_MEMORY} bytes")
        if self.pids is not None and self.pids < 1:
            raise RequestError(f"pids limit {self.pids}: expected at least 1")
        if self.cpu is not None and self.cpu < MIN_CPU:
            raise RequestError(f"cpu limit {self.cpu}: expected at least {MIN_CPU} microseconds in {CPU_PERIOD}")
        if len(self.hostname) > HOSTNAME_MAX or not (_REST | {""}).issuperset(self.hostname):
            raise RequestError(f"host name {self.hostname[:80]!r}: expected letters, digits, '.', '-' or '_'")
        if self.network not in ("none", "host"):
            raise RequestError(f"network {self.network!r}: expected 'none' or 'host'")
        if not 1 <= self.stop_signal <= 64:
            raise RequestError(f"stop signal {self.stop_signal}: expected 1 to 64")
        if not 0 <= self.stop_grace <= MAX_GRACE:
            raise RequestError(f"stop grace {self.stop_grace}: expected 0 to {MAX_GRACE} seconds")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReason:
    """Why a running container has to stop: `code` for machines, `message` for people."""

    code: str
    message: str
    at_once: bool = False
    """Kill it: no stop signal, no grace. Not kept in its record: it says how it ends, not why."""
