"""How connections to the catalogue's database are made, for each of the two kinds.

SQLite runs in WAL mode with synchronous=FULL: what was acknowledged survives a crash of the machine. A writing
transaction takes its lock at once (BEGIN IMMEDIATE), because one that read first and then wants to write can be
told to start over.

PostgreSQL is asked to commit durably whatever its own default is, to give up a statement or a lock that takes too
long, to undo the transaction of an instance that stands still, and to plan each statement for the values in it. A
connection that the server closed while nobody used it is noticed when it is taken from the pool, without asking the
server: its socket can be read.
"""

from __future__ import annotations

import select
import sqlite3
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError

from registry.errors import CatalogueError

if TYPE_CHECKING:
    import psycopg

BUSY_SECONDS: Final = 20
"""How long a transaction waits for another one's lock, and a thread for a connection."""

STATEMENT_SECONDS: Final = 60
"""How long PostgreSQL works on one statement; `unhurried` lifts it."""

_STANDSTILL_SECONDS: Final = 300
"""How long a transaction may do nothing: one that holds locks, of an instance that does not answer any more."""

_PRAGMAS: Final = (
    f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}",  # first: WAL, too, waits for whoever is making the tables
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA trusted_schema = OFF",
    "PRAGMA temp_store = MEMORY",
    "PRAGMA cache_size = -2000",  # KiB of each connection, of which there are dozens; the kernel has the pages too
)

_SESSION: Final = {
    "statement_timeout": STATEMENT_SECONDS * 1000,
    "lock_timeout": BUSY_SECONDS * 1000,
    "idle_in_transaction_session_timeout": _STANDSTILL_SECONDS * 1000,
    "timezone": "UTC",
    # A plan for any value reckons with the same few rows in each repository (docs/adr/0140).
    "plan_cache_mode": "force_custom_plan",
    # Our statements end within milliseconds; to compile one takes tens of them.
    "jit": "off",
}

# libpq: a server that is gone without a word is noticed within half a minute.
_LIBPQ: Final = {
    "connect_timeout": "5",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "application_name": "pratique-registry",
    "client_encoding": "utf8",
}

BEGIN: Final = "pratique_begin"
"""The execution option with the statements that begin a transaction; of SQLite, or after PostgreSQL's own BEGIN."""


def open_engine(url: str, *, connections: int) -> Engine:
    """An engine of at most `connections` connections; none is opened yet.

    Raises:
        CatalogueError: the URL is not one of a database that we know.
    """
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
        if kind == "sqlite":
            return _sqlite(parsed, connections)
        if kind == "postgresql":
            return _postgresql(parsed, connections)
    except (SQLAlchemyError, ImportError) as error:
        raise CatalogueError(f"catalogue: {error}") from error
    raise CatalogueError(f"catalogue: got a {kind[:40]} URL, expected sqlite or postgresql")


def _sqlite(url: URL, connections: int) -> Engine:
    # The connection that was used last is the next: each costs memory for what it has seen (schema, statements, pages).
    engine = create_engine(url, pool_size=connections, max_overflow=8, pool_timeout=BUSY_SECONDS, pool_use_lifo=True)
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _postgresql(url: URL, connections: int) -> Engine:
    url = url.set(drivername="postgresql+psycopg")
    given = {name: value for name, value in _LIBPQ.items() if name not in url.query}
    engine = create_engine(
        url,
        connect_args=given,
        isolation_level="READ COMMITTED",
        pool_size=connections,
        max_overflow=0,
        pool_timeout=BUSY_SECONDS,
        pool_use_lifo=True,
    )
    event.listen(engine, "connect", _prepare_postgresql)
    event.listen(engine, "checkout", _check_alive)
    event.listen(engine, "begin", _begin_postgresql)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves; the module would only do so before a change
    for pragma in _PRAGMAS:
        connection.execute(pragma)


def _begin_sqlite(conn: Connection) -> None:
    for statement in conn.get_execution_options().get(BEGIN, ("BEGIN",)):
        conn.exec_driver_sql(statement)


def _prepare_postgresql(connection: psycopg.Connection[Any], _record: object) -> None:
    before, connection.autocommit = connection.autocommit, True
    settings = ", ".join(f"set_config('{name}', '{value}', false)" for name, value in _SESSION.items())
    # Where the server's default is not to wait for its disk, an acknowledged push could be lost.
    durable = "set_config('synchronous_commit', 'on', false)"
    connection.execute(
        f"SELECT {settings}, CASE current_setting('synchronous_commit') WHEN 'off' THEN {durable} END".encode()
    )
    connection.autocommit = before


def _begin_postgresql(conn: Connection) -> None:
    for statement in conn.get_execution_options().get(BEGIN, ()):
        conn.exec_driver_sql(statement)


def _check_alive(connection: psycopg.Connection[Any], _record: object, _proxy: object) -> None:
    """A connection that waits in the pool has nothing to read, but for its end, and what the server says before it."""
    from psycopg import OperationalError  # noqa: PLC0415 -- it is there by now; without PostgreSQL nobody needs it

    waiting = select.poll()
    waiting.register(connection.fileno(), select.POLLIN)
    for _ in range(3):
        if not waiting.poll(0):
            return
        try:
            connection.pgconn.consume_input()
        except OperationalError as error:
            raise DisconnectionError(str(error)) from error
    raise DisconnectionError("closed by the server")
