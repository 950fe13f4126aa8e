"""The databases that the registry's tests run on: SQLite, and one PostgreSQL server a worker with a database a test."""

from __future__ import annotations

import shutil
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


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An SQLite database with the catalogue's tables: to be copied, as PostgreSQL copies its own template."""
    path = tmp_path_factory.mktemp("template") / "catalogue.sqlite"
    catalogue = Catalogue(f"sqlite:///{path}")
    catalogue.create()
    catalogue.close()
    assert [each.name for each in path.parent.iterdir()] == [path.name]  # nothing of it is in a journal
    return path


@pytest.fixture(params=DATABASES)
def database(request: pytest.FixtureRequest, template: Path, tmp_path: Path) -> Iterator[str]:
    """The URL of a database with the catalogue's tables and without rows; the test runs once on each kind."""
    if request.param == "sqlite":
        shutil.copyfile(template, tmp_path / "catalogue.sqlite")
        yield f"sqlite:///{tmp_path}/catalogue.sqlite"
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
