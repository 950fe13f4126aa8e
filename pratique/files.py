"""Files that verbs write: whole or not at all, and never over another one by mistake."""

from __future__ import annotations

import os
from pathlib import Path

from pratique.exits import UsageError


def write_new(path: Path, content: bytes, *, replace: bool = False) -> None:
    """Write `content` to `path`, whole or not at all.

    Raises:
        UsageError: something is there already, and `replace` is False.
        OSError: the folder is missing, full or not writable.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            draft.replace(path)
            return
        try:
            # link(2) fails where the name is taken, rename(2) does not.
            os.link(draft, path)
        except FileExistsError:
            raise UsageError(f"{path}: exists already, and is not written over") from None
    except OSError as error:
        # Of the file that was asked for: the draft's name would tell nobody anything.
        raise OSError(error.errno, error.strerror, str(path)) from error
    finally:
        draft.unlink(missing_ok=True)


def read_bounded(path: Path, limit: int) -> bytes:
    """The whole of a regular file of at most `limit` bytes; `-` is standard input.

    Raises:
        LimitError, SourceError: larger, missing, or no regular file.
    """
    import sys

    from ocispec.localfile import read_all, read_small

    if str(path) == "-":
        return read_all(sys.stdin.buffer, limit=limit, what="standard input")
    return read_small(path, limit=limit, what=str(path))
