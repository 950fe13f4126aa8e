"""A stamp of what the catalogue holds: while it is the same, so is every answer that was read from there.

Whoever keeps an answer takes the stamp before it reads, and keeps it beside; it asks for the stamp again before it
gives that answer, and reads anew if it is another one. A change that was acknowledged, by whatever process, is in
every stamp that is taken afterwards. Neither kind of stamp rests on anybody telling anybody:

- SQLite counts its own commits for each connection ("PRAGMA data_version"), those of other processes too. Since what
  was read is recorded there as well, each second, a new count is followed by a look at a number of our own
  (`generations`), which every transaction advances but the one that adds records of reads.
- PostgreSQL names what a statement can see (`pg_current_snapshot()`): two statements with the same snapshot see the
  same rows. Whatever any transaction commits makes another one.

Taking a stamp costs some microseconds on SQLite, and one round trip on PostgreSQL. Threads that want one at the same
time share a look that began after all of them had asked.
"""

from __future__ import annotations

import threading
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine, PoolProxiedConnection
from sqlalchemy.exc import SQLAlchemyError

from registry.errors import CatalogueError

Stamp = int | str
"""Compared with stamps of the same process only."""

_ADVANCE: Final = (
    "INSERT INTO generations (name, number) VALUES ('content', 1) "
    "ON CONFLICT (name) DO UPDATE SET number = generations.number + 1"
)
_NUMBER: Final = "SELECT number FROM generations WHERE name = 'content'"


class Stamps:
    """Takes stamps; for many threads. Keeps one connection of `engine` for itself."""

    def __init__(self, engine: Engine) -> None:
        """Connect at the first question."""
        self._engine = engine
        self._failed = (engine.dialect.loaded_dbapi.Error, SQLAlchemyError)
        self._lock = threading.Lock()
        self._look: _Look | None = None
        # Looks are numbered: how many were begun, and which was the last to succeed, with what it found.
        self._begun = 0
        self._good = 0
        self._found: Stamp = -1

    def current(self) -> Stamp:
        """The stamp of the catalogue as it is now.

        Raises:
            CatalogueError: the database failed.
        """
        asked = self._begun
        with self._lock:
            if self._good <= asked:
                self._begun += 1
                self._found = self._taken()
                self._good = self._begun
            return self._found

    def close(self) -> None:
        """Give the connection up."""
        with self._lock:
            self._drop()

    def _taken(self) -> Stamp:
        try:
            if self._look is not None:
                try:
                    return self._look.take()
                except self._failed:
                    self._drop()  # the database may have been started anew since: a new connection tells
            self._look = _SqliteLook(self._engine) if self._engine.name == "sqlite" else _PostgresqlLook(self._engine)
            return self._look.take()
        except self._failed as error:
            self._drop()
            raise CatalogueError(f"catalogue: {' '.join(str(error).split())}") from error

    def _drop(self) -> None:
        if self._look is not None:
            self._look.connection.invalidate()
            self._look = None


class _Look(Protocol):
    """A connection, and how the stamp is read by it."""

    connection: PoolProxiedConnection

    def take(self) -> Stamp:
        """The stamp now."""


class _SqliteLook:
    def __init__(self, engine: Engine) -> None:
        self.connection = engine.raw_connection()
        self._driver: Any = self.connection.driver_connection
        self._version = self._number = -1

    def take(self) -> Stamp:
        # All rows are taken: a statement that is not at its end holds on to what it saw.
        version = self._driver.execute("PRAGMA data_version").fetchall()[0][0]
        if version != self._version:
            rows = self._driver.execute(_NUMBER).fetchall()
            self._number = rows[0][0] if rows else 0
            # In this order: what is committed between the two makes the next version another one.
            self._version = version
        return self._number


class _PostgresqlLook:
    def __init__(self, engine: Engine) -> None:
        self.connection = engine.raw_connection()
        driver: Any = self.connection.driver_connection
        driver.autocommit = True
        self._driver = driver

    def take(self) -> Stamp:
        return str(self._driver.execute("SELECT pg_current_snapshot()::text", prepare=True).fetchone()[0])


def advance_content(conn: Connection) -> None:
    """Have the transaction of `conn` make another stamp, where SQLite keeps the catalogue."""
    if conn.dialect.name == "sqlite":
        conn.exec_driver_sql(_ADVANCE)
