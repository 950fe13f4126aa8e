"""What is built of the mount calls: a file system by name, a copy of a tree, a place in an untrusted root.

Places are found once and then held by descriptor; a path of a container is only ever looked up under the
RESOLVE_* rules that suit it (runc had fourteen vulnerabilities of this class; X3, X4, X5).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from runtime.linux import constants as c
from runtime.linux.kernel import Kernel

Options = tuple[tuple[str, str | None], ...]
"""Mount options: a name, and a value or None for a flag."""

WITHIN: Final = c.RESOLVE_IN_ROOT | c.RESOLVE_NO_MAGICLINKS
"""As if chrooted; links of /proc that leave that are refused."""
EXACTLY: Final = c.RESOLVE_BENEATH | c.RESOLVE_NO_SYMLINKS | c.RESOLVE_NO_MAGICLINKS
"""This very path: no link of any kind in it."""


@contextmanager
def closing(kernel: Kernel, fd: int) -> Iterator[int]:
    """Close `fd` at the end of the block."""
    try:
        yield fd
    finally:
        kernel.close(fd)


def filesystem(kernel: Kernel, fstype: str, options: Options, attributes: int) -> int:
    """Make a file system and return the root of its mount, which is attached nowhere yet.

    Raises:
        OSError: with the file system's own words, which are read from its context; the errno says little.
    """
    with closing(kernel, kernel.fsopen(fstype)) as context:
        try:
            for key, value in options:
                kernel.fsconfig(context, c.FSCONFIG_SET_FLAG if value is None else c.FSCONFIG_SET_STRING, key, value)
            kernel.fsconfig(context, c.FSCONFIG_CMD_CREATE)
            return kernel.fsmount(context, attributes)
        except OSError as error:
            raise OSError(error.errno, f"{error.strerror}{_words(kernel, context)}", fstype) from error


def _words(kernel: Kernel, context: int) -> str:
    """What the file system said: messages of its context, one a read, until there is none (ENODATA)."""
    said: list[str] = []
    while len(said) < 8:
        try:
            said.append(kernel.read(context, 512).decode("utf-8", "replace").strip())
        except OSError:
            break
    return f" ({'; '.join(said)})" if said else ""


def attach(kernel: Kernel, mount_fd: int, root_fd: int, path: str, *, resolve: int = EXACTLY) -> None:
    """Attach a mount at `path` below `root_fd`.

    Raises:
        OSError: no such place; a link where `resolve` allows none (ELOOP); a file where a folder is needed.
    """
    with closing(kernel, kernel.openat2(root_fd, path.strip("/"), os.O_PATH, resolve)) as place:
        kernel.move_mount(mount_fd, place)


def copy_tree(kernel: Kernel, dir_fd: int, path: str, attributes: int, *, recursive: bool = False) -> int:
    """A detached copy of the mount at `path` below `dir_fd` (empty: of `dir_fd` itself), attributes added.

    It is private, so nothing that happens to one of the two happens to the other.
    """
    below = c.AT_RECURSIVE if recursive else 0
    fd = kernel.open_tree(dir_fd, path, c.OPEN_TREE_CLONE | c.AT_SYMLINK_NOFOLLOW | below)
    try:
        kernel.mount_setattr(fd, "", flags=below, attr_set=attributes, propagation=c.MS_PRIVATE)
    except OSError:
        kernel.close(fd)
        raise
    return fd


def find(kernel: Kernel, dir_fd: int, path: str, *, resolve: int = EXACTLY) -> int | None:
    """An O_PATH descriptor of `path` below `dir_fd`, or None if there is nothing."""
    try:
        return kernel.openat2(dir_fd, path.strip("/"), os.O_PATH | os.O_NOFOLLOW, resolve)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise


def folder(kernel: Kernel, path: str) -> int:
    """An O_PATH descriptor of a folder of the host, which is no link."""
    return kernel.open_path(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)


def find_or_make(kernel: Kernel, root: int, path: str, *, create: bool, is_folder: bool = True) -> int:
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
    with closing(kernel, find_or_make(kernel, root, parent or "/", create=True)) as above:
        try:
            if is_folder:
                kernel.mkdirat(above, name, 0o755)
            else:
                kernel.write_file(above, name, b"", 0o644)
        except FileExistsError as error:
            raise OSError(errno.ELOOP, "a link in it leads to something that is missing", path) from error
    return kernel.openat2(root, path, os.O_PATH | os.O_NOFOLLOW, WITHIN)
