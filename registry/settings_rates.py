"""Settings of how many requests a second are taken."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from registry.settings_checks import Key, number

_MOST: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class RateSettings:
    """`rates`: requests a second, of one web process; what is more is answered 429. 0 is any number."""

    account_reads: Annotated[int, Key("GET and HEAD requests of one account.", number(0, _MOST))] = 0
    account_writes: Annotated[int, Key("All other requests of one account.", number(0, _MOST))] = 1000
    address: Annotated[
        int,
        Key(
            "Requests from one address (IPv6: one /64), whoever makes them, but for health checks; a build farm can "
            "stand behind one.",
            number(0, _MOST),
        ),
    ] = 0
    unknown: Annotated[int, Key("Requests from one address that were answered 401, or would be.", number(0, _MOST))] = (
        200
    )
    burst: Annotated[int, Key("Seconds whose requests may come at once.", number(1, 3600))] = 10


RATES: Final = RateSettings()
