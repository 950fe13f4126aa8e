"""Transactions on the catalogue: the one place that opens connections to it.

Where several transactions change things at the same time, SQLite lets one in after the other: threads of this process
queue up in order, other processes wait by busy_timeout. On PostgreSQL they run beside each other (READ COMMITTED), and
what must not happen at the same time takes a lock (`locks.py`).
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, Engine, Table, insert
from sqlalchemy.dialects import postgresql, sqlite

from registry.catalogue.engines import BEGIN, open_engine
from registry.catalogue.failures import translated
from registry.catalogue.stamps import Stamp, Stamps, advance_content
from registry.catalogue.upgrade import bring_up_to_date
from registry.errors import CatalogueConflictError

TRIES: Final = 6
"""How often `change` begins anew; the pauses between add up to a second at most."""

_DURABLE: Final = ("PRAGMA synchronous = FULL", "BEGIN IMMEDIATE")
_VOLATILE: Final = ("PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE")
_LAST: Final = "pratique_last"

T = TypeVar("T")


class Catalogue:
    """Transactions on the catalogue at `url`; for many threads."""

    def __init__(self, url: str, *, connections: int = 16) -> None:
        """Prepare up to `connections` connections; none is opened yet.

        Raises:
            CatalogueError: the URL is not one of a database that we know.
        """
        self._engine = open_engine(url, connections=connections)
        serial = self._engine.dialect.name == "sqlite"
        self._writing = threading.Lock() if serial else nullcontext()
        options = _ON_SQLITE if serial else _ON_POSTGRESQL
        self._reading_engine: Engine = self._engine.execution_options(**options["read"])
        self._looking_engine: Engine = self._engine.execution_options(**options["look"])
        self._writing_engine: Engine = self._engine.execution_options(**options["write"])
        self._volatile_engine: Engine = self._engine.execution_options(**options["volatile"])
        self._stamps = Stamps(self._engine)

    def create(self, revision: str = "") -> None:
        """Make the tables where there are none, and bring older ones to this release (`upgrade.py`), or to `revision`.

        Raises:
            CatalogueError: the database cannot be used, or was made by a later release.
        """
        with translated():
            bring_up_to_date(self._engine, revision)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the catalogue and changes nothing.

        Raises:
            CatalogueError: the database failed.
        """
        with translated(), self._reading_engine.connect() as conn:
            yield conn

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """For reading statements that need not all see one state: no transaction around them; the hot path.

        Raises:
            CatalogueError: the database failed.
        """
        with translated(), self._looking_engine.connect() as conn:
            yield conn

    def stamp(self) -> Stamp:
        """A value that is another one once anything but the record of reads was changed by anybody (`stamps.py`).

        Raises:
            CatalogueError: the database failed.
        """
        return self._stamps.current()

    @contextmanager
    def write(self, *, durable: bool = True, stamped: bool = True) -> Iterator[Connection]:
        """A transaction that is committed, durably, when the block ends, and undone when it raises.

        One that need not be durable survives a crash of this process, but perhaps not of the machine: for what
        nobody was promised, like how far an upload has come. What several rows must agree on is for `change`, which
        is told to begin anew less often than its caller. Without `stamped`, the stamp may stay what it is: for records
        of reads alone.

        Raises:
            CatalogueConflictError: undone because of another transaction; done again, it may succeed.
            StorageFullError, CatalogueError: the database failed; nothing was changed.
        """
        engine = self._writing_engine if durable else self._volatile_engine
        with translated(), self._writing, engine.connect() as conn:
            last: dict[Callable[[Connection, list[Any]], None], list[Any]] = {}
            conn.execution_options(**{_LAST: last})
            with conn.begin():
                yield conn
                for run, items in last.items():
                    run(conn, items)
                if stamped:
                    advance_content(conn)

    def change(self, work: Callable[[Connection], T], *, durable: bool = True) -> T:
        """Do `work` in a transaction as of `write`, and anew if another one was in its way; returns what it returns.

        Raises:
            StorageFullError, CatalogueError: the database failed; nothing was changed.
        """
        for attempt in range(TRIES):
            try:
                with self.write(durable=durable) as conn:
                    return work(conn)
            except CatalogueConflictError:
                if attempt == TRIES - 1:
                    raise
                time.sleep(random.uniform(0.5, 1) * 0.02 * 2**attempt)  # noqa: S311 -- not a secret
        raise AssertionError("TRIES is at least 1")

    def connections(self) -> tuple[int, int]:
        """How many connections are used now, and how many are kept for the next that need one."""
        pool: Any = self._engine.pool  # a QueuePool: its base class does not count
        return pool.checkedout(), pool.checkedin()

    def close(self) -> None:
        """Close all connections."""
        self._stamps.close()
        self._engine.dispose()


