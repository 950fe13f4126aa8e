"""R12: the collector beside pushes, mounts, moved tags and deletions, in every order that can make a difference.

Clients are the registry's own handlers, the collector is its own; both are stopped before every transaction and every
call of the store. The same is done with one of them killed after each of its steps, with leases that end at once, with
several clients and collectors in random orders (`PRATIQUE_SEED` chooses others), and with collectors and clients that
leave one rule of the protocol out: those lose blobs, and must be caught.

Where one dies, each step of its is tried in a few random orders of the others, and where leases end, a few random
orders; `PRATIQUE_SCHEDULES=all` goes through all orders instead (thousands). Of clients whose orders are all gone
through, of steps, and of random orders, a seventh is tried each day (`tests/support/turns.py`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import Connection, select, update

from registry.catalogue.blobs import blob_size
from registry.catalogue.database import insert_new
from registry.catalogue.leases import Mark
from registry.catalogue.schema import blobs, repositories, repository_blobs
from registry.collect.blobs import Doomed, delete, free_blobs, release_blobs
from registry.collect.orphans import sweep
from registry.collect.report import Reason
from registry.collect.run import Run
from tests.registry.collect.site import RefusedError, Site, Thing, site
from tests.support.scheduler import ScheduleError, Scheduler, explore, kill_at_each_step, replay, run_randomly
from tests.support.turns import taken

A, B, C = "team/a", "team/b", "team/c"
THING, OTHER = Thing(b"one"), Thing(b"other")
HOUR = timedelta(hours=1)
"""More than the grace."""

SEED = int(os.environ.get("PRATIQUE_SEED", "0"))
RANDOM = 60
"""Random schedules of many actors."""

ALL = os.environ.get("PRATIQUE_SCHEDULES") == "all"
ORDERS = 2
"""Random orders in which somebody dies after each of their steps."""

Client = Callable[[], None]
Prepare = Callable[[Site], Client]
"""Brings the site to a state, and returns what a client does then."""

Collects = Callable[[Run], None]


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    """One site for all schedules."""
    with site() as made:
        yield made


# ---- what clients do ------------------------------------------------------------------------------------------------


def push_the_same_digest(at: Site) -> Client:
    """Its blob is garbage of another repository by now."""
    at.expect(at.push_blob(A, THING.content))
    return lambda: at.expect(at.push(B, "1", THING))


def finish_an_upload(at: Site) -> Client:
    """Its session has the bytes already."""
    at.expect(at.push_blob(A, THING.content))
    location = at.begin_upload(B, THING.content)

    def finish() -> None:
        at.expect(at.finish_upload(location, THING.content))
        at.expect(at.put_manifest(B, "1", THING))

    return finish


def mount_it(at: Site) -> Client:
    """From where it is garbage."""
    at.expect(at.push_blob(A, THING.content))

    def mount() -> None:
        if at.mount(A, B, THING.blob) == 201:
            at.expect(at.put_manifest(B, "1", THING))

    return mount


def skip_what_is_there(at: Site) -> Client:
    """As docker does: ask for the blob, and do not send it if it is there."""
    at.expect(at.push_blob(A, THING.content))

    def skip() -> None:
        if at.has_blob(A, THING.blob):
            at.expect(at.put_manifest(A, "1", THING))

    return skip


def push_the_manifest_alone(at: Site) -> Client:
    """The grace of its blob was over before: it is refused, or whole."""
    at.expect(at.push_blob(A, THING.content))

    def push() -> None:
        assert at.put_manifest(A, "1", THING) in {201, 400}

    return push


def move_the_tag_and_delete(at: Site) -> Client:
    """Then push again what was just deleted, whose blob was needed a moment ago."""
    at.expect(at.push(A, "1", THING))
    at.expect(at.push_blob(A, OTHER.content))

    def move() -> None:
        if at.put_manifest(A, "1", OTHER) == 201:
            assert at.delete_manifest(A, THING.manifest.digest) == 202
            at.expect(at.put_manifest(A, "2", THING))

    return move


def push_what_somebody_left(at: Site) -> Client:
    """Bytes without a row: whoever stored them died before they were recorded."""
    at.files.put(THING.blob, [THING.content])
    return lambda: at.expect(at.push(B, "1", THING))


CLIENTS = (
    push_the_same_digest,
    finish_an_upload,
    mount_it,
    skip_what_is_there,
    push_the_manifest_alone,
    move_the_tag_and_delete,
    push_what_somebody_left,
)


def collector(run: Run) -> None:
    """The collector, as far as it takes blobs away."""
    for step in (release_blobs, free_blobs, sweep):
        step(run)


def refusable(client: Client) -> Client:
    """A client that gives up where it may be refused."""

    def act() -> None:
        with suppress(RefusedError):
            client()

    return act


def beside(
    at: Site, prepare: Prepare, collects: Collects, *, killed: str = "", tick: timedelta = timedelta(seconds=1)
) -> Callable[[Scheduler], Client]:
    """A client, and a collector for which all that was not touched since is old; perhaps one of them dies."""

    def scenario(scheduler: Scheduler) -> Callable[[], None]:
        at.begin(scheduler)
        client = prepare(at)
        at.elapsed += HOUR
        at.tick = tick
        at.collectors_die = killed == "collector"
        run = at.run()
        scheduler.add("client", refusable(client))
        scheduler.add("collector", lambda: collects(run))
        if killed:
            scheduler.add_death(killed)
        return at.check

    return scenario


@pytest.mark.parametrize("prepare", tuple(taken(CLIENTS)))
def test_nothing_that_was_acknowledged_is_lost(here: Site, prepare: Prepare) -> None:
    assert explore(beside(here, prepare, collector)) > 3


@pytest.mark.parametrize("killed", ["client", "collector"])
@pytest.mark.parametrize("prepare", CLIENTS)
def test_killed_after_each_step(here: Site, prepare: Prepare, killed: str) -> None:
    scenario = beside(here, prepare, collector, killed=killed)
    if ALL:
        assert explore(scenario) > 5
    else:
        assert kill_at_each_step(scenario, killed, seeds=range(SEED, SEED + ORDERS)) > 2 * ORDERS


@pytest.mark.parametrize("prepare", CLIENTS)
def test_leases_that_end_while_they_are_held(here: Site, prepare: Prepare) -> None:
    scenario = beside(here, prepare, collector, tick=HOUR)
    if ALL:
        assert explore(scenario) > 3
    else:
        for number in taken(range(RANDOM)):
            run_randomly(scenario, seed=SEED + number)


# ---- many actors ----------------------------------------------------------------------------------------------------


def crowd(at: Site, *, killed: bool) -> Callable[[Scheduler], Client]:
    """Three clients that get in each other's way, and two collectors, one of which may die."""

    def scenario(scheduler: Scheduler) -> Callable[[], None]:
        at.begin(scheduler)
        at.expect(at.push(A, "1", THING))
        at.expect(at.push_blob(A, OTHER.content))
        at.files.put(Thing(b"left").blob, [b"left"])
        at.elapsed += HOUR
        at.collectors_die = killed
        runs = [at.run(name) for name in ("run", "second")]

        def pushes() -> None:
            at.expect(at.push(B, "1", OTHER))
            at.expect(at.push(B, "1", Thing(b"left")))

        def mounts() -> None:
            for thing in (THING, OTHER):
                if at.mount(A, C, thing.blob) == 201:
                    at.expect(at.put_manifest(C, "1", thing))

        def moves() -> None:
            at.expect(at.push(A, "1", OTHER))
            at.delete_manifest(A, THING.manifest.digest)
            at.delete_tag(A, "1")

        for client in (pushes, mounts, moves):
            scheduler.add(client.__name__, refusable(client))
        for run in runs:
            scheduler.add(f"collector {run.id}", partial(collector, run))
        if killed:
            scheduler.add_death("collector run")

        def check() -> None:
            at.end("second")
            at.check()

        return check

    return scenario


