"""What PostgreSQL does otherwise than SQLite: isolation, conflicts, lost connections, settings of a session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection, func, insert, select, text, update

from ocispec.digest import Digest
from registry.catalogue.database import Catalogue, insert_new
from registry.catalogue.schema import blobs, meta
from registry.catalogue.tags import find_tag
from registry.errors import CatalogueConflictError, CatalogueError, CatalogueLostError, UnstorableError
from tests.support.postgres import Postgres, postgres

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.fixture
def url(server: Postgres) -> Iterator[str]:
    """A database with the catalogue's tables."""
    made = server.database()
    yield made
    server.drop(made)


@pytest.fixture
def postgresql(url: str) -> Iterator[Catalogue]:
    """A catalogue in it."""
    made = Catalogue(url, connections=4)
    yield made
    made.close()


def test_what_was_acknowledged_is_on_the_disk_whatever_the_server_says(server: Postgres, url: str) -> None:
    name = url.partition("@/")[2].partition("?")[0]
    server.admin(f"ALTER DATABASE {name} SET synchronous_commit = off")
    catalogue = Catalogue(url)
    with catalogue.write() as conn:
        assert conn.scalar(text("SHOW synchronous_commit")) == "on"
    with catalogue.write(durable=False) as conn:
        assert conn.scalar(text("SHOW synchronous_commit")) == "off"
    with catalogue.write() as conn:
        assert conn.scalar(text("SHOW synchronous_commit")) == "on"
    catalogue.close()


def test_what_is_stricter_than_on_stays(server: Postgres, url: str) -> None:
    name = url.partition("@/")[2].partition("?")[0]
    server.admin(f"ALTER DATABASE {name} SET synchronous_commit = remote_apply")
    catalogue = Catalogue(url)
    with catalogue.write() as conn:
        assert conn.scalar(text("SHOW synchronous_commit")) == "remote_apply"
    catalogue.close()


def test_a_statement_is_planned_for_its_values_however_often_it_was_asked(postgresql: Catalogue) -> None:
    plans = text("SELECT sum(custom_plans), sum(generic_plans) FROM pg_prepared_statements WHERE statement LIKE :of")
    with postgresql.look() as conn:
        for number in range(20):
            assert find_tag(conn, "somewhere", str(number)) is None
        custom, generic = conn.execute(plans, {"of": "SELECT tags.tag%"}).one()
        assert conn.scalar(text("SHOW jit")) == "off"
    assert custom > 10  # the first ones were not prepared
    assert generic == 0


def test_transactions_are_isolated_as_their_kind_says(postgresql: Catalogue) -> None:
    show = text("SELECT current_setting('transaction_isolation') || ' ' || current_setting('transaction_read_only')")
    with postgresql.read() as conn:
        assert conn.scalar(show) == "repeatable read on"
    with postgresql.write() as conn:
        assert conn.scalar(show) == "read committed off"
    with postgresql.look() as conn:
        before = conn.scalar(text("SELECT now()"))
        assert conn.scalar(text("SELECT now()")) != before  # each statement is a transaction
    with postgresql.read() as conn:  # on the connection that looked
        assert conn.scalar(show) == "repeatable read on"


def test_a_reading_transaction_changes_nothing(postgresql: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="read-only"), postgresql.read() as conn:
        insert_new(conn, blobs, digest=Digest.of(b"x"), size=1, created=NOW)


def test_a_statement_that_takes_too_long_is_given_up(postgresql: Catalogue) -> None:
    slow = text("SELECT set_config('statement_timeout', '50', true)"), text("SELECT pg_sleep(10)")
    with pytest.raises(CatalogueError, match="statement timeout"), postgresql.write() as conn:
        _ = [conn.execute(each) for each in slow]


