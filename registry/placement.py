"""Where the threads of a web process run: together on one processor, where waking a thread on another one is dear.

One request passes from a thread of sockets to one that answers and back, and the two run Python by turns anyway. On a
virtual machine a thread that sleeps on another processor is woken by an interrupt that leaves the guest: ten times as
dear as one that is woken where its waker runs, and more than all the rest of a small request. So each web process
measures that as it starts, and where it is so, its threads are gathered on one processor
(docs/adr/0192-threads-are-gathered.md). They may run anywhere while a long blob is sent, and a thread that does
one long thing by itself, as to hash what is uploaded, leaves the others for as long.
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

DEAR: Final = 10e-6
"""By how many seconds it must take longer to wake a thread on another processor: a small request takes some 60e-6 of
work, of which a second processor can take off a third at most, and two such wakes or three."""

SETTLE_SECONDS: Final = 0.1
"""How long nothing must have needed all processors before the threads are gathered again."""

WATCH_SECONDS: Final = 1.0
"""How often a busy process looks at who else is on its processor; a little more or less, so that two do not swap."""

MUCH: Final = 0.25
"""The part of its time that a processor must give to others for us to leave it, if another one has less to do."""

_ROUNDS: Final = 20
_TRIES: Final = 5

_log = logging.getLogger("pratique.web")


class Placement:
    """The threads of this process, where they may run; for many threads. Until `start`, it leaves them alone."""

    def __init__(self) -> None:
        """Nothing is gathered."""
        self._changed = threading.Condition()
        self._everywhere = frozenset(os.sched_getaffinity(0))
        self._started = False
        self._spread = 0
        self._one: int | None = None
        self._apart: set[int] = set()

    @property
    def processor(self) -> int | None:
        """On which processor the threads are gathered; None while they are not."""
        return self._one

    def start(self) -> bool:
        """Gather the threads, from now on, by a thread that runs until the process ends; False if it would not pay."""
        self._everywhere = frozenset(os.sched_getaffinity(0))
        if len(self._everywhere) < 2:
            return False
        first, *_, last = sorted(self._everywhere)
        near, far = wake_seconds(first, first), wake_seconds(first, last)
        dear = far - near >= DEAR
        done = "are gathered on one processor" if dear else "run anywhere"
        text = "threads %s: to wake one takes %.0f us, and %.0f us on another processor"
        _log.info(text, done, near * 1e6, far * 1e6)
        if not dear:
            return False
        self.gather_from_now_on()
        return True

    def gather_from_now_on(self) -> None:
        """The same, whatever it costs to wake a thread."""
        self._started = True
        threading.Thread(target=self._run, name="placement", daemon=True).start()

    def spread(self) -> Callable[[], None]:
        """Every thread may run anywhere, until what is returned has been called (once, or more often)."""
        if not self._started:
            return lambda: None
        with self._changed:
            self._spread += 1
            if self._one is not None:
                self._one = None
                self._place(self._everywhere)
        over = False

        def end() -> None:
            nonlocal over
            with self._changed:
                if not over:
                    over = True
                    self._spread -= 1
                    self._changed.notify_all()

        return end

    @contextmanager
    def apart(self) -> Iterator[None]:
        """While the block runs, the calling thread may run anywhere, wherever the others are."""
        if not self._started:
            yield
            return
        own = threading.get_native_id()
        with self._changed:
            self._apart.add(own)
            _bind(own, self._everywhere)
        try:
            yield
        finally:
            with self._changed:
                self._apart.discard(own)
                if self._one is not None:
                    _bind(own, {self._one})

    def _run(self) -> None:
        """In the thread `placement`, which is the only one that gathers."""
        own = threading.get_native_id()
        with self._changed:
            self._apart.add(own)
            _bind(own, self._everywhere)
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._spread)
                # To wait is to be woken where there is least to do: the kernel's choice is ours.
                if self._one is None and not self._changed.wait_for(lambda: self._spread, SETTLE_SECONDS):
                    self._gather(_running_on())
            share = Share(self._everywhere)
            with self._changed:
                if self._one is not None:
                    self._changed.wait_for(lambda: self._one is None, WATCH_SECONDS * random.uniform(0.75, 1.25))  # noqa: S311
                if self._one is not None and (better := share.better(self._one)) is not None:
                    self._gather(better)

    def _gather(self, processor: int) -> None:
        self._one = processor
        self._place({processor})

    def _place(self, processors: set[int] | frozenset[int]) -> None:
        for name in os.listdir("/proc/self/task"):  # noqa: PTH208 -- names are all that is wanted
            if int(name) not in self._apart:
                _bind(int(name), processors)


class Share:
    """What each processor has done since this was made, and how much of it was ours."""

    def __init__(
        self,
        processors: frozenset[int],
        *,
        busy: Callable[[], dict[int, float]] | None = None,
        own: Callable[[], float] = time.process_time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin to count."""
        self._processors = processors
        self._read_busy, self._read_own, self._monotonic = busy or busy_seconds, own, monotonic
        self._busy, self._own, self._since = self._read_busy(), own(), monotonic()

    def better(self, ours: int) -> int | None:
        """A processor that has less to do than half of what `ours` does for others, if that is MUCH; None to stay."""
        now = self._read_busy()
        took, own = self._monotonic() - self._since, self._read_own() - self._own
        busy = {name: now[name] - self._busy[name] for name in self._processors & now.keys() & self._busy.keys()}
        if ours not in busy or took <= 0:
            return None
        others = busy.pop(ours) - own
        if others < MUCH * took or not busy:
            return None
        least = min(busy, key=busy.__getitem__)
        return least if busy[least] < others / 2 else None


