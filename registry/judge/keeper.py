"""The keeper: the one process that forks confined children, so that the judge needs no privilege for it.

Started as root, it gives each child namespaces and a user of its own; it reads nothing of an image itself,
and holds no secret that a child could inherit. The judge connects to its Unix socket, once a child, and
passes the name of a work, its arguments, the pipe for the answer, and the descriptors of its sources. When
the child has ended, the keeper sends its wait status; when the judge hangs up, the keeper ends the child.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.fields import JsonObject
from ocispec.strictjson import parse_object
from policy import canonical
from registry.judge.child import Child
from registry.judge.confine import Cell, Limits, begin
from registry.sockets import connect, peer_uid

Works = Mapping[str, Callable[[JsonObject, Sequence[int]], tuple[bytes, ...]]]
"""What children can be asked for: each takes its arguments and the descriptors of its sources."""

MAX_REQUEST: Final = 64 * 1024
POLL_SECONDS: Final = 0.25
CONNECT_SECONDS: Final = 10.0
MAX_SOURCES: Final = 8
MAX_CHILDREN: Final = 64


@dataclass(slots=True, kw_only=True)
class _Forked:
    """A child forked here."""

    pid: int

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        return os.waitpid(self.pid, 0)[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Forks children of the calling process, which is single-threaded."""

    cell: Cell
    works: Works

    def spawn(self, work: str, arguments: Mapping[str, str | int], *, sources: Sequence[int], limits: Limits) -> Child:
        """As `Spawner.spawn`."""
        function, asked = self.works[work], dict(arguments)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            pid = begin(
                lambda given: function(asked, given), cell=self.cell, limits=limits, sources=sources, answer=writer
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return Child(process=_Forked(pid=pid), answer=reader, limits=limits)


@dataclass(slots=True, kw_only=True)
class _Kept:
    """A child forked by the keeper, known by its connection."""

    connection: socket.socket

    def kill(self) -> None:
        self.connection.close()

    def wait(self) -> int:
        if self.connection.fileno() < 0:
            return signal.SIGKILL
        with self.connection:
            self.connection.settimeout(10)
            try:
                answer = self.connection.recv(4)
            except OSError:
                answer = b""
        return int(struct.unpack("i", answer)[0]) if len(answer) == 4 else int(signal.SIGKILL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Asks the keeper at `path` for children."""

    path: Path

    def spawn(self, work: str, arguments: Mapping[str, str | int], *, sources: Sequence[int], limits: Limits) -> Child:
        """As `Spawner.spawn`."""
        request = canonical.encode(
            {
                "work": work,
                "arguments": dict(arguments),
                "limits": {
                    "milliseconds": int(limits.seconds * 1000),
                    "cpu": limits.cpu_seconds,
                    "memory": limits.memory,
                    "answer": limits.answer,
                },
            }
        )
        connection = connect(self.path, socket.SOCK_SEQPACKET, timeout=CONNECT_SECONDS)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        try:
            socket.send_fds(connection, [request], [writer, *sources])
        except OSError:
            connection.close()
            os.close(reader)
            raise
        finally:
            os.close(writer)
        return Child(process=_Kept(connection=connection), answer=reader, limits=limits)


@dataclass(slots=True, kw_only=True)
class Keeper:
    """The server; `allowed` are the uids that may ask. One thread, one loop, at most MAX_CHILDREN children."""

    listener: socket.socket
    cell: Cell
    works: Works
    allowed: Collection[int]
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _children: dict[int, tuple[socket.socket, int]] = field(default_factory=dict)
    """By pid: the connection that asked, and the pidfd."""

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Serve until `should_stop` says so (asked every POLL_SECONDS), then end all children."""
        self._selector.register(self.listener, selectors.EVENT_READ, None)
        while not should_stop():
            for key, _ in self._selector.select(timeout=POLL_SECONDS):
                if key.data is None:
                    self._accept()
                else:
                    self._end(*key.data)
        for pid in tuple(self._children):
            self._end(pid, hung_up=True)
        self._selector.close()

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        connection.settimeout(1.0)  # the request is one packet, sent right after the connection
        descriptors: list[int] = []
        try:
            if peer_uid(connection) not in self.allowed or len(self._children) >= MAX_CHILDREN:
                connection.close()
                return
            request, descriptors, _, _ = socket.recv_fds(connection, MAX_REQUEST, MAX_SOURCES + 1)
            pid = self._begin(request, descriptors)
        except (OSError, SpecError, KeyError):
            # Whoever asks wrongly gets no child; it sees the connection closed and its pipe at the end.
            connection.close()
            return
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        pidfd = os.pidfd_open(pid)
        self._children[pid] = (connection, pidfd)
        self._selector.register(pidfd, selectors.EVENT_READ, (pid, False))
        self._selector.register(connection, selectors.EVENT_READ, (pid, True))

    def _begin(self, request: bytes, descriptors: list[int]) -> int:
        members = parse_object(request, what="request", max_bytes=MAX_REQUEST)
        function = self.works[fields.text(members, "work", what="request")]
        arguments = fields.child(members, "arguments", what="request") or {}
        asked = fields.child(members, "limits", what="request") or {}
        if not descriptors:
            raise SpecError("request: no descriptor for the answer")
        limits = Limits(
            seconds=fields.integer(asked, "milliseconds", what="limits", minimum=1) / 1000,
            cpu_seconds=fields.integer(asked, "cpu", what="limits", minimum=1),
            memory=fields.integer(asked, "memory", what="limits", minimum=1),
            answer=fields.integer(asked, "answer", what="limits", minimum=1),
        )
        answer, *sources = descriptors
        return begin(
            lambda given: function(arguments, given), cell=self.cell, limits=limits, sources=sources, answer=answer
        )

    def _end(self, pid: int, hung_up: bool) -> None:
        if pid not in self._children:
            return  # both of its descriptors were ready in one round
        connection, pidfd = self._children.pop(pid)
        if hung_up:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        self._selector.unregister(pidfd)
        self._selector.unregister(connection)
        os.close(pidfd)
        with connection, contextlib.suppress(OSError):
            connection.send(struct.pack("i", status))
