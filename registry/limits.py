"""The bodies that are being received: how many of one account at a time, and which of them have stopped coming."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
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

    def __init__(self, limit: int) -> None:
        """Allow `limit` blobs at a time to each account."""
        self._limit = limit
        self._lock = threading.Lock()
        self._accounts: Counter[str] = Counter()
        self._watched: set[Progress] = set()

    @contextmanager
    def one(self, account: str) -> Iterator[None]:
        """While the block runs, a blob of this account is being received.

        Raises:
            TooManyRequestsError: the account has as many already as it may.
        """
        with self._lock:
            if self._accounts[account] >= self._limit:
                raise TooManyRequestsError(f"account {account}: {self._limit} blobs are being sent already")
            self._accounts[account] += 1
        try:
            yield
        finally:
            with self._lock:
                self._accounts[account] -= 1
                if not self._accounts[account]:
                    del self._accounts[account]

    @contextmanager
    def watched(self, address: str) -> Iterator[Progress]:
        """While the block runs, a body from `address` is being read, and must make progress."""
        mine = Progress(address=address)
        with self._lock:
            self._watched.add(mine)
        try:
            yield mine
        finally:
            with self._lock:
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
