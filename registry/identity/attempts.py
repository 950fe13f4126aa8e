"""How often logins may fail: for each account, and from each source address, so many a minute (R7).

An attempt is charged before its password is looked at, and given back when it is right; so many at once count in
full. Whoever has logged in to an account from an address of late is not locked out by what others fail from elsewhere.
State is this process's own, and bounded: several processes allow several times as much.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from registry.errors import TooManyRequestsError

MAX_KEPT: Final = 8192
"""Accounts, addresses and pairs that are remembered; the ones that were longest quiet are forgotten."""

MAX_NAME: Final = 64
"""Characters by which accounts are told apart; no account has a longer name, whatever is given as one."""

_MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Charge:
    """What one attempt was charged to."""

    account: str
    network: str
    bucket: tuple[str, str]


class _Buckets:
    """Leaky buckets: each attempt adds one, `rate` a minute run out, and a full one takes no more."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._levels: OrderedDict[object, tuple[float, float]] = OrderedDict()

    def wait(self, key: object, now: float) -> float:
        """Seconds until one more has room; 0 if it has."""
        return max(0.0, (self._level(key, now) + 1 - self._rate) * _MINUTE / self._rate)

    def add(self, key: object, now: float, amount: float) -> None:
        """Pour in or take out."""
        self._levels[key] = (max(0.0, self._level(key, now) + amount), now)
        self._levels.move_to_end(key)
        if len(self._levels) > MAX_KEPT:
            self._levels.popitem(last=False)

    def _level(self, key: object, now: float) -> float:
        level, at = self._levels.get(key, (0.0, now))
        return max(0.0, level - (now - at) * self._rate / _MINUTE)


class Attempts:
    """The attempts of this process; for many threads."""

    def __init__(self, *, per_account: int, per_address: int) -> None:
        """Allow so many failures a minute."""
        self._lock = threading.Lock()
        self._accounts = _Buckets(per_account)
        self._networks = _Buckets(per_address)
        self._good: OrderedDict[tuple[str, str], None] = OrderedDict()

    def begin(self, account: str, address: str) -> Charge:
        """Charge an attempt.

        Raises:
            TooManyRequestsError: too many failed; nothing was charged.
        """
        network, now = network_of(address), time.monotonic()
        account = account[:MAX_NAME]
        with self._lock:
            bucket = (account, network) if (account, network) in self._good else (account, "")
            wait = max(self._accounts.wait(bucket, now), self._networks.wait(network, now))
            if wait > 0:
                raise TooManyRequestsError("logins: too many failed, wait", retry_after=int(wait) + 1)
            self._accounts.add(bucket, now, 1)
            self._networks.add(network, now, 1)
        return Charge(account, network, bucket)

    def succeeded(self, charge: Charge) -> None:
        """Give it back: the login was right."""
        self.undo(charge)
        with self._lock:
            self._good[charge.account, charge.network] = None
            self._good.move_to_end((charge.account, charge.network))
            if len(self._good) > MAX_KEPT:
                self._good.popitem(last=False)

    def undo(self, charge: Charge) -> None:
        """Give it back: nobody looked at the password."""
        now = time.monotonic()
        with self._lock:
            self._accounts.add(charge.bucket, now, -1)
            self._networks.add(charge.network, now, -1)


@lru_cache(maxsize=1024)
def network_of(address: str) -> str:
    """Whom an address stands for: itself, or the /64 that one IPv6 customer has (RFC 6177)."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
