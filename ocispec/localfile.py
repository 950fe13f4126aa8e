"""Files that a person named on this machine, opened so that nothing but a regular file is ever read.

A folder that came from elsewhere may hold a FIFO (which would block for ever), a device or a socket where a
blob should be. Symlinks are followed: what they lead to is proven by its digest like anything else.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ocispec.errors import LimitError, MissingError, SourceError


def open_regular(path: Path, *, what: str) -> BinaryIO:
    """Open the regular file `path` for reading; `what` names it in errors.

    Raises:
        MissingError: there is no such file.
        SourceError: it cannot be opened, or is no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise MissingError(f"{what}: no such file: {path}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"{what}: cannot open {path}: {reason}") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SourceError(f"{what}: {path} is not a regular file")
    return os.fdopen(descriptor, "rb", buffering=0)


def read_small(path: Path, *, limit: int, what: str) -> bytes:
    """The whole of the regular file `path`, of at most `limit` bytes.

    Raises:
        LimitError: it is larger.
        MissingError, SourceError: as `open_regular`.
    """
    with open_regular(path, what=what) as file:
        return read_all(file, limit=limit, what=what)


def read_all(file: BinaryIO, *, limit: int, what: str) -> bytes:
    """All that is left of `file`, of at most `limit` bytes.

    Raises:
        LimitError: there is more.
    """
    chunks: list[bytes] = []
    left = limit + 1
    while left and (chunk := file.read(left)):
        chunks.append(chunk)
        left -= len(chunk)
    if not left:
        raise LimitError(f"{what}: more than {limit} bytes")
    return b"".join(chunks)