_ON_SQLITE: Final[dict[str, dict[str, Any]]] = {
    "read": {BEGIN: ("BEGIN",)},
    "look": {BEGIN: ()},
    "write": {BEGIN: _DURABLE},
    "volatile": {BEGIN: _VOLATILE},
}

_ON_POSTGRESQL: Final[dict[str, dict[str, Any]]] = {
    "read": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
    "look": {"isolation_level": "AUTOCOMMIT"},
    "write": {BEGIN: ()},
    "volatile": {BEGIN: ("SET LOCAL synchronous_commit TO OFF",)},
}


def run_last(conn: Connection, run: Callable[[Connection, list[T]], None], items: Iterable[T]) -> None:
    """Have `run` called with these items at the end of the transaction of `write`, once with all that it was given.

    For what must be locked for as short a time as possible. Outside of `write` it is called at once.
    """
    last = conn.get_execution_options().get(_LAST)
    if last is None:
        run(conn, list(items))
    else:
        last.setdefault(run, []).extend(items)


def insert_new(conn: Connection, table: Table, **values: object) -> bool:
    """Insert a row unless one with its key is there; True if it was inserted."""
    dialect: Any = postgresql if conn.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table).values(**values).on_conflict_do_nothing()
    # Without the option psycopg's count is -1 once the cursor is closed.
    return conn.execute(statement.execution_options(preserve_rowcount=True)).rowcount > 0


def insert_all_new(conn: Connection, table: Table, rows: Sequence[dict[str, object]]) -> None:
    """Insert those rows whose keys are not there."""
    dialect: Any = postgresql if conn.dialect.name == "postgresql" else sqlite
    if rows:
        conn.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


def put_row(conn: Connection, table: Table, *, keep: Collection[str] = (), **values: object) -> None:
    """Insert a row, or change the one with its primary key to `values`, but for the columns in `keep`."""
    dialect: Any = postgresql if conn.dialect.name == "postgresql" else sqlite
    key = [column.name for column in table.primary_key]
    statement = dialect.insert(table).values(**values)
    rest = {name: statement.excluded[name] for name in values if name not in key and name not in keep}
    conn.execute(statement.on_conflict_do_update(index_elements=key, set_=rest))


def insert_or_change(
    conn: Connection, table: Table, *, key: Collection[str], values: dict[str, object], change: dict[str, object]
) -> None:
    """Insert a row, or make `change` to the one with the same values in the columns `key`, in one step."""
    insert_or_change_all(conn, table, key=key, rows=[values], change=change)


def insert_or_change_all(
    conn: Connection,
    table: Table,
    *,
    key: Collection[str],
    rows: Sequence[dict[str, object]],
    change: dict[str, object],
) -> None:
    """`insert_or_change` of each of some rows with values in the same columns."""
    dialect: Any = postgresql if conn.dialect.name == "postgresql" else sqlite
    if rows:
        conn.execute(dialect.insert(table).on_conflict_do_update(index_elements=key, set_=change), rows)


def insert_row(conn: Connection, table: Table, **values: object) -> None:
    """Insert a row."""
    conn.execute(insert(table).values(**values))
