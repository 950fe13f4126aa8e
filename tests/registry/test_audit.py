"""The audit chain: what may not be changed, taken out or put in without being seen."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Engine, create_engine, select
from sqlalchemy.pool import StaticPool

from policy.errors import TrustError
from policy.model import Signed
from policy.statements import Statement
from registry.audit import GENESIS, MAX_TEXT, Audit, AuditReport, Event, ReadLog, Record, head, read, verify
from registry.catalogue import schema

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    schema.metadata.create_all(made)
    yield made
    made.dispose()


@pytest.fixture
def audit() -> Audit:
    ticks = iter(range(10_000))
    return Audit(lambda: NOW + timedelta(seconds=next(ticks)))


def _chain(engine: Engine, audit: Audit, length: int = 5) -> tuple[Record, ...]:
    with engine.begin() as conn:
        for number in range(length):
            audit.append(
                conn, Event.STATE, principal="registry", subject=f"app@{number}", before="quarantined", after="denied"
            )
    with engine.connect() as conn:
        return read(conn, after=0, limit=100)


def _no_keys(envelope: bytes) -> Signed[Statement]:
    raise TrustError("unknown-key", "checkpoint", "no key is trusted here")


def _verify(records: tuple[Record, ...], *checkpoints: bytes) -> AuditReport:
    return verify(records, checkpoints, verify_envelope=_no_keys, registry="registry.test")


def test_chain_links_from_the_first_record(engine: Engine, audit: Audit) -> None:
    records = _chain(engine, audit)
    assert [record.seq for record in records] == [1, 2, 3, 4, 5]
    assert records[0].previous == GENESIS
    assert all(later.previous == earlier.hash for earlier, later in itertools.pairwise(records))
    with engine.connect() as conn:
        assert head(conn) == (5, records[-1].hash)
    assert _verify(records) == AuditReport(records=5, covered=0)


def test_record_travels_as_json(engine: Engine, audit: Audit) -> None:
    (record,) = _chain(engine, audit, 1)
    assert Record.from_json(dict(record.to_json()), what="record") == record


def test_rolled_back_change_leaves_no_record(engine: Engine, audit: Audit) -> None:
    with engine.connect() as conn:
        audit.append(conn, Event.TAG, principal="anna", subject="app:1")
        conn.rollback()
    with engine.connect() as conn:
        assert head(conn) == (0, GENESIS)


@pytest.mark.parametrize(
    ("change", "codes"),
    [
        (lambda records: (records[0], replace(records[1], after="cleared"), *records[2:]), ["changed"]),
        (lambda records: (*records[:2], *records[3:]), ["gap", "broken-link"]),
        (lambda records: records[1:], ["gap", "broken-link"]),
        (lambda records: (records[1], records[0], *records[2:]), ["gap", "broken-link"] * 3),
        (
            lambda records: (replace(records[0], principal="mallory").sealed(), *records[1:]),
            ["broken-link"],
        ),
    ],
    ids=["changed", "taken out", "beginning taken away", "swapped", "sealed again"],
)
def test_tampered_chain_is_seen(
    engine: Engine, audit: Audit, change: Callable[[tuple[Record, ...]], tuple[Record, ...]], codes: list[str]
) -> None:
    report = _verify(change(_chain(engine, audit)))
    assert not report.sound
    assert [problem.code for problem in report.problems] == codes


def test_checkpoint_that_nobody_believes_covers_nothing(engine: Engine, audit: Audit) -> None:
    report = _verify(_chain(engine, audit), b"{}")
    assert (report.covered, [problem.code for problem in report.problems]) == (0, ["bad-checkpoint"])


def test_long_and_broken_texts_are_recorded_bounded(engine: Engine, audit: Audit) -> None:
    with engine.begin() as conn:
        record = audit.append(conn, Event.REFUSED, principal="x" * 10_000, subject="tag \udcff")
    assert len(record.principal) == MAX_TEXT
    assert record.subject == "tag \\udcff"


def test_reads_are_written_in_one_batch(engine: Engine, audit: Audit) -> None:
    written: list[int] = []
    done = threading.Event()

    def write(change: Callable[[Connection], None]) -> None:
        with engine.begin() as conn:
            change(conn)
            written.append(len(conn.execute(select(schema.audit.c.seq)).all()))
        done.set()

    log = ReadLog(audit, lambda: NOW, write)
    for number in range(3):
        log.note(principal="host-1", source="127.0.0.1", subject=f"app@{number}")
    assert done.wait(30)
    assert written == [3]
    log.flush()
    assert written == [3]


def test_many_reads_do_not_wait_for_the_batch(engine: Engine, audit: Audit) -> None:
    sizes: list[int] = []

    def write(change: Callable[[Connection], None]) -> None:
        with engine.begin() as conn:
            change(conn)
            sizes.append(head(conn)[0])

    log = ReadLog(audit, lambda: NOW, write)
    for _ in range(1000):
        log.note(principal="host-1", source="", subject="app:1")
    assert sizes == [1000]
