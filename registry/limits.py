"""What takes as long as a client likes: bodies that are received, blobs that are sent; how many there may be at a time.

Each of them holds a thread, which waits. A web process has threads for so many of them, and others for all else
(web.py): so clients that send or read slowly, or not at all, keep nobody waiting but those who want what they hold, and
those are told so at once. One account alone cannot hold all of it.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from registry.errors import TooManyRequestsError


@dataclass(slots=True, eq=False)
class Progress:
    """One body on its way: from where, and how far it was when it was last looked at."""

    address: str
    received: int = 0
    marked: float = field(default_factory=time.monotonic)
    at_mark: int = 0


class Bodies:
    """The bodies that this process is receiving; for many threads."""

    def __init__(self, limit: int, most: int) -> None:
        """Allow `limit` blobs at a time to each account, and `most` bodies in all."""
        self._limit, self._most = limit, most
        self._lock = threading.Lock()
        self._accounts: Counter[str] = Counter()
        self._watched: set[Progress] = set()
        self._drained = 0

    @contextmanager
    def one(self, account: str, kind: str = "blobs") -> Iterator[None]:
        """While the block runs, a body of this kind is being received of this account.

        Raises:
            TooManyRequestsError: the account has as many already as it may.
        """
        key = f"{kind} {account}"
        with self._lock:
            if self._accounts[key] >= self._limit:
                raise TooManyRequestsError(f"account {account}: {self._limit} {kind} are being sent already")
            self._accounts[key] += 1
        try:
            yield
        finally:
            with self._lock:
                self._accounts[key] -= 1
                if not self._accounts[key]:
                    del self._accounts[key]

    @contextmanager
    def watched(self, address: str) -> Iterator[Progress]:
        """While the block runs, a body from `address` is being read, and must make progress.

        Raises:
            TooManyRequestsError: there are as many as there are threads for.
        """
        mine = Progress(address=address)
        with self._lock:
            if len(self._watched) >= self._most:
                raise TooManyRequestsError(f"{self._most} bodies are being received already")
            self._watched.add(mine)
        try:
            yield mine
        finally:
            with self._lock:
                self._watched.discard(mine)

    @contextmanager
    def drained(self, address: str) -> Iterator[bool]:
        """While the block runs, the rest of a refused body is read, for the client's convenience; False: not now.

        Only a few are at a time: it would make of every refusal something to wait for.
        """
        with self._lock:
            room = self._drained < max(self._most // 8, 1) and len(self._watched) < self._most
            self._drained += room
        mine = Progress(address=address)
        try:
            if room:
                with self._lock:
                    self._watched.add(mine)
            yield room
        finally:
            with self._lock:
                self._drained -= room
                self._watched.discard(mine)

    def count(self) -> int:
        """How many bodies are being read."""
        return len(self._watched)

    def slow(self, seconds: float, rate: int, now: float) -> Counter[str]:
        """How many bodies from which address came, over the last `seconds`, at less than `rate` bytes a second."""
        found: Counter[str] = Counter()
        with self._lock:
            for body in self._watched:
                if now - body.marked < seconds:
                    continue
                if body.received - body.at_mark < rate * (now - body.marked):
                    found[body.address] += 1
                else:
                    body.marked, body.at_mark = now, body.received
        return found


class Downloads:
    """The blobs that this process is sending; for many threads."""

    def __init__(self, most: int) -> None:
        """Allow `most` at a time, half of them to one account."""
        self._most = most
        self._lock = threading.Lock()
        self._accounts: Counter[str] = Counter()
        self._count = 0

    def begin(self, account: str) -> Callable[[], None]:
        """A blob is about to be sent to this account; what is returned says that it is over, once or more often.

        Raises:
            TooManyRequestsError: there are as many as there may be, or the account has half of them.
        """
        with self._lock:
            if self._count >= self._most:
                raise TooManyRequestsError(f"{self._most} blobs are being sent already")
            if self._accounts[account] >= max(self._most // 2, 1):
                raise TooManyRequestsError(f"account {account}: {self._most // 2} blobs are being sent to it already")
            self._accounts[account] += 1
            self._count += 1
        over = False

        def end() -> None:
            nonlocal over
            with self._lock:
                if over:
                    return
                over = True
                self._count -= 1
                self._accounts[account] -= 1
                if not self._accounts[account]:
                    del self._accounts[account]

        return end

    def count(self) -> int:
        """How many are being sent."""
        return self._count
