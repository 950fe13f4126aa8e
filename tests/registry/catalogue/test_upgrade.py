"""The tables of a database are those of this release, whatever they were before; or the database is refused."""

from __future__ import annotations

import gzip
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, String, create_engine, inspect, select, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import ReflectedColumn, ReflectedIndex

from registry import audit
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.catalogue.upgrade import MIGRATIONS, newest_revision
from registry.errors import CatalogueError
from tests.support.postgres import Postgres

RELEASE_1 = Path(__file__).parent / "release_1.sql.gz"
"""The catalogue of a registry of the first release: images pushed, approved, cleared and denied."""


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/catalogue.sqlite"
        return
    server: Postgres = request.getfixturevalue("server")
    url = server.empty()
    yield url
    server.drop(url)


@pytest.fixture
def release_1(tmp_path: Path) -> str:
    """The URL of that catalogue."""
    path = tmp_path / "release_1.sqlite"
    database = sqlite3.connect(path)
    database.executescript(gzip.decompress(RELEASE_1.read_bytes()).decode())
    database.close()
    return f"sqlite:///{path}"


def create(url: str) -> None:
    """What a starting registry does."""
    catalogue = Catalogue(url)
    try:
        catalogue.create()
    finally:
        catalogue.close()


def tables(conn: Connection) -> dict[str, object]:
    """Everything that the database itself says of its tables, in no order."""
    found: dict[str, object] = {}
    inspector = inspect(conn)
    for name in inspector.get_table_names():
        if name == "alembic_version":
            continue
        found[name] = {
            "columns": sorted(_column(each) for each in inspector.get_columns(name)),
            "key": inspector.get_pk_constraint(name),
            "foreign": sorted(str(each) for each in inspector.get_foreign_keys(name)),
            "unique": sorted(str(each) for each in inspector.get_unique_constraints(name)),
            "checks": sorted(str(each) for each in inspector.get_check_constraints(name)),
            "indexes": sorted(_index(each) for each in inspector.get_indexes(name)),
        }
    return found


def _column(found: ReflectedColumn) -> tuple[str, ...]:
    kind, shown = found["type"], ("name", "nullable", "default", "autoincrement")
    return (*(str(found.get(each)) for each in shown), str(kind), str(getattr(kind, "collation", None)))


def _index(found: ReflectedIndex) -> str:
    # The condition of a partial index is an object on SQLite, of which str shows no more than its place in memory.
    options = {name: str(value) for name, value in found.get("dialect_options", {}).items()}
    return str({**found, "dialect_options": options})


def declared(engine: Engine) -> dict[str, object]:
    """What `schema.py` makes of an empty database."""
    schema.metadata.create_all(engine)
    with engine.connect() as conn:
        return tables(conn)


def other(url: str, request: pytest.FixtureRequest) -> str:
    """The URL of another empty database of the same kind."""
    if url.startswith("sqlite"):
        return f"{url}.declared"
    server: Postgres = request.getfixturevalue("server")
    return server.empty()


def check_tables(url: str, declared_url: str) -> None:
    """The database at `url` is exactly what `schema.py` says."""
    made, wanted = create_engine(url), create_engine(declared_url)
    try:
        with made.connect() as conn:
            assert compare_metadata(MigrationContext.configure(conn), schema.metadata) == []
            found = tables(conn)
        assert found == declared(wanted)
        assert found.keys() == schema.metadata.tables.keys()
    finally:
        made.dispose()
        wanted.dispose()


def test_revisions_from_nothing_give_what_the_schema_says(empty: str, request: pytest.FixtureRequest) -> None:
    create(empty)
    check_tables(empty, other(empty, request))


def test_a_filled_catalogue_of_the_first_release_is_taken_over(release_1: str, request: pytest.FixtureRequest) -> None:
    path = release_1.removeprefix("sqlite:///")
    database = sqlite3.connect(path)
    names = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    columns = {name: [f'"{row[1]}"' for row in database.execute(f"PRAGMA table_info({name})")] for name in names}

    def rows() -> dict[str, list[tuple[object, ...]]]:
        # The columns of then: what was added since has no value to compare.
        return {
            name: sorted(database.execute(f"SELECT {','.join(columns[name])} FROM {name}"), key=repr)  # noqa: S608
            for name in names
            if name != "meta"
        }

    before = rows()
    create(release_1)
    assert rows() == before
    assert sum(map(len, before.values())) > 150
    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    database.close()
    check_tables(release_1, other(release_1, request))
    catalogue = Catalogue(release_1)
    with catalogue.read() as conn:
        records = audit.read(conn, after=0, limit=1000)
        assert conn.execute(text("PRAGMA foreign_key_check")).all() == []
    catalogue.close()
    assert records
    assert audit.verify(records, (), verify_envelope=_nothing, registry="").sound


