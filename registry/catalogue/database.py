"""The one place that opens connections to the catalogue.

SQLite runs in WAL mode with synchronous=FULL: what was acknowledged survives a crash of the machine. A writing
transaction takes its lock at once (BEGIN IMMEDIATE), because one that read first and then wants to write can be
told to start over; threads of this process queue up for it in order, other processes wait by busy_timeout.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Final

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from registry.catalogue.upgrade import bring_up_to_date
from registry.errors import CatalogueError, StorageFullError

BUSY_SECONDS: Final = 20
"""How long a transaction waits for another process's."""

_PRAGMAS: Final = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -16000",
)

_READ: Final = ("BEGIN",)
_DURABLE: Final = ("PRAGMA synchronous = FULL", "BEGIN IMMEDIATE")
_VOLATILE: Final = ("PRAGMA synchronous = NORMAL", "BEGIN IMMEDIATE")


class Catalogue:
    """Transactions on the catalogue at `url`; for many threads."""

    def __init__(self, url: str, *, connections: int = 64) -> None:
        """Prepare up to `connections` connections; none is opened yet.

        Raises:
            CatalogueError: the URL is not one of a database that we know.
        """
        try:
            self._engine = create_engine(url, pool_size=connections, max_overflow=8, pool_timeout=BUSY_SECONDS)
        except (SQLAlchemyError, ImportError) as error:
            raise CatalogueError(f"catalogue: {error}") from error
        self._sqlite = self._engine.dialect.name == "sqlite"
        if self._sqlite:
            event.listen(self._engine, "connect", _prepare)
            event.listen(self._engine, "begin", _begin)
        self._writing = threading.Lock() if self._sqlite else nullcontext()
        self._looking_engine: Engine = self._engine.execution_options(pratique_begin=())
        self._writing_engine: Engine = self._engine.execution_options(pratique_begin=_DURABLE)
        self._volatile_engine: Engine = self._engine.execution_options(pratique_begin=_VOLATILE)

    def create(self) -> None:
        """Make the tables where there are none, and bring older ones to this release (`upgrade.py`).

        Raises:
            CatalogueError: the database cannot be used, or was made by a later release.
        """
        with _translated():
            bring_up_to_date(self._engine)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the catalogue and changes nothing.

        Raises:
            CatalogueError: the database failed.
        """
        with _translated(), self._engine.connect() as conn:
            yield conn

    @contextmanager
    def look(self) -> Iterator[Connection]:
        """For reading statements that need not all see one state: no transaction around them; the hot path.

        Raises:
            CatalogueError: the database failed.
        """
        with _translated(), self._looking_engine.connect() as conn:
            yield conn

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[Connection]:
        """A transaction that is committed, durably, when the block ends, and undone when it raises.

        One that need not be durable survives a crash of this process, but perhaps not of the machine: for what
        nobody was promised, like how far an upload has come.

        Raises:
            StorageFullError, CatalogueError: the database failed; nothing was changed.
        """
        engine = self._writing_engine if durable else self._volatile_engine
        with _translated(), self._writing, engine.begin() as conn:
            yield conn

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def insert_new(conn: Connection, table: Table, **values: object) -> bool:
    """Insert a row unless one with its key is there; True if it was inserted."""
    dialect: Any = postgresql if conn.dialect.name == "postgresql" else sqlite
    done = conn.execute(dialect.insert(table).values(**values).on_conflict_do_nothing())
    return bool(done.rowcount)


def put_row(conn: Connection, table: Table, *, keep: Collection[str] = (), **values: object) -> None:
    """Insert a row, or change the one with its primary key to `values`, but for the columns in `keep`."""
    dialect: Any = postgresql if conn.dialect.name == "postgresql" else sqlite
    key = [column.name for column in table.primary_key]
    statement = dialect.insert(table).values(**values)
    rest = {name: statement.excluded[name] for name in values if name not in key and name not in keep}
    conn.execute(statement.on_conflict_do_update(index_elements=key, set_=rest))


def hold_name(conn: Connection, name: str) -> None:
    """Have nobody take what is called so (`take_name`) before this transaction ends; many may hold it at a time.

    SQLite has one writer at a time anyway. Names that fall together (one pair in 2^64) only wait for each other.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:name, 0))"), {"name": name})


def take_name(conn: Connection, name: str) -> bool:
    """Be the only one in this transaction to do with what is called so; False, without waiting, if somebody holds it."""
    if conn.dialect.name != "postgresql":
        return True
    taken = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
    return bool(conn.scalar(taken, {"name": name}))


def insert_row(conn: Connection, table: Table, **values: object) -> None:
    """Insert a row."""
    conn.execute(insert(table).values(**values))


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the module would only do so before a change
    for pragma in _PRAGMAS:
        connection.execute(pragma)


def _begin(conn: Connection) -> None:
    for statement in conn.get_execution_options().get("pratique_begin", _READ):
        conn.exec_driver_sql(statement)


@contextmanager
def _translated() -> Iterator[None]:
    """The one place where the database's errors become ours."""
    try:
        yield
    except DBAPIError as error:
        text = str(error.orig)
        if "disk is full" in text or "No space left" in text:
            raise StorageFullError(f"catalogue: no room left ({text})") from error
        raise CatalogueError(f"catalogue: {text}") from error
    except SQLAlchemyError as error:
        raise CatalogueError(f"catalogue: {error}") from error
