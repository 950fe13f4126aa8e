"""The one place where the command reads the clock; everything below it takes `now` as a value."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from pratique.exits import CommandError

EARLIEST = datetime(2026, 1, 1, tzinfo=UTC)
"""Older than this program: a clock that shows an earlier time is broken, and dates judged by it would be wrong."""


def now() -> datetime:
    """The present time in UTC, in whole seconds.

    Raises:
        CommandError: the clock shows a time before this program was written.
    """
    seconds = int(time.time())
    if seconds < EARLIEST.timestamp():
        shown = f"{seconds} s from the epoch"
        raise CommandError(
            f"clock: got {shown}, expected a time after {EARLIEST:%Y-%m-%d}; dates cannot be judged by it"
        )
    return datetime.fromtimestamp(seconds, UTC)