def _nothing(envelope: bytes) -> NoReturn:
    raise AssertionError(envelope)


def test_the_release_before_refuses_a_catalogue_that_was_taken_over(release_1: str) -> None:
    create(release_1)
    catalogue = Catalogue(release_1)
    with catalogue.read() as conn:
        # It compared this with "1", and made no revision.
        assert conn.scalar(select(schema.meta.c.value).where(schema.meta.c.name == "schema")) == "in alembic_version"
    catalogue.close()


def test_a_catalogue_of_a_later_release_is_refused(empty: str) -> None:
    create(empty)
    catalogue = Catalogue(empty)
    with catalogue.write() as conn:
        conn.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    catalogue.close()
    with pytest.raises(CatalogueError, match=f"of revision '9999', this release knows them up to {newest_revision()}"):
        create(empty)


def test_a_catalogue_of_no_known_version_is_refused(release_1: str) -> None:
    engine = create_engine(release_1)
    with engine.begin() as conn:
        conn.execute(text("UPDATE meta SET value = '999' WHERE name = 'schema'"))
    engine.dispose()
    with pytest.raises(CatalogueError, match="schema version '999', expected '1'"):
        create(release_1)


def test_the_database_of_another_program_is_left_alone(empty: str) -> None:
    engine = create_engine(empty)
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE invoices (number INTEGER)"))
    with pytest.raises(CatalogueError, match="holds tables of something else \\(invoices\\)"):
        create(empty)
    with engine.connect() as conn:
        assert inspect(conn).get_table_names() == ["invoices"]
    engine.dispose()


def test_many_that_start_at_once_upgrade_once(empty: str) -> None:
    problems: list[BaseException] = []
    together = threading.Barrier(4)

    def start() -> None:
        try:
            together.wait(30)
            create(empty)
        except BaseException as error:
            problems.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert problems == []
    engine = create_engine(empty)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT version_num FROM alembic_version")).all() == [(newest_revision(),)]
    engine.dispose()


def test_an_upgrade_that_fails_changes_nothing(release_1: str) -> None:
    engine = create_engine(release_1)
    with engine.begin() as conn:
        # A tag of a manifest that is not there: found after the last revision, before the commit.
        conn.execute(text("UPDATE tags SET pushed = 'sha256:' || hex(zeroblob(32)) WHERE tag = '1'"))
        before = conn.execute(text("SELECT type, name, sql FROM sqlite_master ORDER BY name")).all()
    with pytest.raises(CatalogueError, match="a row of tags refers to a row of manifests that is not there"):
        create(release_1)
    with engine.connect() as conn:
        assert conn.execute(text("SELECT type, name, sql FROM sqlite_master ORDER BY name")).all() == before
    engine.dispose()


def test_revisions_form_one_line_by_the_numbers_of_their_files() -> None:
    script = ScriptDirectory(str(MIGRATIONS))
    assert script.get_heads() == [newest_revision()]
    found = [(each.revision, each.down_revision, Path(each.path).name) for each in script.walk_revisions()]
    for revision, before, name in found:
        assert re.fullmatch(r"\d{4}_[a-z0-9_]+\.py", name), name
        assert name.startswith(revision)
        assert before == (f"{int(revision) - 1:04}" if revision != "0001" else None)


def test_a_start_that_has_nothing_to_do_does_not_import_alembic(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/catalogue.sqlite"
    create(url)
    program = (
        "import sys; from registry.catalogue.database import Catalogue;"
        f" Catalogue({url!r}).create(); sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_text_is_compared_by_its_bytes_on_postgresql() -> None:
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it untyped
    for table in schema.metadata.sorted_tables:
        for column in table.columns:
            kind = column.type.dialect_impl(dialect)
            made = str(column.type.compile(dialect=dialect))
            if isinstance(kind, String) or made.startswith(("VARCHAR", "TEXT")):
                assert made.endswith('COLLATE "C"'), f"{table.name}.{column.name}: use bytewise()"
