"""Runs several actors one step at a time, in every order that can make a difference, or in random ones.

An actor is a function in a thread of its own. It stands still at each *point*, before a transaction on the catalogue or
a call of the store, until the scheduler lets it go on; what it does from one point to the next is one step, and nobody
else does anything meanwhile. So a schedule (the sequence of actors that were let go) determines all that happens.

`explore` goes through the schedules depth first. Each step has a footprint, the tables and blobs that it read and
wrote; of two schedules that differ only in the order of steps that do not meet in their footprints, only one is run
(sleep sets: Godefroid, Partial-Order Methods for the Verification of Concurrent Systems, chapter 5).

    def scenario(scheduler: Scheduler) -> Callable[[], None]:
        world = World(scheduler)                         # wraps catalogue and store
        scheduler.add("pusher", lambda: world.push(...))
        scheduler.add("collector", lambda: world.collect())
        return world.check                               # run when all actors are done

    schedules = explore(scenario)
"""

from __future__ import annotations

import itertools
import random
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from sqlalchemy import Connection, event

from ocispec.digest import Digest
from registry.catalogue.database import Catalogue
from registry.catalogue.schema import metadata
from registry.store.interface import BlobStore, StoredBlob, StoredDerived, Upload
from registry.store.keys import DerivedKey
from tests.support.turns import is_taken

Footprint = frozenset[tuple[str, bool]]
"""Resources that a step touched, each with whether it wrote."""

Scenario = Callable[["Scheduler"], Callable[[], None]]
"""Makes a fresh world and its actors; what it returns checks the world when all of them are done."""

PATIENCE = 60.0
"""Seconds that a step may take before the test is taken to hang."""


class Abandoned(BaseException):
    """The schedule is not followed to its end; raised in actors at their points, past all handlers."""


class Killed(BaseException):
    """The actor is dead: nothing of it happens any more, not even what it would do by the way of an error."""


@dataclass(slots=True)
class _Actor:
    name: str
    work: Callable[[], None]
    go: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    thread: threading.Thread | None = None
    done: bool = False
    dead: bool = False
    failure: BaseException | None = None
    footprint: set[tuple[str, bool]] = field(default_factory=set)
    waits_for: set[str] | None = None
    """What it waits to be changed, None if it can go on at once."""


class Scheduler:
    """Actors and the point where each stands."""

    def __init__(self) -> None:
        """Without actors yet."""
        self._actors: dict[str, _Actor] = {}
        self._arrived = threading.Semaphore(0)
        self._local = threading.local()
        self._abandoned = False
        self.steps = 0

    def add(self, name: str, work: Callable[[], None]) -> None:
        """An actor; its thread is started by `start`."""
        self._actors[name] = _Actor(name, work)

    def add_death(self, name: str) -> None:
        """An actor whose one step is the death of another one, wherever that stands."""

        def kill() -> None:
            self.point()
            self.touch(f"life of {name}", writes=True)
            self._actors[name].dead = True

        self.add(f"death of {name}", kill)

    # ---- called by actors -------------------------------------------------------------------------------------------

    def point(self) -> None:
        """Stand still until it is this actor's turn; whoever is none, or is inside a step, goes on."""
        actor = self._me()
        if actor is None or getattr(self._local, "inside", None):
            return
        self._arrived.release()
        actor.go.acquire()
        if self._abandoned:
            raise Abandoned
        if actor.dead:
            raise Killed

    @contextmanager
    def whole(self) -> Iterator[None]:
        """What happens inside belongs to the step that has begun."""
        self._local.inside = getattr(self._local, "inside", 0) + 1
        try:
            yield
        finally:
            self._local.inside -= 1

    def touch(self, resource: str, *, writes: bool) -> None:
        """Note what the step reads or writes."""
        actor = self._me()
        if actor is not None:
            actor.footprint.add((resource, writes))

    def pause(self, _seconds: float) -> None:
        """Wait until somebody else has changed something that the last step read: for loops that look again."""
        actor = self._me()
        if actor is not None:
            actor.waits_for = {resource for resource, _ in actor.footprint}

    def _me(self) -> _Actor | None:
        return getattr(self._local, "actor", None)

    # ---- called by whoever drives -----------------------------------------------------------------------------------

    def start(self) -> None:
        """Have every actor come to its first point."""
        for actor in self._actors.values():
            actor.thread = threading.Thread(target=self._run, args=(actor,), name=actor.name, daemon=True)
            actor.thread.start()
            self._wait(actor)

    def enabled(self) -> tuple[str, ...]:
        """The actors that can go on, by name; those that wait for each other without end are let go."""
        alive = [actor for actor in self._actors.values() if not actor.done]
        ready = [actor.name for actor in alive if actor.waits_for is None]
        return tuple(sorted(ready or [actor.name for actor in alive]))

    def step(self, name: str) -> Footprint:
        """Let an actor do one step; returns what it touched."""
        actor = self._actors[name]
        actor.footprint.clear()
        actor.footprint.add((f"life of {name}", False))
        actor.waits_for = None
        self.steps += 1
        actor.go.release()
        self._wait(actor)
        written = {resource for resource, writes in actor.footprint if writes}
        for other in self._actors.values():
            if other is not actor and other.waits_for is not None and other.waits_for & written:
                other.waits_for = None
        return frozenset(actor.footprint)

    def failures(self) -> dict[str, BaseException]:
        """What actors died of."""
        return {actor.name: actor.failure for actor in self._actors.values() if actor.failure is not None}

    def abandon(self) -> None:
        """End all actors where they stand."""
        self._abandoned = True
        for actor in self._actors.values():
            while not actor.done and actor.thread is not None:
                actor.go.release()
                actor.thread.join(0.01)

    def _run(self, actor: _Actor) -> None:
        self._local.actor = actor
        try:
            self.point()
            actor.work()
        except (Abandoned, Killed):
            pass
        except BaseException as failure:
            actor.failure = failure
        finally:
            actor.done = True
            self._arrived.release()

    def _wait(self, actor: _Actor) -> None:
        if not self._arrived.acquire(timeout=PATIENCE):
            raise AssertionError(f"actor {actor.name} came to no point within {PATIENCE:g} s")


