"""Measuring by turns: who asks whom, in which order, and how the result stands beside the peer's and the target."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from benchmarks.load.costs import cpu_seconds
from benchmarks.load.servers import Server


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Who asks whom: a server, and the header lines of every request; `log_in` gives new ones, where they run out."""

    name: str
    server: Server
    lines: Sequence[str] = ()
    log_in: Callable[[], Sequence[str]] | None = None

    def logged_in(self) -> Way:
        """The same with credentials that are good from now on: a run lasts longer than a bearer token."""
        return self if self.log_in is None else replace(self, lines=self.log_in())


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one turn gave, of how many requests, and the processor seconds of all of the server's processes."""

    value: float
    requests: int = 1
    p50: float = 0.0
    p99: float = 0.0
    cpu: float = 0.0


@dataclass(slots=True)
class Report:
    """The targets, and which of them were missed."""

    met: int = 0
    missed: list[str] = field(default_factory=list)

    def at_least(self, what: str, got: float, want: float) -> str:
        """A cell: a figure, and whether it is large enough."""
        return self._cell(what, got, got >= want, f"at least {want:g}")

    def at_most(self, what: str, got: float, want: float) -> str:
        """A cell: a figure, and whether it is small enough."""
        return self._cell(what, got, got <= want, f"at most {want:.3g}")

    def _cell(self, what: str, got: float, met: bool, want: str) -> str:
        if met:
            self.met += 1
        else:
            self.missed.append(f"{what}: got {got:.2f}, want {want}")
        return f"{got:8.2f} {'met   ' if met else 'MISSED'}"


def by_turns(ways: Sequence[Way], rounds: int, measure: Callable[[Way], Measured]) -> dict[str, list[Measured]]:
    """Give every way a turn in each round, in changing order; by the ways' names."""
    found: dict[str, list[Measured]] = {way.name: [] for way in ways}
    for way in map(Way.logged_in, _order(ways, rounds)):
        before = cpu_seconds(way.server.pid)
        made = measure(way)
        cpu = cpu_seconds(way.server.pid) - before
        found[way.name].append(replace(made, cpu=cpu))
    return found


def _order(ways: Sequence[Way], rounds: int) -> Iterator[Way]:
    """An order that moves on by one each round, and runs backwards in every second pass through all of them.

    Moving on alone would leave each way behind the same other one nearly always, with what that one left to be done.
    """
    for number in range(rounds):
        turns, shift = divmod(number, len(ways))
        order = (*ways[shift:], *ways[:shift])
        yield from reversed(order) if turns % 2 else order


def median(values: Sequence[Measured], key: Callable[[Measured], float]) -> float:
    """The median of the rounds."""
    return statistics.median(map(key, values))


def ratio(ours: Sequence[Measured], peer: Sequence[Measured], key: Callable[[Measured], float]) -> float:
    """The median of the rounds' ratios: what slows a whole round down changes both of its sides."""
    return statistics.median(key(one) / key(other) for one, other in zip(ours, peer, strict=True))
