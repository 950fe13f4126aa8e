"""fs-verity: a file that the file system lets nobody change, and whose every page it checks as it is read.

Documentation/filesystems/fsverity.rst; the numbers are those of <linux/fsverity.h>.
"""

from __future__ import annotations

import fcntl
import struct
from typing import Final

from runtime.linux import constants as c

BLOCK_SIZE: Final = 4096
"""Bytes that one hash is of: what every kernel takes, whatever its pages."""
MAX_DIGEST: Final = 64
"""Bytes of the longest digest, that of SHA-512."""

_ENABLE_ARG: Final = struct.Struct("=IIIIQIIQ88x")
"""struct fsverity_enable_arg: version, hash algorithm, block size, salt (size, pointer), signature (size, pointer)."""
_DIGEST: Final = struct.Struct("=HH")
"""struct fsverity_digest: algorithm, size; the digest follows."""


def enable(fd: int) -> bool:
    """Have the file system seal the file, open for reading: False where it cannot, or somebody has it open for writing.

    The file is read once and its tree of hashes written; from then on writing fails with EPERM, and so does reading
    what does not fit that tree, with EIO. It cannot be undone but by removing the file.
    """
    wanted = _ENABLE_ARG.pack(1, c.FS_VERITY_HASH_ALG_SHA256, BLOCK_SIZE, 0, 0, 0, 0, 0)
    try:
        fcntl.ioctl(fd, c.FS_IOC_ENABLE_VERITY, wanted)
    except FileExistsError:
        return True
    except OSError:
        return False  # what it says differs by file system and kernel; the caller has another way for all of them
    return True


def measure(fd: int) -> str:
    """`algorithm:hex` of the tree that the file system checks the file against; "" where there is none."""
    answer = bytearray(_DIGEST.pack(0, MAX_DIGEST) + bytes(MAX_DIGEST))
    try:
        fcntl.ioctl(fd, c.FS_IOC_MEASURE_VERITY, answer)
    except OSError:
        return ""
    algorithm, size = _DIGEST.unpack_from(answer)
    return f"{algorithm}:{answer[_DIGEST.size : _DIGEST.size + size].hex()}"