def meet(one: Footprint, other: Footprint) -> bool:
    """True if two steps touch the same thing, and one of them writes it: their order may make a difference."""
    mine = _strongest(one)
    return any(resource in mine and (writes or mine[resource]) for resource, writes in _strongest(other).items())


def _strongest(footprint: Footprint) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for resource, writes in footprint:
        found[resource] = found.get(resource, False) or writes
    return found


# ---- exploring ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Node:
    """A point of a schedule: who can go on, who sleeps (with the step it would do), who was tried, who is tried now."""

    enabled: tuple[str, ...]
    sleep: dict[str, Footprint]
    tried: dict[str, Footprint] = field(default_factory=dict)
    chosen: str = ""

    def next(self) -> str | None:
        """The next actor to try from here."""
        return next((name for name in self.enabled if name not in self.sleep and name not in self.tried), None)

    def child_sleep(self, done: Footprint) -> dict[str, Footprint]:
        """Who sleeps after the chosen step, which touched `done`."""
        asleep = {**self.sleep, **{name: step for name, step in self.tried.items() if name != self.chosen}}
        return {name: step for name, step in asleep.items() if not meet(step, done)}


class ScheduleError(AssertionError):
    """A schedule after which something is wrong; it can be run again by `replay`."""

    def __init__(self, schedule: Iterable[str], cause: BaseException) -> None:
        """Keep the schedule in the message."""
        self.schedule = tuple(schedule)
        super().__init__(f"after {' '.join(self.schedule)}: {type(cause).__name__}: {cause}")


def explore(scenario: Scenario, *, limit: int = 100_000, reduce: bool = True) -> int:
    """Run every schedule that may make a difference (or, without `reduce`, every one); returns how many.

    Raises:
        ScheduleError: an actor failed, or the check.
        AssertionError: there are more than `limit`.
    """
    path: list[_Node] = []
    complete = 0
    while True:
        if _follow(scenario, path, reduce):
            complete += 1
            assert complete <= limit, f"more than {limit} schedules"
        while path and path[-1].next() is None:
            path.pop()
        if not path:
            return complete
        path[-1].chosen = ""


