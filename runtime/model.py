"""The seam between admission and the sandbox: what may be started, and what the start policy caps.

Admission proves an image and fills in a `StartRequest`; the sandbox starts exactly that and asks nobody
anything. Nothing here was read from an image without being checked: uid, gid, groups and working
directory were resolved when the clearance was made (layers.md), and labels of an image never get here.
All sizes are bytes, all times seconds unless a name says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

from runtime.errors import RequestError

CPU_PERIOD: Final = 100_000
"""Microseconds of wall time over which `cpu_max` microseconds of CPU may be used."""
MAX_ID: Final = 2**32 - 2
"""Highest uid or gid; 2^32-1 means "leave as it is" to the kernel (X7: an overflow made root of it)."""
NAME_MAX: Final = 63
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
class CapLimits:
    """What the start policy caps. None is no cap; an empty tuple allows none."""

    memory_max: int | None = None
    """Bytes of memory."""
    pids_max: int | None = None
    """Processes and threads."""
    cpu_max: int | None = None
    """Microseconds of CPU in each CPU_PERIOD."""
    capabilities: tuple[str, ...] = ()
    """Names (`CAP_CHOWN`) that a request may ask for."""
    networks: tuple[Network, ...] = ("none",)
    mounts: tuple[str, ...] = ()
    """Host folders (absolute, no symlink, no `..`) below which a bind's source may lie."""
    writable_root: bool = True


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Tmpfs:
    """An empty folder in memory."""

    target: str
    size: int = 64 * 1024 * 1024
    mode: int = 0o1777
    uid: int = 0
    gid: int = 0
    noexec: bool = True


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StopReason:
    """Why a running container has to stop: `code` for machines, `message` for people."""

    code: str
    message: str
