"""Who may start, and who may only look: by the uid and groups that the kernel says a caller had when it connected.

Root may do both. Members of one group may start as well, members of another one only look; by default there is neither.
Whoever may start can have whatever the start policies of cleared images allow, as root would.
"""

from __future__ import annotations

import array
import errno
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

_UCRED: Final = struct.Struct("=3i")
"""bits/socket.h, struct ucred: pid, uid, gid."""
_SO_PEERGROUPS: Final = 59
"""asm-generic/socket.h"""
_MOST: Final = 1024
"""Bytes of an option that Python reads: 256 groups. Who is in more has its primary one alone."""


class Role(IntEnum):
    """What a caller may do; each includes what is below it."""

    NONE = 0
    LOOK = 1
    START = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """The process at the other end, as it was when it connected."""

    pid: int
    uid: int
    gids: frozenset[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Roles:
    """The groups whose members may do something."""

    start_gid: int | None = None
    look_gid: int | None = None

    def of(self, peer: Peer) -> Role:
        """What this peer may do."""
        if peer.uid == 0 or self.start_gid in peer.gids:
            return Role.START
        return Role.LOOK if self.look_gid in peer.gids else Role.NONE


def peer_of(connection: socket.socket) -> Peer:
    """Who is at the other end (unix(7): SO_PEERCRED, SO_PEERGROUPS).

    Raises:
        OSError: the kernel does not say.
    """
    pid, uid, gid = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    gids = array.array("I")
    try:
        gids.frombytes(connection.getsockopt(socket.SOL_SOCKET, _SO_PEERGROUPS, _MOST))
    except OSError as error:
        if error.errno != errno.ERANGE:
            raise
    return Peer(pid=pid, uid=uid, gids=frozenset((gid, *gids)))