def _follow(scenario: Scenario, path: list[_Node], reduce: bool) -> bool:
    """Run the schedule that `path` says, and go on with what was not tried yet; False if that need not be finished."""
    scheduler = Scheduler()
    check = scenario(scheduler)
    scheduler.start()
    depth = 0
    sleep: dict[str, Footprint] = {}
    try:
        while enabled := scheduler.enabled():
            if depth == len(path):
                path.append(_Node(enabled, sleep))
            node = path[depth]
            if not node.chosen:
                chosen = node.next()
                if chosen is None:
                    path.pop()
                    return False
                node.chosen = chosen
            footprint = scheduler.step(node.chosen)
            node.tried[node.chosen] = footprint
            sleep = node.child_sleep(footprint) if reduce else {}
            depth += 1
    finally:
        scheduler.abandon()
    _judge(scheduler, check, [node.chosen for node in path])
    return True


def run_randomly(scenario: Scenario, seed: int) -> tuple[str, ...]:
    """Run one schedule that `seed` determines; returns it.

    Raises:
        ScheduleError: an actor failed, or the check.
    """
    chance = random.Random(seed)
    return _drive(scenario, chance.choice)


def kill_at_each_step(scenario: Scenario, victim: str, *, seeds: Iterable[int]) -> int:
    """Have the `death of` an actor come after each number of its steps of this turn (`turns.py`), once a seed.

    Returns how many schedules.

    Raises:
        ScheduleError: an actor failed, or the check.
    """

    def steps(seed: int, lives: int) -> int:
        """How many it took, of so many that it lives."""
        return _drive(scenario, _Killing(victim, lives, random.Random(seed * 1000 + lives))).count(victim)

    schedules = 0
    for seed in seeds:
        for lives in filter(lambda number: number == 0 or is_taken(number), itertools.count()):
            taken = steps(seed, lives)
            schedules += 1
            if taken < lives:  # it was done before
                if not is_taken(taken):
                    steps(seed, taken)  # the last one
                    schedules += 1
                break
    return schedules


@dataclass(slots=True)
class _Killing:
    """Chooses at random, but has an actor die after so many steps."""

    victim: str
    lives: int
    chance: random.Random

    def __call__(self, enabled: tuple[str, ...]) -> str:
        death = f"death of {self.victim}"
        if death in enabled and self.lives <= 0:
            return death
        others = [name for name in enabled if name != death]
        chosen = self.chance.choice(others or list(enabled))
        self.lives -= chosen == self.victim
        return chosen


def replay(scenario: Scenario, schedule: Iterable[str]) -> tuple[str, ...]:
    """Run a schedule again, and whatever is left after its end.

    Raises:
        ScheduleError: an actor failed, or the check.
    """
    left = iter(schedule)
    return _drive(scenario, lambda enabled: next(left, enabled[0]))


def _drive(scenario: Scenario, choose: Callable[[tuple[str, ...]], str]) -> tuple[str, ...]:
    scheduler = Scheduler()
    check = scenario(scheduler)
    scheduler.start()
    schedule: list[str] = []
    try:
        while enabled := scheduler.enabled():
            schedule.append(choose(enabled))
            scheduler.step(schedule[-1])
    finally:
        scheduler.abandon()
    _judge(scheduler, check, schedule)
    return tuple(schedule)


def _judge(scheduler: Scheduler, check: Callable[[], None], schedule: Iterable[str]) -> None:
    for failure in scheduler.failures().values():
        raise ScheduleError(schedule, failure) from failure
    try:
        check()
    except AssertionError as error:
        raise ScheduleError(schedule, error) from error


# ---- what steps are -------------------------------------------------------------------------------------------------

_TABLES = re.compile("|".join(rf"\b{re.escape(table)}\b" for table in sorted(metadata.tables, key=len, reverse=True)))
_WRITING = re.compile(r"(INSERT INTO|UPDATE|DELETE FROM)\s+(\w+)", re.IGNORECASE)


