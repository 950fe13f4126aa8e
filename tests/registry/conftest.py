"""The databases that the registry's tests run on: SQLite, and one PostgreSQL server a worker with a database a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from registry.catalogue.database import Catalogue
from tests.support.postgres import Postgres, postgres

DATABASES = ("sqlite", "postgresql")


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A PostgreSQL server, started by the first test that asks for it."""
    # Nothing here loses power: what waits for the disk, and when, test_postgresql.py looks at.
    with postgres(fsync="off", full_page_writes="off") as made:
        yield made


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with the catalogue's tables and without rows; the test runs once on each kind."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path}/catalogue.sqlite"
        catalogue = Catalogue(url)
        catalogue.create()
        catalogue.close()
        yield url
        return
    server: Postgres = request.getfixturevalue("server")
    url = server.database()
    yield url
    server.drop(url)


@pytest.fixture
def catalogue(database: str) -> Iterator[Catalogue]:
    """An open catalogue on each kind of database."""
    made = Catalogue(database, connections=8)
    yield made
    made.close()
