"""How many bodies one account may be sending at a time, so that half-sent ones do not take every thread."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from registry.errors import TooManyRequestsError


class Bodies:
    """Counts the bodies that are being received, by account; for many threads."""

    def __init__(self, limit: int) -> None:
        """Allow `limit` at a time to each account."""
        self._limit = limit
        self._lock = threading.Lock()
        self._running: Counter[str] = Counter()

    @contextmanager
    def one(self, account: str) -> Iterator[None]:
        """While the block runs, one body of this account is being received.

        Raises:
            TooManyRequestsError: it has as many already as it may.
        """
        with self._lock:
            if self._running[account] >= self._limit:
                raise TooManyRequestsError(f"account {account}: {self._limit} blobs are being sent already")
            self._running[account] += 1
        try:
            yield
        finally:
            with self._lock:
                self._running[account] -= 1
                if not self._running[account]:
                    del self._running[account]
