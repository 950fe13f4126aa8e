"""The operations of a sandbox: small values that say what they do before they do it.

Each one is pure data with `describe()` and `execute(kernel, stage)`; a plan is a tuple of them, in the order
in which the container's first process executes them. They hand descriptors to each other through the stage,
never paths. Nothing is imported while they run: after the root has changed there is no standard library.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass, field
from typing import Final, Protocol

from runtime.linux import constants as c
from runtime.linux.kernel import Kernel
from runtime.linux.mounts import (
    EXACTLY,
    WITHIN,
    Options,
    attach,
    closing,
    copy_tree,
    filesystem,
    find,
)
from runtime.linux.trampoline import ERROR_FD
from runtime.model import Bind, Rlimit, Tmpfs

SIGKILL: Final = 9
PROGRAM_FD: Final = ERROR_FD + 1
"""The memfd that is executed first: the trampoline, or the reaper."""
SILENT: Final = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC
"""nosuid, nodev and noexec."""
_KERNEL_FILES: Final = frozenset({c.PROC_SUPER_MAGIC, c.SYSFS_MAGIC, c.CGROUP_SUPER_MAGIC, c.CGROUP2_SUPER_MAGIC})


@dataclass(slots=True)
class Stage:
    """The descriptors of one start, by name.

    The launcher provides `image`, `bind:N`, `program`, `go`, `errors`, `stdout` and `stderr`, and `stdin` if
    there is input; operations add `root`, `proc`, `sys` and `dev`.
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


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class PrivateMounts:
    """Cut this mount namespace off: no mount made here is seen outside, and none from there comes in."""

    def describe(self) -> str:
        return "make all mounts private"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        kernel.mount_setattr(c.AT_FDCWD, "/", flags=c.AT_RECURSIVE, propagation=c.MS_PRIVATE)


@dataclass(frozen=True, slots=True)
class ReadOnlyRoot:
    """Attach the image itself as the root to be."""

    mount_point: str

    def describe(self) -> str:
        return "attach the image, read-only"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        with closing(kernel, _folder(kernel, self.mount_point)) as place:
            kernel.move_mount(stage["image"], place)
        stage["root"] = stage["image"]


@dataclass(frozen=True, slots=True)
class WritableRoot:
    """Put an overlay over the image, its upper on a tmpfs that dies with this mount namespace."""

    mount_point: str
    attributes: int
    size: int | None = None

    def describe(self) -> str:
        return "attach the image under a writable overlay"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        size: Options = () if self.size is None else (("size", str(self.size)),)
        upper = filesystem(kernel, "tmpfs", (("mode", "0700"), *size), self.attributes)
        with closing(kernel, upper), closing(kernel, _folder(kernel, self.mount_point)) as place:
            kernel.move_mount(upper, place)
            image = kernel.fstat(stage["image"])
            for name, mode in (("lower", 0o700), ("work", 0o700), ("root", 0o700), ("upper", image.st_mode & 0o7777)):
                kernel.mkdirat(upper, name, mode)
            with closing(kernel, kernel.openat2(upper, "upper", os.O_RDONLY | os.O_DIRECTORY, EXACTLY)) as top:
                kernel.fchown(top, image.st_uid, image.st_gid)  # the root directory's owner is the upper's
            attach(kernel, stage["image"], upper, "lower")
            # Relative names: a state folder may have a ':' or ',' in its path, which overlayfs would split at.
            kernel.chdir(upper)
            layers = (("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work"))
            stage["root"] = filesystem(kernel, "overlay", layers, self.attributes)
            attach(kernel, stage["root"], upper, "root")


@dataclass(frozen=True, slots=True)
class MountKernelFiles:
    """Mount a file system of the kernel at a place that must be a plain folder of the image (X4, X5).

    A link there, absolute or relative, is refused: CVE-2023-27561, CVE-2026-41579.
    """

    name: str
    fstype: str
    under: str
    target: str
    options: Options
    attributes: int

    def describe(self) -> str:
        return f"mount {self.fstype} at {self.target} of {self.under}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        stage[self.name] = filesystem(kernel, self.fstype, self.options, self.attributes)
        attach(kernel, stage[self.name], stage[self.under], self.target)


@dataclass(frozen=True, slots=True)
class DeviceNodes:
    """The default devices of the runtime specification, and the links that programs expect beside them."""

    nodes: tuple[tuple[str, int, int], ...]
    folders: tuple[str, ...]
    links: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "make device nodes in /dev"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        dev = stage["dev"]
        for name, major, minor in self.nodes:
            kernel.mknodat(dev, name, stat.S_IFCHR | 0o666, major, minor)
        for name in self.folders:
            kernel.mkdirat(dev, name, 0o755)
        for name, target in self.links:
            kernel.symlinkat(target, dev, name)


