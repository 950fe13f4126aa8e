"""What a run costs grows with what there is, and no faster: counted, not timed.

On SQLite in steps of its virtual machine, on PostgreSQL in rows that were fetched; and each statement's plan is looked
at, so that no table is gone through once for each row of another.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from registry.catalogue.database import Catalogue
from registry.collect.collector import collect_now
from registry.collect.report import Reason
from registry.collect.run import Run
from registry.settings_collect import CollectSettings
from registry.store.files import FilesStore
from tests.registry.collect.filled import GARBAGE_EVERY, fill
from tests.support.postgres import Postgres

FEW, MANY = 600, 2400
MORE_THAN_LINEAR = 1.25
"""So much more than MANY / FEW times the cost is too much."""

NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(days=10)
"""Files are as old as they are."""

LONG_AGO = NOW - timedelta(days=400)
_STEPS = 100


@contextmanager
def memory_folder() -> Iterator[Path]:
    """A folder in memory, where the system has such."""
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="pratique-many-", dir=memory if memory.is_dir() else None))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def filled(catalogue: Catalogue, folder: Path, manifests: int) -> FilesStore:
    """Rows and files."""
    store = FilesStore(folder)
    fill(catalogue, store, manifests, at=LONG_AGO)
    return store


def collected(catalogue: Catalogue, store: FilesStore, manifests: int) -> Run:
    """One run, that has something to do at each step."""
    run = collect_now(catalogue, store, CollectSettings(), clock=lambda: NOW)
    garbage = manifests // GARBAGE_EVERY
    expected = {Reason.TAG, Reason.NOT_NEEDED, Reason.IN_NO_REPOSITORY, Reason.DERIVED}
    assert {reason: run.tally.count(reason) for reason in expected} == dict.fromkeys(expected, garbage)
    assert run.tally.missing == []
    return run


# ---- SQLite ---------------------------------------------------------------------------------------------------------


def sqlite_steps(where: Path, manifests: int) -> int:
    """Steps of SQLite's virtual machine in one run."""
    catalogue = Catalogue(f"sqlite:///{where}/{manifests}.sqlite", connections=2)
    catalogue.create()
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += _STEPS
        return 0

    def watch(connection: sqlite3.Connection, *_: object) -> None:
        connection.set_progress_handler(count, _STEPS)

    with memory_folder() as folder:
        store = filled(catalogue, folder, manifests)
        catalogue.close()
        event.listen(catalogue._engine, "connect", watch)
        collected(catalogue, store, manifests)
    catalogue.close()
    return steps


def test_steps_of_sqlite_grow_with_the_rows(tmp_path: Path) -> None:
    few, many = (sqlite_steps(tmp_path, manifests) for manifests in (FEW, MANY))
    assert many / few < MANY / FEW * MORE_THAN_LINEAR, (few, many)


def test_no_statement_goes_through_a_table_for_each_row_on_sqlite(tmp_path: Path) -> None:
    catalogue = Catalogue(f"sqlite:///{tmp_path}/plans.sqlite", connections=2)
    catalogue.create()
    seen: dict[str, Any] = {}

    def note(_conn: object, _cursor: object, statement: str, parameters: Any, _context: object, many: bool) -> None:
        if statement.lstrip().upper().startswith(("SELECT", "UPDATE", "DELETE")):
            seen.setdefault(statement, parameters[0] if many else parameters)

    with memory_folder() as folder:
        store = filled(catalogue, folder, FEW)
        with catalogue._engine.connect() as conn:
            conn.exec_driver_sql("ANALYZE")
        event.listen(catalogue._engine, "before_cursor_execute", note)
        collected(catalogue, store, FEW)
        event.remove(catalogue._engine, "before_cursor_execute", note)
    plans: dict[str, list[tuple[int, int, str]]] = {}
    with catalogue._engine.connect() as conn:
        for statement, parameters in seen.items():
            rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
            plans[statement] = [(row[0], row[1], row[3]) for row in rows]
    catalogue.close()
    assert len(plans) > 25
    for statement, plan in plans.items():
        assert repeated_scans(plan) == [], f"{statement}\n{plan}"


SMALL = ("collections", "rules", "running_reports", "meta", "jobs", "leases")
"""Tables with few rows: as many as there are runs, rules, hosts, uploads going on."""


def repeated_scans(plan: list[tuple[int, int, str]]) -> list[str]:
    """What of a plan goes through a whole table more than once, or sorts what it went through, of large tables.

    At the top, a scan is a page in the order of an index, which the limit ends; one inside of a subquery that depends
    on the row outside is made for each row, and so is one after the first of a join.
    """
    found: list[str] = []
    details = {number: (parent, detail) for number, parent, detail in plan}
    for number, parent, detail in plan:
        if not detail.startswith("SCAN") or detail.split()[1] in SMALL or "CONSTANT ROW" in detail:
            continue
        above = parent
        while above:
            if details[above][1].startswith("CORRELATED"):
                found.append(detail)
            above = details[above][0]
        earlier = [each for each, its, said in plan if its == parent and each < number and said[:4] in {"SCAN", "SEAR"}]
        sorted_here = any(its == parent and said.startswith("USE TEMP B-TREE FOR ORDER") for _, its, said in plan)
        if earlier or sorted_here:
            found.append(detail)
    return found


@pytest.mark.parametrize(
    ("plan", "bad"),
    [
        ([(3, 0, "SCAN blobs USING INDEX i"), (9, 0, "CORRELATED SCALAR SUBQUERY 1"), (12, 9, "SCAN tags")], 1),
        ([(3, 0, "SCAN blobs"), (9, 0, "USE TEMP B-TREE FOR ORDER BY")], 1),
        ([(3, 0, "SEARCH blobs USING INDEX i"), (9, 0, "SCAN tags")], 1),
        ([(3, 0, "SCAN blobs USING INDEX i"), (9, 0, "CORRELATED SCALAR SUBQUERY 1"), (12, 9, "SEARCH tags")], 0),
    ],
)
def test_bad_plans_are_known(plan: list[tuple[int, int, str]], bad: int) -> None:
    assert len(repeated_scans(plan)) == bad


# ---- PostgreSQL -----------------------------------------------------------------------------------------------------


def postgresql_rows(server: Postgres, manifests: int) -> int:
    """Rows that PostgreSQL read in one run, by whole tables or by indexes."""
    url = server.database()
    name = url.partition("?")[0].rpartition("/")[2]
    catalogue = Catalogue(url, connections=2)
    with memory_folder() as folder:
        store = filled(catalogue, folder, manifests)
        catalogue.close()
        server.admin("ANALYZE", database=name)
        before = _rows_read(server, name)
        collected(catalogue, store, manifests)
    catalogue.close()
    found = _rows_read(server, name) - before
    server.drop(url)
    return found


def _rows_read(server: Postgres, database: str) -> int:
    sums = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_user_tables"
    ((found,),) = server.admin(sums, database=database)
    return int(str(found))


def test_rows_read_by_postgresql_grow_with_the_rows(server: Postgres) -> None:
    few, many = (postgresql_rows(server, manifests) for manifests in (FEW, MANY))
    assert many / few < MANY / FEW * MORE_THAN_LINEAR, (few, many)
