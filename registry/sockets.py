"""Unix sockets of the registry's own processes: bound in place of stale ones, reached by any path length, peers known.

A socket's address holds 108 bytes (unix(7)), and data folders can lie deeper: so the folder is opened, and the
address goes through /proc/self/fd.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")


def peer_uid(connection: socket.socket) -> int:
    """The uid of the process at the other end of a Unix socket (SO_PEERCRED, unix(7))."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(raw)[1])


def bind(
    path: Path, kind: socket.SocketKind, *, mode: int = 0o660, owner: tuple[int, int] | None = None
) -> socket.socket:
    """A socket bound to `path`, in place of one that an earlier process left; listening, if its kind listens.

    `owner` is the uid and gid that it gets, where the caller may give it away.

    Raises:
        OSError: the path cannot be bound.
    """
    path.unlink(missing_ok=True)
    bound = socket.socket(socket.AF_UNIX, kind)
    try:
        with _short(path) as address:
            bound.bind(address)
        if owner is not None:
            os.chown(path, *owner)
        path.chmod(mode)
        if kind is not socket.SOCK_DGRAM:
            bound.listen(64)
    except OSError:
        bound.close()
        raise
    return bound


def connect(path: Path, kind: socket.SocketKind, *, timeout: float | None = None) -> socket.socket:
    """A socket connected to `path`.

    Raises:
        OSError: nobody listens there, or not for us.
    """
    made = socket.socket(socket.AF_UNIX, kind)
    try:
        made.settimeout(timeout)
        with _short(path) as address:
            made.connect(address)
    except OSError:
        made.close()
        raise
    return made


@contextmanager
def _short(path: Path) -> Iterator[str]:
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)