@dataclass(frozen=True, slots=True)
class HostFiles:
    """Show small files (/etc/hosts and others) that are the container's own; read-only.

    `mount_point` is an empty folder of the host: copies are made of attached mounts only (before Linux 6.15).
    """

    mount_point: str
    files: tuple[tuple[str, bytes], ...]

    def describe(self) -> str:
        return f"show {', '.join(f'/{path}' for path, _ in self.files)}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        tmpfs = filesystem(kernel, "tmpfs", (("mode", "0755"),), SILENT)
        with closing(kernel, tmpfs) as folder, closing(kernel, _folder(kernel, self.mount_point)) as place:
            kernel.move_mount(folder, place)
            for number, (path, content) in enumerate(self.files):
                kernel.write_file(folder, str(number), content, 0o644)
                attributes = SILENT | c.MOUNT_ATTR_RDONLY
                with closing(kernel, copy_tree(kernel, folder, str(number), attributes)) as file:
                    attach(kernel, file, stage["root"], path)


@dataclass(frozen=True, slots=True)
class MountTmpfs:
    """An empty folder in memory."""

    mount: Tmpfs
    create: bool

    def describe(self) -> str:
        return f"mount a tmpfs at {self.mount.target}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        wanted = self.mount
        numbers = {"size": str(wanted.size), "mode": f"{wanted.mode:o}", "uid": str(wanted.uid), "gid": str(wanted.gid)}
        attributes = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | (c.MOUNT_ATTR_NOEXEC if wanted.noexec else 0)
        with closing(kernel, filesystem(kernel, "tmpfs", tuple(numbers.items()), attributes)) as tmpfs:
            _attach_asked(kernel, stage, tmpfs, wanted.target, create=self.create)


@dataclass(frozen=True, slots=True)
class AttachBind:
    """Attach a host file or folder, which the launcher opened and judged; the container's path decides nothing."""

    number: int
    bind: Bind
    create: bool

    def describe(self) -> str:
        return f"bind {self.bind.source} at {self.bind.target}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        _attach_asked(kernel, stage, stage[f"bind:{self.number}"], self.bind.target, create=self.create)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class MountCgroups:
    """Show the container its own cgroups, read-only. `v1` are the controllers of each hierarchy."""

    v1: tuple[tuple[str, ...], ...]
    v2: bool

    def describe(self) -> str:
        return "mount its own cgroups, read-only, at /sys/fs/cgroup"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        attributes = SILENT | c.MOUNT_ATTR_RDONLY
        if not self.v1:
            with closing(kernel, filesystem(kernel, "cgroup2", (), attributes)) as tree:
                attach(kernel, tree, stage["sys"], "fs/cgroup")
            return
        with closing(kernel, filesystem(kernel, "tmpfs", (("mode", "0755"), ("size", "64k")), SILENT)) as top:
            attach(kernel, top, stage["sys"], "fs/cgroup")
            for controllers in self.v1:
                options = tuple((name, None) for name in controllers)
                self._one(kernel, top, ",".join(controllers), "cgroup", options)
            if self.v2:
                self._one(kernel, top, "unified", "cgroup2", ())
            kernel.mount_setattr(top, "", attr_set=c.MOUNT_ATTR_RDONLY)

    def _one(self, kernel: Kernel, top: int, name: str, fstype: str, options: Options) -> None:
        kernel.mkdirat(top, name, 0o755)
        with closing(kernel, filesystem(kernel, fstype, options, SILENT | c.MOUNT_ATTR_RDONLY)) as tree:
            attach(kernel, tree, top, name)


@dataclass(frozen=True, slots=True)
class MaskPaths:
    """Cover kernel files that tell of the host or steer it: files by /dev/null, folders by an empty one.

    What covers is our own null device, and its number is looked at through the descriptor that is mounted
    (X3: CVE-2025-31133 put a link there). Places are looked up in the mounts of proc and sysfs themselves.
    """

    paths: tuple[tuple[str, str], ...]
    """Mount (`proc`, `sys`) and path inside it; those that a kernel does not have are passed over."""

    def describe(self) -> str:
        return "cover the masked paths of /proc and /sys"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        for mount, path in self.paths:
            place = find(kernel, stage[mount], path, resolve=EXACTLY | c.RESOLVE_NO_XDEV)
            if place is None:
                continue
            with closing(kernel, place):
                folder = stat.S_ISDIR(kernel.fstat(place).st_mode)
                with closing(kernel, self._empty(kernel) if folder else self._null(kernel, stage)) as on:
                    kernel.move_mount(on, place)

    def _empty(self, kernel: Kernel) -> int:
        options: Options = (("mode", "0755"), ("size", "4k"), ("nr_inodes", "1"))
        return filesystem(kernel, "tmpfs", options, SILENT | c.MOUNT_ATTR_RDONLY)

    def _null(self, kernel: Kernel, stage: Stage) -> int:
        null = copy_tree(kernel, stage["dev"], "null", c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NOEXEC)
        found = kernel.fstat(null)
        if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(1, 3):
            kernel.close(null)
            raise OSError(errno.EPERM, "it is not the null device", "/dev/null")
        return null


