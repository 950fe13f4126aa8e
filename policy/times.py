"""Times in signed documents: RFC 3339, UTC, whole seconds, spelled in one way (`2026-11-24T08:39:00Z`).

Nothing in this package reads a clock: `now` is always an argument.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final

from policy.errors import PolicyError

SKEW: Final = timedelta(minutes=5)
"""How far the clocks of signer and host may differ (trust.md, What a host does)."""

_TIME: Final = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z", re.ASCII)


def format_time(time: datetime) -> str:
    """The one spelling of `time`.

    Raises:
        PolicyError: not aware, not UTC, or with a fraction of a second.
    """
    if time.utcoffset() != timedelta(0):
        raise PolicyError(f"time {time!r}: not in UTC")
    if time.microsecond:
        raise PolicyError(f"time {time!r}: has a fraction of a second, expected whole seconds")
    return f"{time.year:04}-{time.month:02}-{time.day:02}T{time.hour:02}:{time.minute:02}:{time.second:02}Z"


def parse_time(text: str, *, what: str) -> datetime:
    """Return the time that `text` spells; `what` names it in errors.

    Raises:
        PolicyError: another spelling (offset, fraction, lower case), or no such day or hour.
    """
    match = _TIME.fullmatch(text)
    if match is None:
        raise PolicyError(f"{what}: got {text[:40]!r}, expected a time as 2026-11-24T08:39:00Z")
    year, month, day, hour, minute, second = (int(part) for part in match.groups())
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise PolicyError(f"{what}: got {text!r}: {error}") from None


def whole_seconds(time: datetime) -> datetime:
    """`time` in UTC, its fraction of a second cut off: how a clock's reading becomes `issued`."""
    return time.astimezone(UTC).replace(microsecond=0)
