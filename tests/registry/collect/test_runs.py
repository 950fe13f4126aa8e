"""Runs as rows, and the judge that sees to them: one at a time, taken up where a collector died, begun in time."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from sqlalchemy import select

from ocispec.digest import Digest
from registry.access import REGISTRY
from registry.catalogue import schema
from registry.catalogue.collections import (
    KEPT,
    LISTED,
    MAX_ATTEMPTS,
    Begun,
    Collected,
    Collection,
    Progress,
    add_collected,
    begin_collection,
    bury_collections,
    end_collection,
    find_collection,
    list_collected,
    list_collections,
    renew_collection,
    request_collection,
)
from registry.catalogue.database import Catalogue
from registry.collect.collector import collect_now
from registry.collect.run import SILENCE, silence_of
from registry.errors import CollectionLostError
from registry.judge import jobs
from registry.judge.collecting import Collecting, enqueue_collection
from registry.judge.jobs import Job, JobKind
from registry.settings import load
from registry.settings_collect import CollectSettings
from registry.store.files import FilesStore

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def request(catalogue: Catalogue, *, now: datetime = NOW) -> str:
    """Ask for a run."""
    with catalogue.write() as conn:
        return request_collection(conn, by="admin", dry_run=False, now=now)


def begin(catalogue: Catalogue, run: str, *, worker: str = "one", now: datetime = NOW) -> Begun | datetime:
    """Begin a run that is heard of for a minute."""
    with catalogue.write() as conn:
        return begin_collection(conn, run, worker=worker, now=now, until=now + MINUTE)


def begun(catalogue: Catalogue, run: str, *, worker: str = "one", now: datetime = NOW) -> str:
    """Begin a run; the attempt."""
    found = begin(catalogue, run, worker=worker, now=now)
    assert isinstance(found, Begun)
    return found.attempt


def found(catalogue: Catalogue, run: str) -> Collection:
    """The run."""
    with catalogue.read() as conn:
        known = find_collection(conn, run)
    assert known is not None
    return known


def test_one_run_goes_on_at_a_time(catalogue: Catalogue) -> None:
    first, second = request(catalogue), request(catalogue)
    attempt = begun(catalogue, first)
    assert begin(catalogue, second, worker="two") == NOW + MINUTE
    assert begin(catalogue, first, worker="two") == NOW + MINUTE
    with catalogue.write() as conn:
        end_collection(conn, first, attempt, state=Progress.DONE, report="{}", now=NOW)
    assert isinstance(begin(catalogue, second, worker="two"), Begun)


def test_a_run_of_which_nothing_is_heard_is_taken_up_and_its_first_attempt_is_over(catalogue: Catalogue) -> None:
    run = request(catalogue)
    first = begun(catalogue, run)
    later = NOW + 2 * MINUTE
    second = begun(catalogue, run, worker="two", now=later)
    assert second != first
    assert found(catalogue, run).attempts == 2
    for attempt in (first, "none"):
        with pytest.raises(CollectionLostError), catalogue.write() as conn:
            renew_collection(conn, run, attempt, until=later + MINUTE)
        with pytest.raises(CollectionLostError), catalogue.write() as conn:
            end_collection(conn, run, attempt, state=Progress.DONE, report="{}", now=later)
    with catalogue.write() as conn:
        renew_collection(conn, run, second, until=later + MINUTE)


def test_another_run_may_begin_when_the_first_is_silent_which_then_waits(catalogue: Catalogue) -> None:
    first, second = request(catalogue), request(catalogue)
    begun(catalogue, first)
    begun(catalogue, second, worker="two", now=NOW + 2 * MINUTE)
    assert found(catalogue, first).state is Progress.WAITING


def test_a_run_that_kills_its_collectors_is_given_up(catalogue: Catalogue) -> None:
    run = request(catalogue)
    for _ in range(MAX_ATTEMPTS):
        begun(catalogue, run)
        with catalogue.write() as conn:
            bury_collections(conn, "one", now=NOW)
    assert found(catalogue, run).state is Progress.FAILED
    with pytest.raises(CollectionLostError):
        begin(catalogue, run)


def test_old_runs_and_their_lists_are_forgotten(catalogue: Catalogue) -> None:
    runs = []
    for number in range(KEPT + 2):
        run = request(catalogue, now=NOW + number * MINUTE)
        attempt = begun(catalogue, run, now=NOW + number * MINUTE)
        with catalogue.write() as conn:
            add_collected(conn, run, 0, [Collected("orphan", "x", 1, "")])
            end_collection(conn, run, attempt, state=Progress.DONE, report="{}", now=NOW)
        runs.append(run)
    with catalogue.read() as conn:
        assert [each.id for each in list_collections(conn, 1000)] == runs[: -KEPT - 1 : -1]
        listed = set(conn.scalars(select(schema.collected.c.run)))
        assert list_collected(conn, runs[-1], after=0, limit=10) == [(1, Collected("orphan", "x", 1, ""))]
    assert listed == set(runs[-LISTED:])


def test_silence_is_far_longer_than_a_deletion(catalogue: Catalogue) -> None:
    assert silence_of(0) == SILENCE
    assert silence_of(3600) > timedelta(seconds=2 * 3600)


# ---- the judge ------------------------------------------------------------------------------------------------------


class SlowStore(FilesStore):
    """Deletes nothing before it is too late."""

    def delete(self, digest: Digest) -> bool:
        """See `Blobs`."""
        time.sleep(60)
        return super().delete(digest)


class Judge:
    """The part of a judge that collects."""

    def __init__(self, database: str, catalogue: Catalogue, folder: Path, *, interval: int = 0) -> None:
        """On a database; files in the folder."""
        path = folder / "registry.yaml"
        collect = {"grace": 0, "interval": interval}
        members = {"name": "localhost:5000", "data": str(folder / "data"), "catalogue": database, "collect": collect}
        path.write_text(yaml.safe_dump(members))
        self.catalogue, self.now = catalogue, NOW
        settings = load(path)
        self.store = FilesStore(settings.store_folder)
        self.slow = SlowStore(settings.store_folder)
        self.collecting = Collecting(settings=settings, store=self.store, catalogue=catalogue, clock=lambda: self.now)

    def prepare(self) -> None:
        """As at the judge's start."""
        with self.catalogue.write() as conn:
            jobs.free_claims_of(conn, "judge")
            self.collecting.prepare(conn, "judge")

    def claim(self) -> Job | None:
        """The next job."""
        with self.catalogue.write() as conn:
            return jobs.claim(conn, token=f"judge:{time.monotonic_ns()}", now=self.now, kinds={JobKind.COLLECT})

    def take(self) -> None:
        """Do the next job."""
        job = self.claim()
        assert job is not None
        self.collecting.take(job, "judge")

    def ask(self) -> str:
        """Ask for a run."""
        with self.catalogue.write() as conn:
            return enqueue_collection(conn, by="admin", dry_run=False, now=self.now)

    def finish(self) -> None:
        """Wait for the child."""
        while self.collecting.busy:
            self.collecting.step("judge")
            time.sleep(0.01)

    def loose(self, content: bytes) -> Digest:
        """A blob that nothing needs."""
        digest = Digest.of(content)
        self.store.put(digest, [content])
        with self.catalogue.write() as conn:
            conn.execute(schema.blobs.insert().values(digest=digest, size=len(content), created=NOW))
        return digest


