"""Mounts a root index with its layer tars, without a mount point: fsopen(2), fsconfig(2), fsmount(2).

The mount is detached: nobody else sees it, and it goes when its descriptor is closed. EROFS reads files of
a real file system only: on tmpfs and overlayfs, the kernel wants a block device (ENOTBLK).
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ocispec.erofs import mount_options
from tests.support.tools import lacking, need_root

# asm-generic/unistd.h and linux/mount.h.
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_SET_FLAG, _SET_STRING, _CMD_CREATE = 0, 1, 6
_MOUNT_ATTR_RDONLY = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _call(number: int, name: str, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def disk(candidates: Sequence[Path]) -> Path:
    """The first of some folders that lies on a file system EROFS can read from."""
    types = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        types[fields.split()[2]] = rest.split()[0]
    for folder in candidates:
        device = folder.stat().st_dev
        if types.get(f"{os.major(device)}:{os.minor(device)}", "") not in ("tmpfs", "overlay", "ramfs", ""):
            return folder
    return lacking("a folder on a disk")


def need_erofs() -> None:
    """This test mounts EROFS images from files: root, and Linux 6.12 or newer."""
    need_root()
    if "erofs" not in Path("/proc/filesystems").read_text():
        subprocess.run(["modprobe", "erofs"], check=False, capture_output=True)
    if "erofs" not in Path("/proc/filesystems").read_text():
        lacking("EROFS in the kernel")


@contextmanager
def mounted(index: Path, tars: Sequence[Path]) -> Iterator[int]:
    """A descriptor of the mounted root of `index`; both must lie on a file system that EROFS can read from."""
    context = _call(_FSOPEN, "fsopen", b"erofs", 0)
    try:
        options = [("source", str(index)), *mount_options([str(tar) for tar in tars])]
        for key, value in options:
            _call(_FSCONFIG, f"fsconfig {key}", context, _SET_STRING, key.encode(), value.encode(), 0)
        _call(_FSCONFIG, "fsconfig ro", context, _SET_FLAG, b"ro", None, 0)
        _call(_FSCONFIG, "fsconfig create", context, _CMD_CREATE, None, None, 0)
        root = _call(_FSMOUNT, "fsmount", context, 1, _MOUNT_ATTR_RDONLY)
    finally:
        os.close(context)
    try:
        yield root
    finally:
        os.close(root)
