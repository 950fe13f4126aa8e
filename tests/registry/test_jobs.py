"""The durable queue: nothing is lost with a killed worker, and of two workers one writes."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest

from registry.catalogue.database import Catalogue
from registry.judge import jobs
from registry.judge.jobs import ClaimLostError, Job, JobKind, Priority

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
LATER = NOW + timedelta(days=3)


def _enqueue(catalogue: Catalogue, subject: str, priority: int = Priority.PUSH) -> None:
    with catalogue.write() as conn:
        jobs.enqueue(conn, JobKind.JUDGE, subject, now=NOW, priority=priority)


def _claim(catalogue: Catalogue, token: str, at: datetime = NOW) -> Job | None:
    with catalogue.write() as conn:
        return jobs.claim(conn, token=token, now=at, kinds=jobs.JUDGED)


def _must(job: Job | None) -> Job:
    assert job is not None
    return job


def test_most_urgent_first_and_each_once(catalogue: Catalogue) -> None:
    _enqueue(catalogue, "renewed", Priority.RENEWAL)
    _enqueue(catalogue, "pushed")
    _enqueue(catalogue, "revoked", Priority.URGENT)
    taken = [_must(_claim(catalogue, token)).subject for token in ("a", "b", "c")]
    assert taken == ["revoked", "pushed", "renewed"]
    assert _claim(catalogue, "d") is None


def test_the_date_of_a_list_waits_for_no_judgement(catalogue: Catalogue) -> None:
    _enqueue(catalogue, "of the list before", Priority.URGENT)
    with catalogue.write() as conn:
        jobs.enqueue(conn, JobKind.LIST, now=NOW + timedelta(seconds=1))
    date = _must(_claim(catalogue, "a", NOW + timedelta(seconds=1)))
    assert date.kind is JobKind.LIST
    with catalogue.write() as conn:
        jobs.finish(conn, date, now=NOW, again_at=NOW + timedelta(hours=1))
    # And when it is dated anew, with as much to do as ever.
    assert _must(_claim(catalogue, "b", NOW + timedelta(hours=1))).kind is JobKind.LIST


def test_two_workers_never_hold_one_job(catalogue: Catalogue) -> None:
    for number in range(20):
        _enqueue(catalogue, f"app@{number}")
    taken: list[str] = []

    def work(name: str) -> None:
        count = 0
        while (job := _claim(catalogue, f"{name}-{count}")) is not None:
            taken.append(job.subject)
            count += 1

    workers = [threading.Thread(target=work, args=(name,)) for name in ("a", "b")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sorted(taken) == sorted(f"app@{number}" for number in range(20))


def test_job_of_a_killed_worker_is_taken_again_and_the_first_cannot_write(catalogue: Catalogue) -> None:
    _enqueue(catalogue, "app@1")
    first = _must(_claim(catalogue, "first"))
    assert _claim(catalogue, "second") is None
    after = NOW + timedelta(seconds=jobs.CLAIM_SECONDS + 1)
    second = _must(_claim(catalogue, "second", after))
    assert (second.id, second.attempts) == (first.id, 2)
    with pytest.raises(ClaimLostError), catalogue.write() as conn:
        jobs.finish(conn, first, now=after)
    with catalogue.write() as conn:
        jobs.finish(conn, second, now=after)
    assert _claim(catalogue, "third", LATER) is None


def test_job_wanted_again_while_it_is_done_is_done_again(catalogue: Catalogue) -> None:
    _enqueue(catalogue, "app@1")
    job = _must(_claim(catalogue, "a"))
    _enqueue(catalogue, "app@1")
    with catalogue.write() as conn:
        jobs.finish(conn, job, now=NOW, again_at=LATER)
    assert _must(_claim(catalogue, "b")).subject == "app@1"


def test_renewal_waits_for_its_time_and_a_change_brings_it_forward(catalogue: Catalogue) -> None:
    _enqueue(catalogue, "app@1")
    with catalogue.write() as conn:
        jobs.finish(conn, _must(jobs.claim(conn, token="a", now=NOW, kinds=jobs.JUDGED)), now=NOW, again_at=LATER)
    assert _claim(catalogue, "b") is None
    with catalogue.read() as conn:
        assert jobs.next_due(conn) == LATER
        assert not jobs.is_due(conn, JobKind.JUDGE, "app@1", now=NOW)
    _enqueue(catalogue, "app@1", Priority.CHANGE)
    assert _must(_claim(catalogue, "c")).subject == "app@1"


def test_released_job_keeps_its_reason_and_count(catalogue: Catalogue) -> None:
    _enqueue(catalogue, "app@1")
    job = _must(_claim(catalogue, "a"))
    with catalogue.write() as conn:
        jobs.renew(conn, job, now=NOW)
        jobs.release(conn, job, at=NOW + timedelta(seconds=5), error="signer: no answer")
    assert _claim(catalogue, "b") is None
    assert _must(_claim(catalogue, "c", NOW + timedelta(seconds=5))).attempts == 2


def test_standing_job_is_made_once(catalogue: Catalogue) -> None:
    for _ in range(2):
        with catalogue.write() as conn:
            jobs.enqueue_new(conn, JobKind.LIST, now=NOW)
    assert _must(_claim(catalogue, "a")).wanted == 1