@pytest.fixture
def judge(database: str, catalogue: Catalogue, tmp_path: Path) -> Iterator[Judge]:
    """One, whose child does not outlive the test."""
    made = Judge(database, catalogue, tmp_path)
    yield made
    made.collecting.close("judge")


def test_a_run_that_is_asked_for_is_done_by_a_child(judge: Judge) -> None:
    digest, run = judge.loose(b"loose"), judge.ask()
    judge.take()
    assert judge.collecting.busy
    judge.finish()
    assert found(judge.catalogue, run).state is Progress.DONE
    assert judge.store.size(digest) is None
    assert judge.claim() is None


def test_a_child_that_dies_leaves_what_the_next_one_finishes(judge: Judge) -> None:
    digest, run = judge.loose(b"loose"), judge.ask()
    judge.collecting.store = judge.slow
    judge.take()
    _until_marked(judge.catalogue, digest)
    child = judge.collecting._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)
    judge.finish()
    assert found(judge.catalogue, run).state is Progress.WAITING
    judge.collecting.store, judge.now = judge.store, NOW + MINUTE
    judge.take()
    judge.finish()
    after = found(judge.catalogue, run)
    assert (after.state, after.attempts) == (Progress.DONE, 2)
    assert judge.store.size(digest) is None
    assert judge.claim() is None


