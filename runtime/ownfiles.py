"""Files that only this host writes: replaced whole, and believed only while nobody else could have written them.

"Owned" means: a regular file of our own uid (root's, on a real host) that neither group nor others may write.
It is checked on the descriptor that is then read or mounted, never on a name.
"""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from ocispec.localfile import read_all
from runtime.errors import StoreError


def open_owned(path: Path, *, what: str) -> int:
    """A descriptor of the owned file `path`, for reading; `what` names it in errors.

    Raises:
        StoreError: there is none, or it is not owned.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        raise StoreError(f"{what}: {path}: {error.strerror}") from error
    try:
        check_owned(fd, path, what=what)
    except StoreError:
        os.close(fd)
        raise
    return fd


def check_owned(fd: int, path: Path, *, what: str) -> None:
    """Check that the open file is owned; `path` is for the error.

    Raises:
        StoreError: it is not.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode):
        raise StoreError(f"{what}: {path} is not a regular file")
    if found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise StoreError(
            f"{what}: {path}: got mode {stat.S_IMODE(found.st_mode):04o} of uid {found.st_uid}, "
            f"expected uid {os.geteuid()} and nobody else who may write"
        )


def read_owned(path: Path, *, limit: int, what: str) -> bytes:
    """The whole of the owned file `path`, of at most `limit` bytes.

    Raises:
        StoreError: as `open_owned`, or it cannot be read.
        LimitError: it is larger.
    """
    with os.fdopen(open_owned(path, what=what), "rb", buffering=0) as file:
        try:
            return read_all(file, limit=limit, what=what)
        except OSError as error:
            raise StoreError(f"{what}: {path}: {error.strerror}") from error


def replace_file(path: Path, content: bytes, *, mode: int = 0o600, durable: bool = True) -> None:
    """Make `path` hold `content`, whole and on disk, or leave it as it was.

    What is not `durable` may be lost or cut short when the power goes.

    Raises:
        StoreError: e.g. the disk is full.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        unfinished.replace(path)
        if durable:
            sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error


def publish(fd: int, unfinished: Path, path: Path, *, mode: int = 0o444) -> None:
    """Give the finished file `unfinished`, open as `fd`, its place and final mode, on disk before it is seen.

    Raises:
        StoreError: e.g. the disk is full; `path` is as it was.
    """
    try:
        os.fchmod(fd, mode)
        os.fsync(fd)
        unfinished.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise StoreError(f"{path}: cannot be written: {error.strerror}") from error


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def stamp(path: Path) -> tuple[int, int, int]:
    """Inode, time of change and size: changes whenever `replace_file` wrote the file; zeros where there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)