@pytest.mark.parametrize("killed", [False, True])
def test_several_clients_and_collectors_in_random_orders(here: Site, killed: bool) -> None:
    for number in taken(range(RANDOM)):
        run_randomly(crowd(here, killed=killed), seed=SEED + number)


# ---- that the tests can fail ----------------------------------------------------------------------------------------


def collector_that_does_not_look_again(run: Run) -> None:
    """What it found is deleted, whoever came meanwhile."""
    release_blobs(run)

    def mark(conn: Connection, blob: Doomed) -> Mark:
        conn.execute(
            update(blobs).where(blobs.c.digest == blob.digest).values(deleting=run.clock(), deleting_by=run.attempt)
        )
        return Mark.MARKED

    delete(run, unneeded(run), mark)


def collector_that_looks_once(run: Run) -> None:
    """What no manifest needs is looked up, then it leaves its repositories, then it is deleted."""
    with run.catalogue.read() as conn:
        rows = conn.execute(select(blobs.c.digest, blobs.c.size)).all()
    release_blobs(run)
    doomed = [Doomed(digest=row.digest, size=row.size, reason=Reason.NOT_NEEDED) for row in rows]

    def mark(conn: Connection, blob: Doomed) -> Mark:
        this = update(blobs).where(blobs.c.digest == blob.digest)
        conn.execute(this.values(deleting=run.clock(), deleting_by=run.attempt))
        return Mark.MARKED

    delete(run, doomed, mark)