def test_a_judge_that_dies_has_its_run_taken_up_by_its_successor(judge: Judge) -> None:
    digest, run = judge.loose(b"loose"), judge.ask()
    judge.collecting.store = judge.slow
    judge.take()
    _until_marked(judge.catalogue, digest)
    child = judge.collecting._child
    assert child is not None
    os.kill(child.pid, signal.SIGKILL)  # with its parent, as the kernel does
    os.waitpid(child.pid, 0)
    judge.collecting._child = None
    judge.collecting.store = judge.store
    judge.prepare()
    judge.take()
    judge.finish()
    assert found(judge.catalogue, run).state is Progress.DONE
    assert judge.store.size(digest) is None


def test_a_run_waits_while_another_goes_on(judge: Judge) -> None:
    digest, first, second = judge.loose(b"loose"), judge.ask(), judge.ask()
    judge.collecting.store = judge.slow
    judge.take()
    _until_marked(judge.catalogue, digest)
    other = Collecting(
        settings=judge.collecting.settings, store=judge.store, catalogue=judge.catalogue, clock=lambda: judge.now
    )
    job = judge.claim()
    assert job is not None
    assert job.subject == second
    other.take(job, "other")
    assert not other.busy
    assert {found(judge.catalogue, run).state for run in (first, second)} == {Progress.RUNNING, Progress.WAITING}
    with pytest.raises(CollectionLostError):
        collect_now(judge.catalogue, judge.store, CollectSettings(), clock=lambda: judge.now)
    judge.now = NOW + MINUTE
    assert judge.claim() is not None


def test_runs_by_schedule(database: str, catalogue: Catalogue, tmp_path: Path) -> None:
    judge = Judge(database, catalogue, tmp_path, interval=3600)
    judge.prepare()
    assert judge.claim() is None
    judge.now = NOW + timedelta(minutes=59)
    judge.prepare()  # a restart does not put it off
    assert judge.claim() is None
    judge.now = NOW + timedelta(minutes=60)
    judge.take()
    judge.take()
    judge.finish()
    with catalogue.read() as conn:
        (run,) = list_collections(conn, 10)
    assert (run.requested_by, run.state) == (REGISTRY.name, Progress.DONE)
    assert judge.claim() is None
    judge.now = NOW + timedelta(minutes=120)
    assert judge.claim() is not None


def test_without_an_interval_nothing_runs_by_itself(database: str, catalogue: Catalogue, tmp_path: Path) -> None:
    Judge(database, catalogue, tmp_path, interval=3600).prepare()
    judge = Judge(database, catalogue, tmp_path)
    judge.prepare()
    judge.now = NOW + timedelta(days=9)
    assert judge.claim() is None


def _until_marked(catalogue: Catalogue, digest: Digest) -> None:
    """The collector is about to delete a blob."""
    deadline = time.monotonic() + 30
    while True:
        with catalogue.read() as conn:
            if conn.scalar(select(schema.blobs.c.deleting).where(schema.blobs.c.digest == digest)) is not None:
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)