def busy_seconds() -> dict[int, float]:
    """How long each processor was not idle since the machine started, in seconds (proc_stat(5)); empty if not told."""
    found: dict[int, float] = {}
    tick = os.sysconf("SC_CLK_TCK")
    with suppress(OSError, ValueError), Path("/proc/stat").open(encoding="utf-8") as file:
        for line in file:
            name, *fields = line.split()
            if not name.startswith("cpu"):
                break
            if name != "cpu":
                # user nice system idle iowait irq softirq steal; a guest's time is in user's.
                times = [int(field) for field in fields[:8]]
                found[int(name[3:])] = (sum(times) - times[3] - times[4]) / tick
    return found


def wake_seconds(first: int, second: int) -> float:
    """How long it takes that a thread on one processor wakes one on another and is woken by it, at the least.

    The calling thread may run where it could before, afterwards.
    """
    before = os.sched_getaffinity(0)
    (asked, ask), (answered, answer) = os.pipe(), os.pipe()

    def other() -> None:
        os.sched_setaffinity(0, {second})
        while os.read(asked, 1):
            os.write(answer, b".")

    thread = threading.Thread(target=other, name="woken")
    thread.start()
    try:
        os.sched_setaffinity(0, {first})
        return min(_took(lambda: os.write(ask, b".") and os.read(answered, 1)) for _ in range(_TRIES))
    finally:
        os.close(ask)
        thread.join()
        os.sched_setaffinity(0, before)
        for descriptor in (asked, answered, answer):
            os.close(descriptor)


def _took(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(_ROUNDS):
        call()
    return (time.perf_counter() - began) / _ROUNDS


def _bind(thread: int, processors: set[int] | frozenset[int]) -> None:
    """Say where a thread of this process may run; one that has ended, or processors that are gone, change nothing."""
    with suppress(OSError):
        os.sched_setaffinity(thread, processors)


def _running_on() -> int:
    """The processor that the calling thread runs on (proc_pid_stat(5), field 39, `processor`)."""
    text = Path("/proc/thread-self/stat").read_text(encoding="utf-8", errors="replace")
    return int(text.rpartition(")")[2].split()[36])  # which begins with field 3
