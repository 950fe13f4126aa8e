"""Messages between the broker, its slots and its callers: whole ones, with descriptors, over a Unix socket."""

from __future__ import annotations

import array
import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Final

LIMIT: Final = 4 * 1024 * 1024
"""Bytes of a message: more than a command line and an environment may have (ARG_MAX)."""
MAX_FDS: Final = 64
_FD_SIZE: Final = array.array("i").itemsize


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection that keeps messages whole."""
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in ends:
        widen(end)
    return ends


def widen(connection: socket.socket) -> None:
    """Let messages of LIMIT bytes be sent; without root those of net.core.wmem_max."""
    for option in (socket.SO_SNDBUF, _SO_SNDBUFFORCE):
        with contextlib.suppress(PermissionError):
            connection.setsockopt(socket.SOL_SOCKET, option, LIMIT)


def send(connection: socket.socket, message: bytes, fds: Sequence[int] = ()) -> None:
    """Send one message.

    Raises:
        OSError: the other end is gone (EPIPE), or its buffer full where the socket does not wait.
    """
    control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    connection.sendmsg([message], control, socket.MSG_NOSIGNAL)


def receive(connection: socket.socket, limit: int = LIMIT) -> tuple[bytes, list[int]]:
    """One message and its descriptors, which are the caller's then; no bytes if the other end is gone.

    Raises:
        OSError: nothing is there on a socket that does not wait (EAGAIN), or the message was longer (EMSGSIZE).
    """
    fds = array.array("i")
    message, control, flags, _ = connection.recvmsg(
        limit, socket.CMSG_SPACE(MAX_FDS * _FD_SIZE), socket.MSG_CMSG_CLOEXEC
    )
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(data[: len(data) - len(data) % _FD_SIZE])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        raise OSError(90, os.strerror(90))  # EMSGSIZE
    return message, list(fds)


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that came with a message."""
    for fd in fds:
        os.close(fd)


_SO_SNDBUFFORCE: Final = 32
"""asm-generic/socket.h"""