def test_of_two_that_wait_for_each_other_one_begins_anew(postgresql: Catalogue) -> None:
    with postgresql.write() as conn:
        conn.execute(insert(meta).values([{"name": "a", "value": "0"}, {"name": "b", "value": "0"}]))
    met, tries = threading.Barrier(2), {"ab": 0, "ba": 0}

    def work(names: str) -> None:
        def change(conn: Connection) -> None:
            tries[names] += 1
            for name in names:
                mine = update(meta).where(meta.c.name == name)
                conn.execute(mine.values(value=meta.c.value + names))
                if tries[names] == 1 and name == names[0]:
                    met.wait(30)

        postgresql.change(change)

    threads = [threading.Thread(target=work, args=(names,)) for names in tries]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(tries.values()) == [1, 2]
    with postgresql.read() as conn:
        values = conn.scalars(select(meta.c.value).where(meta.c.name.in_(("a", "b")))).all()
    assert all(sorted(value[1:]) == ["a", "a", "b", "b"] for value in values)


def test_a_conflict_that_stays_is_told_in_the_end(postgresql: Catalogue) -> None:
    tries = []

    def change(conn: Connection) -> None:
        tries.append(1)
        conn.execute(insert(meta).values(name="same", value=""))
        conn.execute(insert(meta).values(name="same", value=""))

    with pytest.raises(CatalogueConflictError, match="meta_pkey"):
        postgresql.change(change)
    assert len(tries) == 6


@pytest.mark.parametrize(
    ("value", "problem"),
    [("a\0b", "NUL"), ("a\ud800b", "not Unicode"), ("x" * 256, "got 256 characters, expected at most 255")],
)
def test_what_no_database_keeps_is_refused_as_the_senders_fault(catalogue: Catalogue, value: str, problem: str) -> None:
    for looking in (catalogue.look, catalogue.read):
        with pytest.raises(UnstorableError, match=problem), looking() as conn:
            conn.scalar(select(meta.c.value).where(meta.c.name > value))
    with pytest.raises(UnstorableError, match=problem), catalogue.write() as conn:
        insert_new(conn, meta, name=value, value="")


def test_a_number_that_no_column_holds_is_refused_as_the_senders_fault(catalogue: Catalogue) -> None:
    with pytest.raises(UnstorableError), catalogue.write() as conn:
        insert_new(conn, blobs, digest=Digest.of(b"x"), size=2**63, created=NOW)


def test_a_connection_that_the_server_closed_meanwhile_is_replaced_unseen(server: Postgres, url: str) -> None:
    catalogue = Catalogue(url, connections=4)
    pids = set()
    for _ in range(3):
        with catalogue.look() as conn:
            pid = conn.scalar(text("SELECT pg_backend_pid()"))
        pids.add(pid)
        server.admin(f"SELECT pg_terminate_backend({pid}, 5000)")
    assert len(pids) == 3
    catalogue.close()


def test_a_connection_that_is_lost_within_a_transaction_is_one_clear_error(server: Postgres, url: str) -> None:
    catalogue = Catalogue(url, connections=4)

    def lose() -> None:
        with catalogue.write() as conn:
            insert_new(conn, blobs, digest=Digest.of(b"x"), size=1, created=NOW)
            server.admin(f"SELECT pg_terminate_backend({conn.scalar(text('SELECT pg_backend_pid()'))}, 5000)")
            conn.scalar(text("SELECT 1"))

    with pytest.raises(CatalogueLostError, match="connection lost"):
        lose()
    with catalogue.read() as conn:
        assert conn.scalar(select(func.count()).select_from(blobs)) == 0
    catalogue.close()


def test_a_server_that_goes_and_comes_is_found_again() -> None:
    with postgres() as own:
        catalogue = Catalogue(own.database(), connections=4)
        with catalogue.write() as conn:
            insert_new(conn, blobs, digest=Digest.of(b"x"), size=1, created=NOW)
        own.kill()
        with pytest.raises(CatalogueError, match="catalogue: "), catalogue.look() as conn:
            conn.scalar(text("SELECT 1"))
        own.start()
        with catalogue.look() as conn:
            assert conn.scalar(select(func.count()).select_from(blobs)) == 1
        catalogue.close()


def test_a_thread_that_gets_no_connection_is_told(url: str) -> None:
    catalogue = Catalogue(url, connections=1)
    catalogue._engine.pool._timeout = 0.1  # type: ignore[attr-defined]  # waiting 20 seconds would prove no more
    with catalogue.look(), pytest.raises(CatalogueError, match="QueuePool limit"), catalogue.look():
        pass
    catalogue.close()
