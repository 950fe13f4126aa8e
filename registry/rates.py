"""How many requests a second one account, or one address, may make of a web process.

A bucket is one number: the time until which what was let through reaches, at its rate (ITU-T I.371's generic cell rate
algorithm). So letting a request through costs one look into a dict, and a bucket that ran full again is the same as
none. State is this process's own, and bounded: several processes allow several times as much.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import Final

from registry.catalogue.accounts import ANONYMOUS
from registry.errors import TooManyRequestsError
from registry.identity.attempts import network_of
from registry.settings_rates import RateSettings

MAX_KEPT: Final = 65_536
"""Accounts or addresses that are told apart; of more, a quarter is forgotten, those with the most room."""

_SECOND: Final = 1_000_000_000


class Buckets:
    """So many requests a second for each key, and so many at once; for many threads."""

    def __init__(self, rate: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Let through `rate` a second, and what would come in `burst` seconds at once."""
        # In whole nanoseconds: sums of fractions of a second would lose a request in some thousands.
        self._interval = _SECOND // rate
        self._burst = burst * _SECOND
        self._clock = clock
        self._lock = threading.Lock()
        self._reaches: dict[str, int] = {}

    def __len__(self) -> int:
        """How many keys are remembered."""
        return len(self._reaches)

    def take(self, key: str, bursts: int = 1) -> float:
        """Let one request through, and return 0; or the seconds until one would be, which may make up more `bursts`."""
        slack = bursts * self._burst - self._interval
        now = int(self._clock() * _SECOND)
        with self._lock:
            reaches = max(self._reaches.get(key, 0), now)
            if reaches - now > slack:
                return (reaches - now - slack) / _SECOND
            self._reaches[key] = reaches + self._interval
            if len(self._reaches) > MAX_KEPT:
                self._forget(now)
        return 0.0

    def _forget(self, now: int) -> None:
        kept = {key: reaches for key, reaches in self._reaches.items() if reaches > now}
        if len(kept) > MAX_KEPT * 3 // 4:
            kept = dict(heapq.nlargest(MAX_KEPT * 3 // 4, kept.items(), key=lambda item: item[1]))
        self._reaches = kept


class Rates:
    """What the settings allow; where one is 0, nothing is counted."""

    def __init__(self, settings: RateSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing used."""

        def buckets(rate: int) -> Buckets | None:
            return Buckets(rate, settings.burst, clock) if rate else None

        self._addresses = buckets(settings.address)
        self._unknown = buckets(settings.unknown)
        self._reads = buckets(settings.account_reads)
        self._writes = buckets(settings.account_writes)

    @property
    def counts_addresses(self) -> bool:
        """True if `address` may say no."""
        return self._addresses is not None

    def address(self, address: str) -> None:
        """Let a request from there through, whoever makes it.

        Raises:
            TooManyRequestsError: not now.
        """
        if self._addresses is not None:
            _take(self._addresses, network_of(address), "address")

    def unknown(self, address: str) -> None:
        """Let a request of nobody that we know through.

        Raises:
            TooManyRequestsError: not now.
        """
        if self._unknown is not None:
            _take(self._unknown, network_of(address), "unknown clients at")

    def account(self, name: str, address: str, *, reads: bool, body: bool = False) -> None:
        """Let a request of an account through; whoever is nobody in particular is told apart by its address.

        One with a `body` is counted and refused later, at twice as many at once: most clients wait and ask again where
        there is none, and give a push up where there is.

        Raises:
            TooManyRequestsError: not now.
        """
        buckets = self._reads if reads else self._writes
        if buckets is not None:
            who = f"{name} at {network_of(address)}" if name == ANONYMOUS else name
            _take(buckets, who, "account", 2 if body else 1)


def _take(buckets: Buckets, key: str, what: str, bursts: int = 1) -> None:
    wait = buckets.take(key, bursts)
    if wait > 0:
        raise TooManyRequestsError(f"{what} {key}: too many requests, wait", retry_after=int(wait) + 1)
