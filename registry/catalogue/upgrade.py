"""Brings the tables of a database to what this code needs, once, however many instances start at the same time.

Each revision is a file in `migrations/versions`. All that are missing are made in one transaction, under a lock: it
is there whole or not at all. A database that is up to date costs one query; Alembic is imported only if something
is missing. A database of a later revision is refused, since this code does not know what its rows mean.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Final

from sqlalchemy import Column, Connection, Engine, MetaData, String, Table, delete, insert, inspect, select, text

from registry.catalogue.engines import BEGIN, BUSY_SECONDS
from registry.catalogue.schema import meta
from registry.errors import CatalogueError

_log = logging.getLogger("pratique.catalogue")

MIGRATIONS: Final = Path(__file__).parent / "migrations"

_BEFORE_ALEMBIC: Final = "1"
"""What the first release wrote as `meta.schema`; its tables are those of revision 0001."""

_FIRST: Final = "0001"
_MOVED: Final = "in alembic_version"
"""Stands as `meta.schema` since then: the first release refuses a database whose value it does not know."""

_LOCK: Final = 0x70726D67
"""The advisory lock under which PostgreSQL lets one instance at a time change tables."""

_BEGIN: Final = {
    "sqlite": ("PRAGMA foreign_keys = OFF", "BEGIN IMMEDIATE"),
    "postgresql": ("SET LOCAL statement_timeout = 0", "SET LOCAL lock_timeout = 0"),
}

_VERSION: Final = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


def newest_revision() -> str:
    """The revision that this code needs: the highest number among the files."""
    return max(path.name[:4] for path in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def bring_up_to_date(engine: Engine, revision: str = "") -> None:
    """Make the revisions that are missing, or all of them in an empty database; up to `revision`, if one is said.

    Raises:
        CatalogueError: the database was made by later code, or by something else, or is beyond `revision`.
        SQLAlchemyError: it failed; nothing was changed.
    """
    wanted = revision or newest_revision()
    with engine.connect() as conn:
        tables = set(inspect(conn).get_table_names())
        if _VERSION.name in tables and _revision(conn) == wanted:
            return
    with engine.execution_options(**{BEGIN: _BEGIN[engine.dialect.name]}).connect() as conn:
        conn.detach()  # this connection does not check foreign keys: nobody else must get it
        with conn.begin():
            _upgrade(conn, wanted)


def _upgrade(conn: Connection, wanted: str) -> None:
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        # Instances of the release before may run: what they hold is waited for, but not while all queue up behind us.
        conn.execute(text(f"SET LOCAL lock_timeout = {BUSY_SECONDS * 1000}"))
    found = found_revision(conn)
    if found == wanted:
        return  # another instance was here first
    if found not in {None, _BEFORE_ALEMBIC} and found > wanted:
        raise CatalogueError(f"catalogue: its tables are of revision {found}, expected none, or {wanted} at most")
    # Late: starting on a database that is up to date must not pay for it.
    from alembic import command  # noqa: PLC0415
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = conn
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of each step; what was done is told below
    if found == _BEFORE_ALEMBIC:
        command.stamp(config, _FIRST)
    command.upgrade(config, wanted)
    if conn.dialect.name == "sqlite" and (broken := conn.execute(text("PRAGMA foreign_key_check")).first()):
        raise CatalogueError(f"catalogue: a row of {broken[0]} refers to a row of {broken[2]} that is not there")
    conn.execute(delete(meta).where(meta.c.name == "schema"))
    conn.execute(insert(meta).values(name="schema", value=_MOVED))
    if found is not None:
        _log.info("catalogue: tables brought from revision %s to %s", found, wanted)


def found_revision(conn: Connection) -> str | None:
    """The database's revision, "1" for what was made before there were revisions, None if it is empty.

    Raises:
        CatalogueError: the database was made by later code, or by something else.
    """
    tables = set(inspect(conn).get_table_names())
    if _VERSION.name in tables:
        return _revision(conn)
    if meta.name in tables:
        found = conn.scalar(select(meta.c.value).where(meta.c.name == "schema"))
        if found != _BEFORE_ALEMBIC:
            raise CatalogueError(f"catalogue: schema version {found!r}, expected {_BEFORE_ALEMBIC!r}, or revisions")
        return _BEFORE_ALEMBIC
    if tables:
        raise CatalogueError(f"catalogue: the database holds tables of something else ({min(tables)})")
    return None


def _revision(conn: Connection) -> str:
    found = conn.scalar(select(_VERSION.c.version_num)) or ""
    newest = newest_revision()
    if not found.isdigit() or int(found) > int(newest):
        raise CatalogueError(
            f"catalogue: its tables are of revision {found[:40]!r}, this release knows them up to {newest}:"
            " start the release that made them, or a later one"
        )
    return found
