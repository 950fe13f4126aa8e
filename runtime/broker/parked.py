"""A first process that has executed a plan's preparation and waits, in its namespaces and cgroups, for the rest.

What it waits for is a message on a socket that nobody but its slot has: the operations that are left, pickled, and
their descriptors. It tells of what fails on the pipe that every first process has.
"""

from __future__ import annotations

import fcntl
import os
import pickle
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from runtime.broker import wire
from runtime.linux.cgroups import Group
from runtime.linux.owned import Owned
from runtime.ops import Operation, Stage
from runtime.spawn import LOWEST, Begun, above, begin

_PARKED = b"P"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A first process that waits, or is about to."""

    begun: Begun
    orders: socket.socket

    def ready(self) -> bool:
        """Wait until it has executed the preparation; False if it failed, and its report says how."""
        return wire.receive(self.orders)[0] == _PARKED

    def carry_out(self, operations: bytes, fds: Mapping[str, int]) -> None:
        """Have it execute pickled operations, with these descriptors for its stage besides its own."""
        wire.send(self.orders, "\n".join(fds).encode() + b"\0" + operations, list(fds.values()))


def park(
    preparation: Sequence[Operation], namespaces: int, group: Group, owned: Owned, rehearsal: bytes = b""
) -> Parked:
    """Clone a first process that executes the preparation, and then what it is told.

    While it waits for that, it goes through the pickled operations in `rehearsal`, without doing anything.

    Raises:
        HostError: no process could be made, or attached to its cgroups.
    """
    ours, theirs = wire.pair()
    fd = above(owned, theirs.detach())
    begun = begin(_Waiting(preparation, fd, rehearsal), {"orders": fd}, namespaces, group, owned)
    owned.close(fd)
    try:
        begun.attach(group)
        begun.word(b"G")
    except BaseException:
        begun.end()
        raise
    return Parked(begun=begun, orders=ours)


class _Waiting:
    """The operations of a parked process: the preparation, and those that come."""

    def __init__(self, preparation: Sequence[Operation], orders: int, rehearsal: bytes) -> None:
        self._preparation, self._orders, self._rehearsal = preparation, orders, rehearsal

    def __iter__(self) -> Iterator[Operation]:
        yield from self._preparation
        order = _AwaitOrder(self._orders, self._rehearsal)
        yield order
        yield from order.operations


@dataclass(slots=True)
class _AwaitOrder:
    """Say that the preparation is done, and wait for the rest."""

    orders: int
    rehearsal: bytes
    operations: tuple[Operation, ...] = ()

    def describe(self) -> str:
        return "wait for an image"

    def execute(self, kernel: object, stage: Stage) -> None:
        rehearse(self.rehearsal)
        with socket.socket(fileno=os.dup(self.orders)) as connection:
            wire.send(connection, _PARKED)
            message, fds = wire.receive(connection)
        names, _, operations = message.partition(b"\0")
        if not message:
            raise OSError(125, os.strerror(125))  # ECANCELED: the slot ended
        for name, fd in zip(names.decode().split("\n"), fds, strict=True):
            # Above those that the child moves others to.
            stage[name] = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LOWEST)
            os.close(fd)
        self.operations = pickle.loads(operations)  # noqa: S301  # from the slot, which is our parent


class _Nothing:
    """A kernel that does nothing, and answers so that operations go on."""

    def __getattr__(self, name: str) -> Callable[..., object]:
        return lambda *_, **__: self._answer(name)

    def _answer(self, name: str) -> object:
        match name:
            case "read":
                return b"W"
            case "getcwd" | "path_of":
                return "/"
            case "fstat":
                return _NULL
        return 1


_NULL: Final = Path("/dev/null").stat()


def rehearse(operations: bytes) -> None:
    """Go through pickled operations once: the pages they write to are this process's own then, and no copies later."""
    if operations:
        stage = Stage(dict.fromkeys(("image", "program", "go", "errors", "stdout", "stderr", "proc", "sys", "dev"), 0))
        for operation in pickle.loads(operations):  # noqa: S301  # from the broker
            operation.describe()
            operation.execute(_Nothing(), stage)
