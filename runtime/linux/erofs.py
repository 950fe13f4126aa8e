"""Mount an image: its root index, with the layers' tars as extra devices, by descriptor.

What was verified through a descriptor is what is mounted: sources are /proc/self/fd/N, so no name is looked
up again. Linux 6.12 and later mount the files directly (CONFIG_EROFS_FS_BACKED_BY_FILE); others, and files
on tmpfs or overlayfs, get loop devices, for all of them or for none: mixed, the kernel says EINVAL.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import Final

from runtime.linux import constants as c
from runtime.linux import syscalls
from runtime.linux.loop import attach_loop
from runtime.linux.mounts import filesystem

ATTRIBUTES: Final = c.MOUNT_ATTR_RDONLY | c.MOUNT_ATTR_NODEV
"""Device nodes of an image are never devices. nosuid is added where the container may gain no privilege."""


def mount_image(index_fd: int, layer_fds: Sequence[int], attributes: int = ATTRIBUTES) -> int:
    """Mount an index over its layers; return the root of the mount, which is attached nowhere yet.

    The number of layers must be that of the index's device slots: with one too few the kernel mounts, and
    reading fails later with EIO. The caller checks sizes and digests; nothing of the image is parsed here.

    Raises:
        OSError: the kernel refuses the index; the message has its words for both ways that were tried.
    """
    try:
        return _mount(index_fd, layer_fds, attributes)
    except OSError as error:
        if error.errno != errno.ENOTBLK:
            raise
        direct = error
    try:
        return _mount_by_loop(index_fd, layer_fds, attributes)
    except OSError as error:
        words = f"{error.strerror}; directly: {direct.strerror}"
        raise OSError(error.errno, words, error.filename) from direct


def _mount(source: int, devices: Sequence[int], attributes: int) -> int:
    options: list[tuple[str, str | None]] = [("ro", None), ("source", f"/proc/self/fd/{source}")]
    options += [("device", f"/proc/self/fd/{device}") for device in devices]
    return filesystem(syscalls, "erofs", tuple(options), attributes)


def _mount_by_loop(index_fd: int, layer_fds: Sequence[int], attributes: int) -> int:
    loops: list[int] = []
    try:
        for fd in (index_fd, *layer_fds):
            loops.append(attach_loop(fd))
        return _mount(loops[0], loops[1:], attributes)
    finally:
        for fd in loops:
            os.close(fd)
