"""Cuts off clients that stopped sending their request's body, or send it too slowly.

The server hands bodies out by a read that waits for ever, and no option of it ends that. So a thread of each web
process looks, every few seconds, at how many bytes its TCP connections have received and sent (tcp(7), TCP_INFO).
While n bodies from one address make no progress, n connections from there that neither receive enough nor send
anything are shut down, and the reads end. The server does not tell which connection a request came on, so those
that have been silent for longest are taken; with several clients behind one address, one that only waits for its
answer could be cut off in error, and has to ask again.

Readers that do not read are ended by the kernel (TCP_USER_TIMEOUT), which accepted connections inherit.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from registry.limits import Bodies
from registry.settings import HttpSettings

_INFO_SIZE: Final = 160
_BYTES: Final = struct.Struct("=QQ")
_BYTES_AT: Final = 120
"""struct tcp_info of linux/tcp.h: tcpi_bytes_acked and tcpi_bytes_received are the 8-byte fields at 120 and 128."""

TICKS: Final = 5
"""Looks within `http.body_stall` seconds."""


@dataclass(slots=True)
class _Connection:
    """A connection's counters over time: (when, bytes acknowledged, bytes received), oldest first.

    `silent` is since when nothing was sent, `at_silence` what had been received by then: a connection that has
    received nothing since is idle, and not in the middle of a request.
    """

    address: str
    inode: int
    descriptor: int
    seen: deque[tuple[float, int, int]] = field(default_factory=deque)
    silent: float = 0.0
    at_silence: int = 0

    def note(self, now: float, acked: int, received: int) -> None:
        """Take the counters."""
        if not self.seen or self.seen[-1][1] != acked:
            self.silent = now
            self.at_silence = received if self.seen else 0
        self.seen.append((now, acked, received))

    def stands_still(self, seconds: float, rate: int, now: float) -> bool:
        """True if over the last `seconds` it sent nothing and received less than `rate` bytes a second."""
        while len(self.seen) > 1 and self.seen[1][0] <= now - seconds:
            self.seen.popleft()
        (when, acked, received), (_, acked_now, received_now) = self.seen[0], self.seen[-1]
        old_enough = when <= now - seconds
        return old_enough and acked == acked_now and received_now - received < rate * (now - when)

    @property
    def suspicion(self) -> tuple[bool, float, int]:
        """Orders connections, the likeliest to be in the middle of a body first."""
        return self.seen[-1][2] == self.at_silence, self.silent, self.inode


class StalledBodies:
    """Watches one web process."""

    def __init__(self, settings: HttpSettings, bodies: Bodies) -> None:
        """Watch the connections to the port of `settings` while one of `bodies` is slow."""
        self._settings = settings
        self._bodies = bodies
        self._port = int(settings.listen.rpartition(":")[2])
        self._known: dict[int, _Connection] = {}

    def start(self) -> None:
        """Watch until the process ends."""
        threading.Thread(target=self._run, name="stalled-bodies", daemon=True).start()

    def _run(self) -> None:
        while True:
            time.sleep(self._settings.body_stall / TICKS)
            with suppress(OSError):
                self.look(time.monotonic())

    def look(self, now: float) -> None:
        """Take the counters of all connections, and shut down as many as there are bodies that stand still."""
        self._sample(now)
        seconds, rate = self._settings.body_stall, self._settings.body_minimum_rate
        for address, count in self._bodies.slow(seconds, rate, now).items():
            still = [
                connection
                for connection in self._known.values()
                if connection.address == address and connection.stands_still(seconds, rate, now)
            ]
            for connection in sorted(still, key=lambda found: found.suspicion)[:count]:
                _shut_down(connection)

    def _sample(self, now: float) -> None:
        found: dict[int, _Connection] = {}
        for descriptor, inode in _sockets():
            with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as copy:
                if copy.family not in {socket.AF_INET, socket.AF_INET6} or copy.type != socket.SOCK_STREAM:
                    continue
                if copy.getsockname()[1] != self._port:
                    continue
                if copy.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    copy.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, self._settings.body_stall * 1000)
                    continue
                acked, received = _BYTES.unpack_from(
                    copy.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_SIZE), _BYTES_AT
                )
                connection = self._known.get(inode) or _Connection(copy.getpeername()[0], inode, descriptor)
                connection.descriptor = descriptor
                connection.note(now, acked, received)
                found[inode] = connection
        self._known = found


def _sockets() -> Iterator[tuple[int, int]]:
    """This process's sockets: descriptor and inode."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError, ValueError):
            target = str(entry.readlink())
            if target.startswith("socket:["):
                yield int(entry.name), int(target[8:-1])


def _shut_down(connection: _Connection) -> None:
    with suppress(OSError), socket.socket(fileno=os.dup(connection.descriptor)) as copy:
        # The descriptor may have been closed and given to another connection a moment ago.
        if os.fstat(copy.fileno()).st_ino == connection.inode:
            copy.shutdown(socket.SHUT_RDWR)
