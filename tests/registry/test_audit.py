"""The audit chain: what may not be changed, taken out or put in without being seen."""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from policy import canonical
from policy.errors import TrustError
from policy.model import Signed
from policy.statements import Statement
from registry.audit import GENESIS, MAX_NAME, MAX_TEXT, Audit, AuditReport, Event, Record, head, read, verify
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.errors import CatalogueError
from registry.reads import MAX_BATCH, MAX_WAITING, ReadLog
from tests.support.postgres import Postgres

NOW = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)


@pytest.fixture
def audit() -> Audit:
    ticks = iter(range(10_000))
    return Audit(lambda: NOW + timedelta(seconds=next(ticks)))


def _chain(catalogue: Catalogue, audit: Audit, length: int = 5) -> tuple[Record, ...]:
    with catalogue.write() as conn:
        for number in range(length):
            audit.append(
                conn, Event.STATE, principal="registry", subject=f"app@{number}", before="quarantined", after="denied"
            )
    with catalogue.read() as conn:
        return read(conn, after=0, limit=100)


def _no_keys(envelope: bytes) -> Signed[Statement]:
    raise TrustError("unknown-key", "checkpoint", "no key is trusted here")


def _verify(records: tuple[Record, ...], *checkpoints: bytes) -> AuditReport:
    return verify(records, checkpoints, verify_envelope=_no_keys, registry="registry.test")


def test_chain_links_from_the_first_record(catalogue: Catalogue, audit: Audit) -> None:
    records = _chain(catalogue, audit)
    assert [record.seq for record in records] == [1, 2, 3, 4, 5]
    assert records[0].previous == GENESIS
    assert all(later.previous == earlier.hash for earlier, later in itertools.pairwise(records))
    with catalogue.read() as conn:
        assert head(conn) == (5, records[-1].hash)
    assert _verify(records) == AuditReport(records=5, covered=0)


def test_record_travels_as_json(catalogue: Catalogue, audit: Audit) -> None:
    (record,) = _chain(catalogue, audit, 1)
    assert Record.from_json(dict(record.to_json()), what="record") == record


def test_rolled_back_change_leaves_no_record(catalogue: Catalogue, audit: Audit) -> None:
    def change() -> None:
        with catalogue.write() as conn:
            audit.append(conn, Event.TAG, principal="anna", subject="app:1")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        change()
    with catalogue.read() as conn:
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
    catalogue: Catalogue, audit: Audit, change: Callable[[tuple[Record, ...]], tuple[Record, ...]], codes: list[str]
) -> None:
    report = _verify(change(_chain(catalogue, audit)))
    assert not report.sound
    assert [problem.code for problem in report.problems] == codes


def test_checkpoint_that_nobody_believes_covers_nothing(catalogue: Catalogue, audit: Audit) -> None:
    report = _verify(_chain(catalogue, audit), b"{}")
    assert (report.covered, [problem.code for problem in report.problems]) == (0, ["bad-checkpoint"])


def test_long_and_broken_texts_are_recorded_bounded(catalogue: Catalogue, audit: Audit) -> None:
    with catalogue.write() as conn:
        audit.append(conn, Event.REFUSED, principal="x" * 10_000, subject="tag \udcff\0", after="y" * 10_000)
    with catalogue.read() as conn:
        (record,) = read(conn, after=0, limit=10)
    assert len(record.principal) == MAX_NAME
    assert len(record.after) == MAX_TEXT
    assert record.subject == "tag \\udcff\\x00"
    assert _verify((record,)).sound


def test_many_writers_make_one_chain(catalogue: Catalogue, audit: Audit) -> None:
    def work(number: int) -> None:
        for each in range(10):
            with catalogue.write() as conn:
                audit.append(conn, Event.TAG, principal=f"writer-{number}", subject=f"app:{each}")
                audit.append(conn, Event.PUSH, principal=f"writer-{number}", subject=f"app@{each}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with catalogue.read() as conn:
        records = read(conn, after=0, limit=1000)
    assert _verify(records) == AuditReport(records=80, covered=0)
    for first, second in zip(records[::2], records[1::2], strict=True):  # those of one transaction stay together
        assert (first.event, second.event, first.principal) == ("tag", "push", second.principal)


def test_a_transaction_that_has_recorded_something_holds_nobody_up_before_its_end(
    server: Postgres, audit: Audit
) -> None:
    url = server.database()
    catalogue = Catalogue(url)
    with catalogue.write() as slow:
        audit.append(slow, Event.PUSH, principal="slow", subject="app@1")
        with catalogue.write() as fast:
            audit.append(fast, Event.PUSH, principal="fast", subject="app@2")
    with catalogue.read() as conn:
        records = read(conn, after=0, limit=10)
    catalogue.close()
    server.drop(url)
    assert [record.principal for record in records] == ["fast", "slow"]
    assert _verify(records).sound


def test_reads_are_written_in_one_batch(catalogue: Catalogue, audit: Audit) -> None:
    written: list[int] = []
    done = threading.Event()

    def write(change: Callable[[Connection], None]) -> None:
        with catalogue.write() as conn:
            change(conn)
        with catalogue.read() as conn:
            written.append(len(conn.execute(select(schema.audit.c.seq)).all()))
        done.set()

    log = ReadLog(audit, lambda: NOW, write)
    for number in range(3):
        log.note(principal="host-1", source="127.0.0.1", subject=f"app@{number}")
    assert done.wait(30)
    assert written == [3]
    log.flush()
    assert written == [3]


def test_many_reads_are_batches_too(catalogue: Catalogue, audit: Audit) -> None:
    done = threading.Event()
    sizes: list[int] = []

    def write(change: Callable[[Connection], None]) -> None:
        with catalogue.write() as conn:
            change(conn)
        with catalogue.read() as conn:
            sizes.append(head(conn)[0])
        done.set()

    log = ReadLog(audit, lambda: NOW, write)
    for _ in range(2 * MAX_BATCH):
        log.note(principal="host-1", source="", subject="app:1")
    assert done.wait(30)
    log.flush()
    assert sizes == [MAX_BATCH, 2 * MAX_BATCH]


def test_no_more_is_read_than_can_be_recorded(catalogue: Catalogue, audit: Audit) -> None:
    broken = threading.Event()

    def write(change: Callable[[Connection], None]) -> None:
        if broken.is_set():
            raise CatalogueError("away")
        with catalogue.write() as conn:
            change(conn)

    log = ReadLog(audit, lambda: NOW, write)
    broken.set()
    for number in range(MAX_WAITING):
        log.note(principal="host-1", source="", subject=f"app:{number}")
    with pytest.raises(CatalogueError):
        log.note(principal="host-1", source="", subject="app:refused")
    assert log.waiting() == MAX_WAITING
    broken.clear()
    log.note(principal="host-1", source="", subject="app:last")
    log.flush()
    with catalogue.read() as conn:
        records = read(conn, after=0, limit=MAX_WAITING + 10)
    assert [record.subject for record in records] == [*(f"app:{number}" for number in range(MAX_WAITING)), "app:last"]
    assert _verify(records).sound


@given(*(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20) for _ in range(5)))
def test_the_hash_is_over_canonical_json(principal: str, source: str, subject: str, before: str, after: str) -> None:
    made = Record(
        seq=7,
        time=NOW,
        event="read",
        principal=principal,
        source=source,
        subject=subject,
        before=before,
        after=after,
        previous=GENESIS,
    ).sealed()
    members = made.to_json()
    assert members.pop("hash") == hashlib.sha256(canonical.encode(members)).hexdigest()
