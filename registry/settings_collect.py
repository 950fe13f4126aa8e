"""Settings of garbage collection: when it runs, and how long what nobody needs stays."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

from registry import settings_checks as checks
from registry.settings_checks import Key, number

_HOUR: Final = 3600
_DAY: Final = 24 * _HOUR
_YEAR: Final = 366 * _DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectSettings:
    """`collect`: what is freed, and when."""

    interval: Annotated[
        int, Key("Seconds between two runs by itself; 0 for only when an admin asks.", number(0, _YEAR))
    ] = 6 * _HOUR
    grace: Annotated[
        int,
        Key(
            "Seconds that what nobody needs stays: since it was pushed, mounted, asked for by a pusher, or last "
            "needed. A push that takes longer from its first blob to its manifest may have to send blobs again.",
            number(0, _YEAR),
        ),
    ] = _DAY
    orphans: Annotated[
        int,
        Key(
            "Seconds between two looks through the whole store for what the catalogue does not know.", number(0, _YEAR)
        ),
    ] = _DAY
    referrers: Annotated[
        bool, Key("Whether artifacts go when the image that they are about is gone.", checks.switch)
    ] = True
    running: Annotated[int, Key("Seconds that a host's report of what it runs counts for.", number(60, _YEAR))] = (
        30 * _DAY
    )
    decisions: Annotated[int, Key("Newest decisions of each image that are kept.", number(1, 10_000))] = 20
    removed: Annotated[
        int, Key("Seconds that the decisions on an image are kept after it is gone.", number(0, 20 * _YEAR))
    ] = 90 * _DAY


COLLECT: Final = CollectSettings()
