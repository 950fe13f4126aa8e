"""Reading ahead: the same chunks, errors and ends as without, and no thread and no processor kept afterwards."""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import suppress
from math import inf
from pathlib import Path

import pytest

from registry.api.ahead import LOOK, PIECES, ahead
from registry.placement import Placement

PIECE = LOOK // 8


def _pieces(count: int) -> list[bytes]:
    return [bytes([number % 251]) * (PIECE + number) for number in range(count)]


class Source:
    """Gives pieces, and remembers by which threads it was asked and whether it was closed."""

    def __init__(self, pieces: list[bytes], error: Exception | None = None) -> None:
        """Raise `error`, if there is one, behind the pieces."""
        self.pieces, self.error = pieces, error
        self.threads: list[str] = []
        self.given, self.closed = 0, False

    def chunks(self) -> Generator[bytes, None, None]:
        """The pieces."""
        try:
            for piece in self.pieces:
                self.threads.append(threading.current_thread().name)
                self.given += 1
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


@pytest.fixture(autouse=True)
def nothing_stays() -> Iterator[None]:
    """Neither a thread nor a bound processor."""
    before = os.sched_getaffinity(0)
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name == "body"] == []
    for task in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # a thread that has ended
            assert os.sched_getaffinity(int(task.name)) == before


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 100])
@pytest.mark.parametrize("fast", [0.0, inf], ids=["fast", "slow"])
def test_the_same_chunks_come(count: int, fast: float) -> None:
    source = Source(_pieces(count))
    assert list(ahead(source.chunks(), Placement(), fast=fast)) == source.pieces
    assert source.closed


def test_a_slow_body_is_read_by_who_takes_it() -> None:
    source = Source(_pieces(40))
    assert len(list(ahead(source.chunks(), Placement(), fast=inf))) == 40
    assert set(source.threads) == {threading.current_thread().name}


def test_a_fast_body_is_read_by_a_thread_once_it_was_seen_to_be_fast() -> None:
    source = Source(_pieces(40))
    assert len(list(ahead(source.chunks(), Placement(), fast=0.0))) == 40
    own = source.threads.count(threading.current_thread().name)
    assert 1 <= own <= 8
    assert source.threads[own:] == ["body"] * (40 - own)


@pytest.mark.parametrize("count", [0, 3, 60])
@pytest.mark.parametrize("fast", [0.0, inf], ids=["fast", "slow"])
def test_an_error_comes_behind_what_was_read_before_it(count: int, fast: float) -> None:
    source = Source(_pieces(count), ValueError("cut off"))
    taken: list[bytes] = []
    with pytest.raises(ValueError, match="cut off"):
        taken.extend(ahead(source.chunks(), Placement(), fast=fast))
    assert taken == source.pieces
    assert source.closed


@pytest.mark.parametrize("taken", [1, 12, 30])
def test_who_stops_taking_ends_the_reading(taken: int) -> None:
    source = Source([b"x" * PIECE] * 500)
    chunks = ahead(source.chunks(), Placement(), fast=0.0)
    for _ in range(taken):
        next(chunks)
    assert isinstance(chunks, Generator)
    chunks.close()
    assert source.closed
    assert source.given <= taken + PIECES + 2


def test_no_more_is_read_ahead_than_said() -> None:
    source = Source([b"x" * PIECE] * 500)
    most = 0
    for number, _ in enumerate(ahead(source.chunks(), Placement(), fast=0.0)):
        most = max(most, source.given - number)
    assert most <= PIECES + 2
