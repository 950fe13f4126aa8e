"""Where the threads of a web process run: together, anywhere, apart, and away from who is busy."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from registry.placement import Placement, Share, busy_seconds, wake_seconds

pytestmark = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is but one processor")


@pytest.fixture(scope="module")
def steps() -> dict[str, list[list[int]]]:
    command = [sys.executable, "-m", "tests.support.placed"]
    ran = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=100)
    told: dict[str, list[list[int]]] = json.loads(ran.stdout)
    return told


def everywhere() -> list[int]:
    return sorted(os.sched_getaffinity(0))


@pytest.mark.parametrize("step", ["at first", "apart, not gathered", "spread", "spread by one"])
def test_every_thread_may_run_anywhere(steps: dict[str, list[list[int]]], step: str) -> None:
    assert all(processors == everywhere() for processors in steps[step])


@pytest.mark.parametrize("step", ["gathered", "gathered again"])
def test_gathered_threads_share_a_processor(steps: dict[str, list[list[int]]], step: str) -> None:
    first, *others = steps[step]
    assert len(first) == 1
    assert len(others) == 2
    assert all(processors == first for processors in others)


def test_one_that_is_apart_may_run_anywhere_and_the_others_stay(steps: dict[str, list[list[int]]]) -> None:
    assert steps["apart"] == [everywhere(), *steps["gathered"][1:]]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_waking_takes_is_measured_and_leaves_nothing() -> None:
    before, threads = os.sched_getaffinity(0), threading.active_count()
    descriptors = open_descriptors()
    first, *_, last = sorted(before)
    assert 0 < wake_seconds(first, first) < 1
    assert 0 < wake_seconds(first, last) < 1
    assert os.sched_getaffinity(0) == before
    assert threading.active_count() == threads
    assert open_descriptors() == descriptors


def test_nothing_is_gathered_where_there_is_one_processor() -> None:
    found: list[bool] = []

    def run() -> None:
        os.sched_setaffinity(0, {max(everywhere())})
        placement = Placement()
        found.append(placement.start())
        found.append(placement.processor is None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [False, True]


def test_each_processor_is_told_of() -> None:
    found = busy_seconds()
    assert found.keys() >= set(everywhere())
    assert all(seconds >= 0 for seconds in found.values())


class Told:
    """Says of each processor how long it was busy: one mapping after the other; `time` goes on by 1 s with each."""

    def __init__(self, *busy: dict[int, float]) -> None:
        """What is said."""
        self._busy = list(busy)
        self.time = 0.0

    def busy(self) -> dict[int, float]:
        """The next of them."""
        self.time += 1.0
        return self._busy.pop(0)


@pytest.mark.parametrize(
    ("busy", "own", "better"),
    [
        pytest.param({0: 0.0, 1: 0.0}, 0.0, None, id="nobody does anything"),
        pytest.param({0: 1.0, 1: 0.0}, 1.0, None, id="ours alone"),
        pytest.param({0: 1.0, 1: 0.0}, 0.8, None, id="others have little of it"),
        pytest.param({0: 1.0, 1: 0.1}, 0.5, 1, id="others have half of it"),
        pytest.param({0: 1.0, 1: 0.4}, 0.5, None, id="the other one has not much less to do"),
        pytest.param({0: 1.0, 1: 0.3, 2: 0.1}, 0.4, 2, id="the one with the least to do"),
        pytest.param({1: 0.1}, 0.0, None, id="ours is not told of"),
        pytest.param({}, 0.0, None, id="nothing is told"),
        pytest.param({0: 1.0}, 0.0, None, id="no other is told of"),
    ],
)
def test_it_leaves_a_processor_that_others_want(busy: dict[int, float], own: float, better: int | None) -> None:
    told = Told(dict.fromkeys(busy, 5.0), {name: 5.0 + seconds for name, seconds in busy.items()})
    used = iter((3.0, 3.0 + own))
    share = Share(frozenset({0, 1, 2}), busy=told.busy, own=lambda: next(used), monotonic=lambda: told.time)
    assert share.better(0) == better