def collector_that_does_not_mark(run: Run) -> None:
    """As distribution's: what nobody needs is looked up, then deleted, then forgotten."""
    release_blobs(run)
    for blob in unneeded(run):
        run.store.delete(blob.digest)
        with run.catalogue.write() as conn:
            conn.execute(blobs.delete().where(blobs.c.digest == blob.digest))


def unneeded(run: Run) -> list[Doomed]:
    """Blobs that no repository has right now."""
    with run.catalogue.read() as conn:
        held = select(repository_blobs.c.digest)
        rows = conn.execute(select(blobs.c.digest, blobs.c.size).where(blobs.c.digest.not_in(held))).all()
    return [Doomed(digest=row.digest, size=row.size, reason=Reason.IN_NO_REPOSITORY) for row in rows]


def push_without_a_lease(at: Site) -> Client:
    """Store, then record: as it was before there were leases."""
    at.expect(at.push_blob(A, THING.content))

    def push() -> None:
        at.store.put(THING.blob, [THING.content])
        record(at, B)
        at.expect(at.put_manifest(B, "1", THING))

    return push


def mount_in_two_transactions(at: Site) -> Client:
    """Look, then record: as it was before."""
    at.expect(at.push_blob(A, THING.content))

    def mount() -> None:
        with at.catalogue.read() as conn:
            found = blob_size(conn, A, THING.blob)
        if found is not None:
            record(at, B)
            at.expect(at.put_manifest(B, "1", THING))

    return mount


def record(at: Site, repository: str) -> None:
    """A blob and its place, without asking whether it is being deleted."""
    now = at.clock()
    with at.catalogue.write() as conn:
        insert_new(conn, repositories, name=repository, created=now, created_by="pusher")
        insert_new(conn, blobs, digest=THING.blob, size=len(THING.content), created=now)
        insert_new(conn, repository_blobs, repository=repository, digest=THING.blob, added=now, added_by="pusher")


@pytest.mark.parametrize(
    ("prepare", "collects"),
    [
        (push_the_same_digest, collector_that_does_not_look_again),
        (mount_it, collector_that_looks_once),
        (push_the_same_digest, collector_that_does_not_mark),
        (finish_an_upload, collector_that_does_not_mark),
        (push_without_a_lease, collector),
        (mount_in_two_transactions, collector),
    ],
)
def test_who_leaves_a_rule_out_is_caught(here: Site, prepare: Prepare, collects: Collects) -> None:
    scenario = beside(here, prepare, collects)
    with pytest.raises(ScheduleError) as caught:
        explore(scenario)
    with pytest.raises(ScheduleError):
        replay(scenario, caught.value.schedule)


def test_who_takes_over_from_a_run_that_lives_is_caught(here: Site) -> None:
    """Which is why a run is taken for dead only if it is, or was silent for far longer than any deletion takes."""

    def scenario(scheduler: Scheduler) -> Callable[[], None]:
        here.begin(scheduler)
        here.expect(here.push_blob(A, THING.content))
        here.elapsed += HOUR
        runs = [here.run(name) for name in ("run", "second")]
        here.end("run")
        scheduler.add("client", lambda: here.expect(here.push(B, "1", THING)))
        for run in runs:
            scheduler.add(f"collector {run.id}", partial(free_blobs, run))
        with here.plain.write() as conn:
            conn.execute(repository_blobs.delete())

        def check() -> None:
            here.end("second")
            here.check()

        return check

    with pytest.raises(ScheduleError):
        explore(scenario)


def test_the_schedules_that_are_left_out_make_no_difference(here: Site) -> None:
    def outcomes(*, reduce: bool) -> tuple[int, set[tuple[object, ...]]]:
        seen: set[tuple[object, ...]] = set()

        def scenario(scheduler: Scheduler) -> Callable[[], None]:
            check = beside(here, push_the_manifest_alone, collector)(scheduler)

            def note() -> None:
                seen.add((len(here.promised), frozenset(here.files.digests())))
                check()

            return note

        return explore(scenario, reduce=reduce), seen

    few, found = outcomes(reduce=True)
    many, all_there_are = outcomes(reduce=False)
    assert found == all_there_are
    assert len(found) > 1
    assert few < many
