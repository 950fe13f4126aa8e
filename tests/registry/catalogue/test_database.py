"""Connections to the catalogue: durable, in order, and refused when it is another version's."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import func, insert, select, text, update

from ocispec.digest import Digest
from registry.catalogue.database import Catalogue, insert_new, put_row
from registry.catalogue.schema import blobs, meta, repository_blobs
from registry.errors import CatalogueError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def test_pragmas_are_those_that_keep_what_was_acknowledged(tmp_path: Path) -> None:
    expected = {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 20_000}
    catalogue = Catalogue(f"sqlite:///{tmp_path}/catalogue.sqlite")
    catalogue.create()
    with catalogue.write() as conn:
        assert {name: conn.scalar(text(f"PRAGMA {name}")) for name in expected} == expected
    with catalogue.write(durable=False) as conn:
        assert conn.scalar(text("PRAGMA synchronous")) == 1
    with catalogue.write() as conn:
        assert conn.scalar(text("PRAGMA synchronous")) == 2
    catalogue.close()


def test_a_block_that_raises_changes_nothing(catalogue: Catalogue) -> None:
    def change() -> None:
        with catalogue.write() as conn:
            insert_new(conn, blobs, digest=Digest.of(b"x"), size=1, created=NOW)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        change()
    with catalogue.read() as conn:
        assert conn.scalar(select(func.count()).select_from(blobs)) == 0


def test_a_reader_sees_one_state(catalogue: Catalogue) -> None:
    with catalogue.read() as reading:
        assert reading.scalar(select(func.count()).select_from(blobs)) == 0
        with catalogue.write() as writing:
            insert_new(writing, blobs, digest=Digest.of(b"x"), size=1, created=NOW)
        assert reading.scalar(select(func.count()).select_from(blobs)) == 0
    with catalogue.look() as looking:
        assert looking.scalar(select(func.count()).select_from(blobs)) == 1


def test_rows_are_inserted_once_or_replaced(catalogue: Catalogue) -> None:
    digest = Digest.of(b"x", "sha512")
    with catalogue.write() as conn:
        assert insert_new(conn, blobs, digest=digest, size=1, created=NOW)
        assert not insert_new(conn, blobs, digest=digest, size=2, created=NOW)
        put_row(conn, blobs, digest=digest, size=3, created=NOW)
        assert tuple(conn.execute(select(blobs.c.digest, blobs.c.size, blobs.c.created)).one()) == (digest, 3, NOW)


def test_what_refers_to_nothing_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match=r"(?i)foreign key"), catalogue.write() as conn:
        conn.execute(insert(repository_blobs).values(repository="none", digest=Digest.of(b""), added=NOW, added_by="x"))


def test_a_time_without_a_zone_is_refused(catalogue: Catalogue) -> None:
    with pytest.raises(CatalogueError, match="expected a time zone"), catalogue.write() as conn:
        insert_new(conn, blobs, digest=Digest.of(b"x"), size=1, created=NOW.replace(tzinfo=None))


def test_many_writers_lose_nothing(database: str) -> None:
    processes = [Catalogue(database), Catalogue(database)]
    with processes[0].write() as conn:
        conn.execute(insert(meta).values(name="counter", value="0"))

    def count(catalogue: Catalogue) -> None:
        for _ in range(25):
            with catalogue.write() as conn:
                found = select(meta.c.value).where(meta.c.name == "counter").with_for_update()
                now = int(conn.scalar(found) or 0)
                conn.execute(update(meta).where(meta.c.name == "counter").values(value=str(now + 1)))

    threads = [threading.Thread(target=count, args=(processes[number % 2],)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with processes[1].read() as conn:
        assert conn.scalar(select(meta.c.value).where(meta.c.name == "counter")) == "100"
    for process in processes:
        process.close()


@pytest.mark.parametrize("url", ["nonsense", "nonsense://x", "sqlite:////no/such/folder/x.sqlite"])
def test_a_database_that_cannot_be_used_is_one_clear_error(url: str) -> None:
    with pytest.raises(CatalogueError, match="catalogue: "):
        Catalogue(url).create()


def test_a_file_that_is_no_database_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.sqlite"
    path.write_bytes(b"this is not a database, but long enough to be looked at as one" * 20)
    catalogue = Catalogue(f"sqlite:///{path}")
    with pytest.raises(CatalogueError, match="not a database"):
        catalogue.create()
    catalogue.close()
