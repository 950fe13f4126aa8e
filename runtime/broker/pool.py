"""Slots that wait for an order, and the nursery that makes them.

    pool.take(own_network=True)        # a slot that is ready, or None: then `ready` is called when there is one

As many as `size` wait with a network of their own; one with the host's is made when it is asked for. A slot whose
container has ended waits again, if there are too few; more are made when half of them are taken, or after a while. A
slot that ends before it was taken is replaced; a nursery that ends is started anew.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtime.broker import wire
from runtime.broker.loop import Loop
from runtime.broker.slot import AGAIN, DONE, FAILED, READY, Order, SlotFacts

MAX_FAILURES: Final = 10
"""Slots that may end one after the other before they are ready, until it is given up to make more for a while."""
RETRY: Final = 5.0
"""Seconds until it is tried again."""
_ROOT: Final = Path(__file__).parents[2]
# As for confined readers: nothing of the environment, and our own packages from where this process has them.
_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); from runtime.broker.nursery import main; main(int(sys.argv[2]))"
)


@dataclass(eq=False, slots=True)
class Slot:
    """A slot, as the broker sees it; `name` is that of its cgroups, once it is ready."""

    control: socket.socket
    own_network: bool
    name: str = ""
    ended: Callable[[Slot], None] | None = None
    said: Callable[[Slot, bytes], None] | None = None


@dataclass(slots=True)
class Pool:
    """See the module. `ready` is called whenever a slot has become ready."""

    facts: SlotFacts
    size: int
    loop: Loop
    ready: Callable[[], None]
    killed: Callable[[], None]
    """Called when a slot has ended that was not told to: it was killed, or has failed."""
    log: Callable[[str], None]
    failed: str = ""
    """Why the last slot that ended too early did."""
    _process: subprocess.Popen[bytes] | None = None
    _nursery: socket.socket | None = None
    _waiting: dict[bool, deque[Slot]] = field(default_factory=lambda: {True: deque(), False: deque()})
    _coming: dict[bool, int] = field(default_factory=lambda: {True: 0, False: 0})
    _parking: set[Slot] = field(default_factory=set)
    _failures: int = 0
    _retry_at: float = 0.0

    def start(self) -> None:
        """Start the nursery, and have it fill the pool."""
        ours, theirs = wire.pair()
        with theirs:
            arguments = [sys.executable, "-I", "-c", _PROGRAM, str(_ROOT), str(theirs.fileno())]
            self._process = subprocess.Popen(arguments, pass_fds=[theirs.fileno()], env={}, cwd="/")
        wire.send(ours, pickle.dumps(self.facts))
        self._nursery = ours
        # What the former one was asked for does not come any more.
        self._coming = {kind: sum(slot.own_network is kind for slot in self._parking) for kind in (True, False)}
        self.loop.watch(ours.fileno(), self._from_nursery)
        self.fill()

    def take(self, *, own_network: bool) -> Slot | None:
        """A slot that is ready, which is the caller's then."""
        waiting = self._waiting[own_network]
        slot = waiting.popleft() if waiting else None
        # Not at once: making one takes as much of the processors as starting a container does, which is now.
        if self._there(own_network=True) <= self.size // 2:
            self.fill()
        return slot

    def give_back(self, slot: Slot) -> None:
        """A slot that was taken and not used: it waits again."""
        slot.said = slot.ended = None
        self._waiting[slot.own_network].appendleft(slot)

    def send(self, slot: Slot, order: Order, fds: Sequence[int]) -> bool:
        """Give a slot that was taken its order; False if it has ended meanwhile, and another one is to have it.

        Raises:
            OSError: the order is too long for a message.
        """
        try:
            wire.send(slot.control, pickle.dumps(order), fds)
        except (BrokenPipeError, ConnectionResetError):
            slot.said = slot.ended = None  # that it has ended is told by its connection
            return False
        return True

    def fill(self, *, host_network: int = 0) -> None:
        """Have slots made until enough are there or on their way; `host_network` is how many are waited for."""
        if self._failures >= MAX_FAILURES and time.monotonic() < self._retry_at:
            return
        for own_network, wanted in ((True, self.size), (False, host_network)):
            for _ in range(wanted - self._there(own_network=own_network)):
                self._ask(own_network=own_network)

    def look(self) -> None:
        """Replace a nursery that has ended, and reap it."""
        if self._nursery is None:
            with contextlib.suppress(OSError):
                self.start()
        self.fill()

    def close(self) -> None:
        """Let go of the nursery and of every slot that waits: they end."""
        for slots in self._waiting.values():
            for slot in slots:
                slot.control.close()
        for slot in self._parking:
            slot.control.close()
        if self._nursery is not None:
            self._nursery.close()
        if self._process is not None:
            self._process.wait()

    def _there(self, *, own_network: bool) -> int:
        """Slots that wait, or are about to."""
        return len(self._waiting[own_network]) + self._coming[own_network]

    def _ask(self, *, own_network: bool) -> None:
        if self._nursery is None:
            return
        try:
            wire.send(self._nursery, b"N" if own_network else b"H")
        except OSError:
            self._lost()
        else:
            self._coming[own_network] += 1

    def _from_nursery(self) -> None:
        if self._nursery is None:
            return
        try:
            kind, fds = wire.receive(self._nursery)
        except OSError:
            kind, fds = b"", []
        if not kind:
            self._lost()
            return
        slot = Slot(socket.socket(fileno=fds[0]), own_network=kind == b"N")
        self._parking.add(slot)
        self.loop.watch(fds[0], lambda: self._from_slot(slot))

    def _lost(self) -> None:
        if self._nursery is not None:
            self.loop.forget(self._nursery.fileno())
            self._nursery.close()
            self._nursery = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def _from_slot(self, slot: Slot) -> None:
        try:
            message = wire.receive(slot.control)[0]
        except OSError:
            message = b""
        if not message:
            self._ended(slot)
        elif message[:1] == READY and slot in self._parking:
            slot.name = message[1:].decode()
            self._parking.discard(slot)
            self._coming[slot.own_network] -= 1
            self._waiting[slot.own_network].append(slot)
            self._failures, self.failed = 0, ""
            self.ready()
        elif message[:1] == DONE:
            if slot.said is not None:
                slot.said(slot, message)
            slot.said = slot.ended = None
            self._again(slot)
        elif message[:1] == FAILED:
            self.failed = message[1:].decode("utf-8", "replace")
            self.log(f"slot {slot.name or 'that was to be'}: {self.failed}")
        elif slot.said is not None:
            slot.said(slot, message)

    def _again(self, slot: Slot) -> None:
        """Have a slot whose container has ended wait again, unless there are enough."""
        if self._there(own_network=slot.own_network) < (self.size if slot.own_network else 0):
            with contextlib.suppress(OSError):
                wire.send(slot.control, AGAIN)
                self._parking.add(slot)
                self._coming[slot.own_network] += 1
                return
        self.loop.forget(slot.control.fileno())
        slot.control.close()

    def _ended(self, slot: Slot) -> None:
        self.loop.forget(slot.control.fileno())
        slot.control.close()
        if slot in self._parking:
            self._parking.discard(slot)
            self._coming[slot.own_network] -= 1
            self._failures += 1
            self._retry_at = time.monotonic() + RETRY
            self.failed = self.failed or "it was killed"
            self.fill()
        elif slot in self._waiting[slot.own_network]:
            self._waiting[slot.own_network].remove(slot)
            self.fill()
        if slot.ended is not None:
            slot.ended(slot)
        self.killed()