@dataclass(frozen=True, slots=True)
class ReadOnlyPaths:
    """Kernel files that can be read and not written, whatever the container's capabilities."""

    paths: tuple[tuple[str, str], ...]

    def describe(self) -> str:
        return "make paths of /proc read-only"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        for mount, path in self.paths:
            place = find(kernel, stage[mount], path, resolve=EXACTLY | c.RESOLVE_NO_XDEV)
            if place is None:
                continue
            attributes = SILENT | c.MOUNT_ATTR_RDONLY
            with closing(kernel, place), closing(kernel, copy_tree(kernel, place, "", attributes)) as on:
                kernel.move_mount(on, place)


@dataclass(frozen=True, slots=True)
class PivotRoot:
    """Make the container's root the root, and drop the host's whole tree from this namespace."""

    def describe(self) -> str:
        return "change the root"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        kernel.chdir(stage["root"])
        # pivot_root(2): with "." twice the old root is stacked on the new one, and "." then is the old one.
        kernel.pivot_root(".", ".")
        kernel.umount_detach(".")
        kernel.chdir("/")


@dataclass(frozen=True, slots=True)
class Names:
    """The host name, and a network of its own with only a loopback interface."""

    hostname: str
    loopback: bool

    def describe(self) -> str:
        return f"set the host name {self.hostname}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        kernel.sethostname(self.hostname)
        if self.loopback:
            kernel.raise_loopback()


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class EnterFolder:
    """Change to the working directory, and prove that it lies inside (X2, CVE-2024-21626)."""

    path: str
    create: bool

    def describe(self) -> str:
        return f"enter the working directory {self.path}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        with closing(kernel, _folder(kernel, "/")) as root:
            place = _find_or_make(kernel, root, self.path, create=self.create)
            with closing(kernel, place):
                kernel.chdir(place)
        # Raises if the folder cannot be reached from the root.
        if not kernel.getcwd().startswith("/"):
            raise OSError(errno.EPERM, "it lies outside of the container's root", self.path)


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
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
    filter: bytes = field(repr=False)

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


@dataclass(frozen=True, slots=True)
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


def _folder(kernel: Kernel, path: str) -> int:
    return kernel.open_path(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)


def _attach_asked(kernel: Kernel, stage: Stage, mount: int, target: str, *, create: bool) -> None:
    """Attach what a user asked for at a path of the container, whose links lead nowhere outside of it.

    Not over the root, and not into the kernel's own file systems: a bind over /proc would hide what the
    sandbox writes there (X4, CVE-2019-16884).
    """
    root = stage["root"]
    folder = stat.S_ISDIR(kernel.fstat(mount).st_mode)
    with closing(kernel, _find_or_make(kernel, root, target, create=create, folder=folder)) as place:
        here, top = kernel.fstat(place), kernel.fstat(root)
        if (here.st_dev, here.st_ino) == (top.st_dev, top.st_ino):
            raise OSError(errno.EINVAL, "it is the container's root", target)
        if kernel.fstatfs_type(place) in _KERNEL_FILES:
            raise OSError(errno.EINVAL, "it lies in a file system of the kernel", target)
        kernel.move_mount(mount, place)


def _find_or_make(kernel: Kernel, root: int, path: str, *, create: bool, folder: bool = True) -> int:
    """An O_PATH descriptor of `path` inside `root`; what is missing is made, if it may be.

    Raises:
        OSError: it is missing in a root that cannot be written, or a link leads through /proc (ELOOP).
    """
    # A trailing component that is a link is followed, inside the root: mount points often are (/var/run).
    try:
        return kernel.openat2(root, path, os.O_PATH, WITHIN)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
        if not create:
            raise OSError(error.errno, "it is missing, and the root is read-only", path) from error
    parent, _, name = path.rstrip("/").rpartition("/")
    with closing(kernel, _find_or_make(kernel, root, parent or "/", create=True)) as above:
        try:
            if folder:
                kernel.mkdirat(above, name, 0o755)
            else:
                kernel.write_file(above, name, b"", 0o644)
        except FileExistsError as error:
            raise OSError(errno.ELOOP, "a link in it leads to something that is missing", path) from error
    return kernel.openat2(root, path, os.O_PATH | os.O_NOFOLLOW, WITHIN)
