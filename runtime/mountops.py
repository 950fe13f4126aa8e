"""The operations of a sandbox that mount: its root, the kernel's file systems, what was asked for, what is covered.

Everything happens in the container's own mount namespace, by descriptor, and before the root changes. What needs no
image is built on a scaffold first, and moved into the root later: a process can wait in between for an image to come.
Places in the image are untrusted: they are looked up under the rules of `runtime.linux.mounts`.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from typing import Final

from runtime.linux import constants as c
from runtime.linux.kernel import Kernel
from runtime.linux.mounts import EXACTLY, Options, attach, closing, copy_tree, filesystem, find, find_or_make, folder
from runtime.model import Bind, Tmpfs
from runtime.ops import Stage

SILENT: Final = c.MOUNT_ATTR_NOSUID | c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOEXEC
"""nosuid, nodev and noexec."""
_KERNEL_FILES: Final = frozenset({c.PROC_SUPER_MAGIC, c.SYSFS_MAGIC, c.CGROUP_SUPER_MAGIC, c.CGROUP2_SUPER_MAGIC})


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class PrivateMounts:
    """Cut this mount namespace off: no mount made here is seen outside, and none from there comes in."""

    def describe(self) -> str:
        return "make all mounts private"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        kernel.mount_setattr(c.AT_FDCWD, "/", flags=c.AT_RECURSIVE, propagation=c.MS_PRIVATE)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Scaffold:
    """An empty file system to build on, attached at a folder of the host: mounts are made on attached ones only.

    Before Linux 6.15 nothing can be attached to a mount that is attached nowhere.
    """

    mount_point: str
    folders: tuple[str, ...]

    def describe(self) -> str:
        return "put up a scaffold"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        top = filesystem(kernel, "tmpfs", (("mode", "0700"), ("size", "4k")), SILENT)
        with closing(kernel, folder(kernel, self.mount_point)) as place:
            kernel.move_mount(top, place)
        for name in self.folders:
            kernel.mkdirat(top, name, 0o700)
        stage["scaffold"] = top


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MoveIn:
    """Move what was built on the scaffold to places that must be plain folders of the image (X4, X5).

    A link there, absolute or relative, is refused: CVE-2023-27561, CVE-2026-41579.
    """

    names: tuple[str, ...]

    def describe(self) -> str:
        return f"move {', '.join(f'/{name}' for name in self.names)} into the root"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        for name in self.names:
            attach(kernel, stage[name], stage["root"], name)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class ReadOnlyRoot:
    """Attach the image itself as the root to be."""

    mount_point: str

    def describe(self) -> str:
        return "attach the image, read-only"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        with closing(kernel, folder(kernel, self.mount_point)) as place:
            kernel.move_mount(stage["image"], place)
        stage["root"] = stage["image"]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
        with closing(kernel, upper), closing(kernel, folder(kernel, self.mount_point)) as place:
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MountKernelFiles:
    """Mount a file system of the kernel on the scaffold, or on another one of them."""

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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
        with closing(kernel, tmpfs), closing(kernel, folder(kernel, self.mount_point)) as place:
            kernel.move_mount(tmpfs, place)
            for number, (path, content) in enumerate(self.files):
                kernel.write_file(tmpfs, str(number), content, 0o644)
                attributes = SILENT | c.MOUNT_ATTR_RDONLY
                with closing(kernel, copy_tree(kernel, tmpfs, str(number), attributes)) as file:
                    attach(kernel, file, stage["root"], path)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class AttachBind:
    """Attach a host file or folder, which the launcher opened and judged; the container's path decides nothing."""

    number: int
    bind: Bind
    create: bool

    def describe(self) -> str:
        return f"bind {self.bind.source} at {self.bind.target}"

    def execute(self, kernel: Kernel, stage: Stage) -> None:
        _attach_asked(kernel, stage, stage[f"bind:{self.number}"], self.bind.target, create=self.create)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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
                is_folder = stat.S_ISDIR(kernel.fstat(place).st_mode)
                with closing(kernel, self._empty(kernel) if is_folder else self._null(kernel, stage)) as on:
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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


@dataclass(frozen=True, slots=True, eq=False, repr=False)
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


def _attach_asked(kernel: Kernel, stage: Stage, mount: int, target: str, *, create: bool) -> None:
    """Attach what a user asked for at a path of the container, whose links lead nowhere outside of it.

    Not over the root, and not into the kernel's own file systems, nor over what covers parts of them: a bind over /proc
    would hide what the sandbox writes there (X4, CVE-2019-16884).
    """
    root = stage["root"]
    is_folder = stat.S_ISDIR(kernel.fstat(mount).st_mode)
    with closing(kernel, find_or_make(kernel, root, target, create=create, is_folder=is_folder)) as place:
        here, top = kernel.fstat(place), kernel.fstat(root)
        if (here.st_dev, here.st_ino) == (top.st_dev, top.st_ino):
            raise OSError(errno.EINVAL, "it is the container's root", target)
        inside = f"{kernel.path_of(place)}/".removeprefix(kernel.path_of(root))
        if kernel.fstatfs_type(place) in _KERNEL_FILES or inside.startswith(("/proc/", "/sys/")):
            raise OSError(errno.EINVAL, "it lies in a file system of the kernel", target)
        kernel.move_mount(mount, place)
