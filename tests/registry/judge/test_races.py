"""Changes that arrive while a judgement is taken, and workers that meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from policy.model import State
from policy.seal import seal
from policy.statements import Withdrawal
from registry.audit import Event, read
from registry.catalogue import schema
from registry.judge.jobs import CLAIM_SECONDS
from tests.support.bench import Bench
from tests.support.images import BuiltImage, image

REPOSITORY = "team/app"


@pytest.fixture
def bench(tmp_path: Path, database: str) -> Iterator[Bench]:
    made = Bench(tmp_path, database)
    made.publish()
    made.settle()
    yield made
    made.close()


def _image(content: bytes = b"#!") -> BuiltImage:
    return image([{"bin/": b"", "bin/sh": content}])


def _once(bench: Bench, question: str, change: Callable[[], object]) -> None:
    """Make a change just before the signer is asked `question` for the first time from now on."""

    def before(asked: str) -> None:
        if asked == question:
            bench.signer.before = lambda _question: None
            change()

    bench.signer.before = before


def _was_ever_cleared(bench: Bench, built: BuiltImage) -> bool:
    with bench.catalogue.read() as conn:
        records = read(conn, after=0, limit=10_000)
    return any(
        record.event == Event.STATE and str(built.digest) in record.subject and record.after.startswith("cleared")
        for record in records
    )


def test_revocation_during_a_judgement_wins(bench: Bench) -> None:
    built = _image()
    bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob)
    bench.push(REPOSITORY, built, "1")
    _once(bench, "judge", lambda: bench.revoke(2, digests=(built.digest,)))
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.REVOKED
    assert not _was_ever_cleared(bench, built)
    assert bench.tag(REPOSITORY, "1").served is None


def test_withdrawal_during_a_judgement_wins(bench: Bench) -> None:
    built = _image()
    approval = bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob)
    bench.push(REPOSITORY, built, "1")
    withdrawal = seal(Withdrawal(statement=approval, reason="no", issued=bench.now), bench.ring.alice)
    _once(bench, "judge", lambda: bench.post(withdrawal))
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.DENIED
    assert not _was_ever_cleared(bench, built)


def test_approval_during_a_judgement_is_not_lost(bench: Bench) -> None:
    built = _image()
    bench.push(REPOSITORY, built, "1")
    _once(bench, "judge", lambda: bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob))
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.CLEARED


def test_tag_that_was_pushed_again_meanwhile_is_not_moved_to_the_older(bench: Bench) -> None:
    older, newer = _image(), _image(b"newer")
    bench.approve(REPOSITORY, older, "base", bench.ring.alice, bench.ring.bob)
    bench.push(REPOSITORY, older, "1")
    _once(bench, "judge", lambda: bench.push(REPOSITORY, newer, "1"))
    bench.settle()
    assert bench.state(REPOSITORY, older.digest) is State.CLEARED
    tag = bench.tag(REPOSITORY, "1")
    assert (tag.pushed, tag.served) == (newer.digest, None)


def test_two_workers_share_the_work(bench: Bench) -> None:
    built = [_image(b"#!%d" % number) for number in range(6)]
    for each in built:
        bench.approve(REPOSITORY, each, "base", bench.ring.alice, bench.ring.bob)
        bench.push(REPOSITORY, each)
    other = bench.new_worker()
    while not (bench.worker.idle() and other.idle()):
        bench.worker.step(0.01)
        other.step(0.01)
    other.close()
    assert {bench.state(REPOSITORY, each.digest) for each in built} == {State.CLEARED}


def test_worker_that_lost_its_claim_writes_nothing(bench: Bench) -> None:
    built = _image()
    bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    bench.push(REPOSITORY, built, "1")
    other = bench.new_worker()

    def sleep_too_long() -> None:
        bench.pass_time(timedelta(seconds=CLAIM_SECONDS + 5))
        bench.settle(other)

    _once(bench, "judge", sleep_too_long)
    bench.settle()
    other.close()
    assert bench.state(REPOSITORY, built.digest) is State.CLEARED
    with bench.catalogue.read() as conn:
        decisions = conn.scalar(select(func.count()).select_from(schema.decisions))
        cleared = [
            record
            for record in read(conn, after=0, limit=10_000)
            if record.event == Event.STATE and record.after.startswith("cleared")
        ]
    assert (decisions, len(cleared)) == (1, 1)


def test_served_tag_is_signed_for_the_last_of_two_clearances(bench: Bench) -> None:
    one, other = _image(), _image(b"other")
    for each in (one, other):
        bench.approve(REPOSITORY, each, "base", bench.ring.alice, bench.ring.bob)
        bench.push(REPOSITORY, each, "1")
    bench.settle()
    assert bench.tag(REPOSITORY, "1").served == other.digest
