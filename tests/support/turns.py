"""A seventh of a large grid a day: faults at every point, orders of steps, cases that are made up.

    for plan in taken(plans(scenario)): ...          # the first, the last, and a seventh of the others

What is left out today is tried within a week: `PRATIQUE_TURN` chooses the seventh (0 to 6), or `all` of it, as
`make test-whole` does. Where it is not set it is the day's, in UTC, and all workers of a run have the same.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import pytest

T = TypeVar("T")

VARIABLE: Final = "PRATIQUE_TURN"
TURNS: Final = 7
_DAY: Final = 24 * 60 * 60


def fix_turn() -> str:
    """Have this process, and those that it starts, keep to one turn; returns it.

    Raises:
        pytest.UsageError: the variable is neither a turn nor `all`.
    """
    chosen = os.environ.setdefault(VARIABLE, str(int(time.time()) // _DAY % TURNS))
    if chosen not in {"all", *map(str, range(TURNS))}:
        raise pytest.UsageError(f"{VARIABLE}: got {chosen!r}, expected 0 to {TURNS - 1}, or all")
    return chosen


def is_taken(number: int) -> bool:
    """Whether the point with this number, from 0 on, is tried in this turn."""
    chosen = fix_turn()
    # Shifted by one after each round: of a grid that repeats every seven points, a turn has some of each kind.
    return chosen == "all" or (number + number // TURNS) % TURNS == int(chosen)


def taken(points: Iterable[T]) -> Iterator[T]:
    """Those of the points that are tried in this turn, and always the first and the last."""
    left: list[T] = []
    for number, point in enumerate(points):
        left.clear()
        if number == 0 or is_taken(number):
            yield point
        else:
            left.append(point)
    yield from left
