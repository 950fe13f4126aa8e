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
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

from registry.errors import TooManyRequestsError


@dataclass(slots=True, eq=False)
class Progress:
    """One body on its way: from where, and how far it was when it was last looked at."""

    address: str
    received: int = 0
    marked: float = field(default_factory=time.monotonic)
    at_mark: int = 0


class Shares:
    """So many of something at a time, and who has them; for many threads.

    The last quarter is for those who have none yet: however many a few accounts have, another one gets its turn.
    """

    def __init__(self, what: str, most: int, each: int) -> None:
        """Allow `most` at a time, `each` to one account; `what` names them in refusals."""
        self._what, self._most, self._each = what, most, max(each, 1)
        self._lock = threading.Lock()
        self._accounts: Counter[str] = Counter()
        self._count = 0

    def begin(self, account: str) -> Callable[[], None]:
        """One more is this account's; what is returned says that it is over, once or more often.

        Raises:
            TooManyRequestsError: there are as many as there may be, or the account has as many as it may.
        """
        with self._lock:
            mine = self._accounts[account]
            if mine >= self._each:
                raise TooManyRequestsError(f"account {account}: {mine} {self._what} are under way already")
            if self._count >= (self._most if not mine else max(self._most * 3 // 4, 1)):
                raise TooManyRequestsError(f"{self._count} {self._what} are under way already")
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
        """How many there are."""
        return self._count


class Bodies:
    """The bodies that this process is receiving; for many threads."""

    def __init__(self, limit: int, most: int) -> None:
        """Allow `limit` blobs, and as many other bodies, at a time to each account; and `most` bodies in all."""
        self._limits = {kind: Shares(kind, most * 2, limit) for kind in ("blobs", "short bodies")}
        self._all = Shares("bodies", most, most)
        self._drains = Shares("refused bodies", max(most // 8, 1), most)
        self._lock = threading.Lock()
        self._watched: set[Progress] = set()

    @contextmanager
    def one(self, account: str, kind: str = "blobs") -> Iterator[None]:
        """While the block runs, a body of this kind, `blobs` or `short bodies`, is being received of this account.

        Raises:
            TooManyRequestsError: the account has as many already as it may.
        """
        end = self._limits[kind].begin(account)
        try:
            yield
        finally:
            end()

    @contextmanager
    def watched(self, address: str, account: str) -> Iterator[Progress]:
        """While the block runs, a body from `address` is being read, and must make progress.

        Raises:
            TooManyRequestsError: there are as many as there are threads for.
        """
        end = self._all.begin(account)
        mine = Progress(address=address)
        with self._lock:
            self._watched.add(mine)
        try:
            yield mine
        finally:
            with self._lock:
                self._watched.discard(mine)
            end()

    @contextmanager
    def drained(self, address: str, account: str) -> Iterator[bool]:
        """While the block runs, the rest of a refused body is read, for the client's convenience; False: not now.

        Only a few are at a time: it would make of every refusal something to wait for.
        """
        with ExitStack() as stack:
            try:
                stack.callback(self._drains.begin(account))
                stack.enter_context(self.watched(address, account))
            except TooManyRequestsError:
                yield False
                return
            yield True

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
