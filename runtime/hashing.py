"""The digests of open files: several at once, and past the page cache where that is asked for."""

from __future__ import annotations

import hashlib
import mmap
import os
import threading
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from ocispec.digest import Digest

T = TypeVar("T")
R = TypeVar("R")

_DIRECT_BUFFER: Final = 4 * 1024 * 1024
"""Bytes asked of the disk at once."""


def digest_of(fd: int, algorithm: str) -> Digest:
    """The digest of the whole file; its position is its beginning afterwards.

    Raises:
        OSError: it cannot be read.
    """
    os.lseek(fd, 0, os.SEEK_SET)
    with os.fdopen(os.dup(fd), "rb", buffering=0) as file:
        digest = Digest(algorithm, hashlib.file_digest(file, algorithm).hexdigest())
    os.lseek(fd, 0, os.SEEK_SET)
    return digest


def digest_on_disk(fd: int, algorithm: str) -> Digest:
    """The digest of what the disk holds, whatever the page cache has of it: by O_DIRECT, where that can be had.

    Only so is seen what was changed beneath the file system, and what is hashed pushes nothing else out of memory.

    Raises:
        OSError: it cannot be read.
    """
    same = f"/proc/self/fd/{fd}"
    try:
        fd = os.open(same, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:
        fd = os.open(same, os.O_RDONLY | os.O_CLOEXEC)
    computed = hashlib.new(algorithm)
    # An anonymous map begins on a page, as O_DIRECT wants its buffers to.
    with os.fdopen(fd, "rb", buffering=0) as file, mmap.mmap(-1, _DIRECT_BUFFER) as buffer, memoryview(buffer) as view:
        while count := file.readinto(view):
            with view[:count] as read:
                computed.update(read)
    return Digest(algorithm, computed.hexdigest())


def at_once(work: Callable[[T], R], items: Sequence[T]) -> list[R]:
    """`work` for each item, for as many at once as there are processors: hashing leaves the interpreter's lock.

    Raises:
        OSError: what the first of those that failed raised.
    """
    found: dict[int, R] = {}
    errors: list[OSError] = []
    pending = list(enumerate(items))[::-1]

    def worker() -> None:
        try:
            while pending:
                position, item = pending.pop()
                found[position] = work(item)
        except IndexError:
            return  # another thread took the last one
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=worker, name="hash") for _ in range(min(len(items), processors()) - 1)]
    for thread in threads:
        thread.start()
    worker()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return [found[position] for position in range(len(items))]


def processors() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0))