class SteppedCatalogue(Catalogue):
    """A catalogue whose transactions are steps; outside of a transaction, each statement is one."""

    def __init__(self, url: str, scheduler: Callable[[], Scheduler]) -> None:
        """`scheduler` gives the one of the schedule that runs."""
        super().__init__(url, connections=8)
        self._scheduler = scheduler
        event.listen(self._engine, "before_cursor_execute", self._statement)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """See `Catalogue`."""
        self._scheduler().point()
        with self._scheduler().whole(), super().read() as conn:
            yield conn

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """See `Catalogue`; its statements come to their points by themselves."""
        with super().look() as conn:
            yield conn

    @contextmanager
    def write(self, *, durable: bool = True, stamped: bool = True) -> Iterator[Connection]:
        """See `Catalogue`."""
        self._scheduler().point()
        with self._scheduler().whole(), super().write(durable=durable, stamped=stamped) as conn:
            yield conn

    def _statement(
        self, _conn: Connection, _cursor: Any, statement: str, _parameters: Any, _context: Any, _many: bool
    ) -> None:
        scheduler = self._scheduler()
        scheduler.point()  # does nothing inside of a transaction
        written = _WRITING.match(statement.lstrip())
        for table in set(_TABLES.findall(statement)):
            scheduler.touch(table, writes=written is not None and written[2] == table)
        if written is not None and written[2] == "manifests":
            for cascades in ("images", "image_keys", "manifest_references", "clearances"):
                scheduler.touch(cascades, writes=True)


class SteppedStore:
    """A store whose calls are steps, but inside of a transaction."""

    def __init__(self, inner: BlobStore, scheduler: Callable[[], Scheduler]) -> None:
        """Around `inner`."""
        self._inner, self._scheduler = inner, scheduler

    def _step(self, resource: object, *, writes: bool) -> None:
        self._scheduler().point()
        self._scheduler().touch(f"bytes {resource}", writes=writes)

    def size(self, digest: Digest) -> int | None:
        """See `Blobs`."""
        self._step(digest, writes=False)
        return self._inner.size(digest)

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `Blobs`."""
        self._step(digest, writes=False)
        return self._inner.open(digest, start=start, length=length)

    def redirect(self, digest: Digest) -> str | None:
        """See `Blobs`."""
        return self._inner.redirect(digest)

    def put(self, digest: Digest, chunks: Iterable[bytes], *, size: int | None = None) -> int:
        """See `Blobs`; what the chunks do while they are read belongs to the step."""
        self._step(digest, writes=True)
        self._scheduler().touch("bytes", writes=True)
        with self._scheduler().whole():
            return self._inner.put(digest, chunks, size=size)

    def delete(self, digest: Digest) -> bool:
        """See `Blobs`."""
        self._step(digest, writes=True)
        self._scheduler().touch("bytes", writes=True)
        return self._inner.delete(digest)

    def digests(self) -> Iterator[Digest]:
        """See `Blobs`."""
        return (found.digest for found in self.listing())

    def listing(self) -> Iterator[StoredBlob]:
        """See `Blobs`; the whole listing is one step."""
        self._scheduler().point()
        self._scheduler().touch("bytes", writes=False)
        yield from list(self._inner.listing())

    def begin(self) -> Upload:
        """See `Uploads`."""
        return self._inner.begin()

    def append(self, upload: Upload, chunks: Iterable[bytes]) -> Upload:
        """See `Uploads`."""
        self._step(upload.id, writes=True)
        with self._scheduler().whole():
            return self._inner.append(upload, chunks)

    def commit(self, upload: Upload, digest: Digest) -> int:
        """See `Uploads`."""
        self._step(digest, writes=True)
        self._scheduler().touch("bytes", writes=True)
        return self._inner.commit(upload, digest)

    def cancel(self, upload_id: str) -> None:
        """See `Uploads`."""
        self._step(upload_id, writes=True)
        self._inner.cancel(upload_id)

    def expire(self, before: datetime) -> tuple[str, ...]:
        """See `Uploads`."""
        return self._inner.expire(before)

    def growing_file(self, upload_id: str) -> Path | None:
        """See `Uploads`."""
        return self._inner.growing_file(upload_id)

    def put_derived(self, key: DerivedKey, content: bytes) -> None:
        """See `DerivedObjects`."""
        self._step(key, writes=True)
        self._inner.put_derived(key, content)

    def get_derived(self, key: DerivedKey) -> bytes | None:
        """See `DerivedObjects`."""
        self._step(key, writes=False)
        return self._inner.get_derived(key)

    def delete_derived(self, key: DerivedKey) -> None:
        """See `DerivedObjects`."""
        self._step(key, writes=True)
        self._inner.delete_derived(key)

    def derived(self) -> Iterator[DerivedKey]:
        """See `DerivedObjects`."""
        return self._inner.derived()

    def derived_listing(self) -> Iterator[StoredDerived]:
        """See `DerivedObjects`."""
        return self._inner.derived_listing()

    def check(self) -> None:
        """See `BlobStore`."""
        self._inner.check()
