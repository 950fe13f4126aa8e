"""What the signer may not forget: the highest numbers, what was withdrawn, and what it last said of each image.

One SQLite file beside the key, of the same owner; or, where several registries sign with one key, one PostgreSQL
database that their signers alone may open. Each change is durable before the signature that rests on it leaves the
process, so a crash can lose a number, never repeat one; of several signers one changes it at a time. Whoever puts an
older copy of it back takes the registry back in time; hosts then refuse its lower numbers.
"""

from __future__ import annotations

import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import (
    URL,
    BigInteger,
    Column,
    Connection,
    Engine,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Row,
    String,
    Table,
    Text,
    create_engine,
    delete,
    event,
    inspect,
    make_url,
    select,
    text,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import SQLAlchemyError

from ocispec.digest import Digest
from registry.errors import RegistryError

FORMAT: Final = "2"
"""1 had other names of tables, and no generation; such a file is taken over when it is opened."""

_LOCK: Final = 0x7369676E
"""The advisory lock under which PostgreSQL lets one signer at a time change the memory."""

_metadata = MetaData()
_NAME: Final = String(255)
_DIGEST: Final = String(136)

_meta = Table("signer_meta", _metadata, Column("name", _NAME, primary_key=True), Column("value", Text, nullable=False))
_current = Table(
    "signer_current",
    _metadata,
    Column("name", String(300), primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("issued", BigInteger, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
)
_withdrawn = Table("signer_withdrawn", _metadata, Column("digest", _DIGEST, primary_key=True))
_said = Table(
    "signer_said",
    _metadata,
    Column("repository", _NAME, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("clearance", _DIGEST, nullable=False),
    Column("until", BigInteger, nullable=False),
    PrimaryKeyConstraint("repository", "digest"),
)
_tag = Table(
    "signer_tag",
    _metadata,
    Column("repository", _NAME, nullable=False),
    Column("name", String(128), nullable=False),
    Column("number", BigInteger, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("day", Integer, nullable=False),
    Column("moves", Integer, nullable=False),
    PrimaryKeyConstraint("repository", "name"),
)


class SignerMemoryError(RegistryError):
    """The signer's memory cannot be read or written; it signs nothing then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Current:
    """The newest of something numbered: trust.json, the revocation list, a policy, the audit chain's head."""

    name: str
    number: int
    digest: Digest
    issued: datetime
    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class TagMemory:
    """A tag's newest statement; `moves` counts those of `day` (days since the epoch)."""

    number: int
    digest: Digest
    day: int
    moves: int


class Memory:
    """The memory in the file, or at the SQLAlchemy URL, `where`; one thread."""

    def __init__(self, where: Path | str, *, made: bool = False) -> None:
        """Open the memory, and make it if there is none; one that was opened before, by whomever, is `made`.

        Raises:
            SignerMemoryError: it cannot be opened, or is of another format.
        """
        self._conn: Connection | None = None
        self._what = f"signer memory {where}" if isinstance(where, Path) else "signer memory"
        with self._translated():
            self._engine: Engine = create_engine(_url(where), pool_size=1, max_overflow=1, pool_pre_ping=True)
        if self._engine.dialect.name == "sqlite":
            event.listen(self._engine, "connect", _prepare)
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        if not made:
            self._make()
        found = self._fact("format")
        if found != FORMAT:
            self.close()
            raise SignerMemoryError(f"{self._what}: format {found!r}, expected {FORMAT!r}")

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    @contextmanager
    def change(self) -> Iterator[Connection]:
        """A transaction, the only one there is: durable when the block ends, undone when it raises.

        Within another one it is a part of that.
        """
        if self._conn is not None:
            yield self._conn
            return
        with self._translated(), self._engine.begin() as conn:
            if conn.dialect.name == "sqlite":
                conn.exec_driver_sql("BEGIN IMMEDIATE")
            else:
                conn.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            self._conn = conn
            try:
                yield conn
            finally:
                self._conn = None

    def bind_key(self, key: str, *, replace: bool = False) -> None:
        """Have the memory belong to the key of that id: signers with different keys must not share one.

        Raises:
            SignerMemoryError: it belongs to another key, and that is not to be replaced.
        """
        with self.change():
            self._new(_meta, name="key", value=key)
            if replace:
                self._put(_meta, name="key", value=key)
            found = self._fact("key")
        if found != key:
            raise SignerMemoryError(f"{self._what}: belongs to key {found}, this signer has key {key}")

    def id(self) -> str:
        """What tells this memory from one that was begun anew."""
        return self._fact("id")

    def generation(self) -> int:
        """A number that rises with all that a Decision can rest on: trust.json, policies, floors, list, withdrawals."""
        return int(self._fact("generation"))

    def current(self, name: str) -> Current | None:
        """The newest `name`, or None."""
        with self._read() as conn:
            row = conn.execute(select(_current).where(_current.c.name == name)).first()
        return _to_current(row) if row is not None else None

    def currents(self, prefix: str) -> tuple[Current, ...]:
        """The newest of each name that begins with `prefix`."""
        query = select(_current).where(_current.c.name.startswith(prefix, autoescape=True)).order_by(_current.c.name)
        with self._read() as conn:
            return tuple(_to_current(row) for row in conn.execute(query))

    def put_current(self, current: Current, *, counts: bool = True) -> None:
        """Remember the newest of something, in place of the one before; the caller has compared the numbers.

        `counts` is false where no Decision rests on it.
        """
        with self.change():
            self._put(
                _current,
                name=current.name,
                number=current.number,
                digest=str(current.digest),
                issued=int(current.issued.timestamp()),
                envelope=current.envelope,
            )
            if counts:
                self._raise_generation()

    def withdraw(self, statement: Digest) -> None:
        """Remember that a statement was withdrawn."""
        with self.change():
            if self._new(_withdrawn, digest=str(statement)):
                self._raise_generation()

    def is_withdrawn(self, statement: Digest) -> bool:
        """True if the statement was withdrawn."""
        with self._read() as conn:
            found = conn.execute(select(_withdrawn.c.digest).where(_withdrawn.c.digest == str(statement))).first()
        return found is not None

    def withdrawals(self) -> tuple[Digest, ...]:
        """The statements that were withdrawn."""
        with self._read() as conn:
            return tuple(map(Digest.parse, conn.scalars(select(_withdrawn.c.digest))))

    def say(self, repository: str, digest: Digest, clearance: Digest | None, until: datetime, now: datetime) -> None:
        """Remember what was last said of an image: this clearance, or (None) that it is not cleared.

        A denial is kept until the last clearance signed before it has ended; what has ended is forgotten.
        """
        about = (_said.c.repository == repository, _said.c.digest == str(digest))
        with self.change() as conn:
            conn.execute(delete(_said).where(_said.c.until < int(now.timestamp())))
            before = conn.scalar(select(_said.c.until).where(*about))
            if clearance is None and before is None:
                return
            self._put(
                _said,
                repository=repository,
                digest=str(digest),
                clearance=str(clearance) if clearance is not None else "",
                until=max(int(until.timestamp()), before or 0),
            )

    def said(self, repository: str, digest: Digest) -> Digest | None:
        """The digest of the clearance that was last given, or None: none, or a denial came after it."""
        about = (_said.c.repository == repository, _said.c.digest == str(digest))
        with self._read() as conn:
            found = conn.scalar(select(_said.c.clearance).where(*about))
        return Digest.parse(found) if found else None

    def tag(self, repository: str, tag: str) -> TagMemory | None:
        """The newest statement on a tag, or None."""
        about = (_tag.c.repository == repository, _tag.c.name == tag)
        with self._read() as conn:
            row = conn.execute(select(_tag).where(*about)).first()
        if row is None:
            return None
        return TagMemory(number=row.number, digest=Digest.parse(row.digest), day=row.day, moves=row.moves)

    def put_tag(self, repository: str, tag: str, memory: TagMemory) -> None:
        """Remember the newest statement on a tag."""
        with self.change():
            self._put(
                _tag,
                repository=repository,
                name=tag,
                number=memory.number,
                digest=str(memory.digest),
                day=memory.day,
                moves=memory.moves,
            )

    # ---- how -----------------------------------------------------------------------------------------------

    def _read(self) -> AbstractContextManager[Connection]:
        return self.change() if self._conn is not None else self._single()

    @contextmanager
    def _single(self) -> Iterator[Connection]:
        with self._translated(), self._reading.connect() as conn:
            yield conn

    def _fact(self, name: str) -> str:
        with self._read() as conn:
            return str(conn.scalar(select(_meta.c.value).where(_meta.c.name == name)))

    def _raise_generation(self) -> None:
        self._put(_meta, name="generation", value=str(self.generation() + 1))

    def _new(self, table: Table, **values: object) -> bool:
        """Insert a row unless its key is there; True if it was inserted."""
        with self.change() as conn:
            return bool(conn.execute(_insert(conn, table, values).on_conflict_do_nothing()).rowcount)

    def _put(self, table: Table, **values: object) -> None:
        """Insert a row, or change the one with its key."""
        key = [column.name for column in table.primary_key]
        with self.change() as conn:
            insert = _insert(conn, table, values)
            rest = {name: insert.excluded[name] for name in values if name not in key}
            conn.execute(insert.on_conflict_do_update(index_elements=key, set_=rest))

    def _make(self) -> None:
        with self.change() as conn:
            _take_over(conn)
            _metadata.create_all(conn)
            self._new(_meta, name="format", value=FORMAT)
            self._new(_meta, name="generation", value="0")
            self._new(_meta, name="id", value=secrets.token_hex(16))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, ImportError) as error:
            cause = getattr(error, "orig", None) or error
            raise SignerMemoryError(f"{self._what}: {' '.join(str(cause).split())[:500]}") from error


def facts(where: Path | str) -> dict[str, str]:
    """What the memory there says of itself (`format`, `id`, `key`), nothing if there is none yet; changes nothing.

    Raises:
        SignerMemoryError: it cannot be opened.
    """
    if isinstance(where, Path) and not where.exists():
        return {}
    engine = create_engine(_url(where))
    try:
        with engine.connect() as conn:
            if not inspect(conn).has_table(_meta.name):
                return {}
            return {row.name: row.value for row in conn.execute(select(_meta))}
    except (SQLAlchemyError, ImportError) as error:
        cause = getattr(error, "orig", None) or error
        raise SignerMemoryError(f"signer memory: {' '.join(str(cause).split())[:500]}") from error
    finally:
        engine.dispose()


def _url(where: Path | str) -> URL:
    if isinstance(where, Path):
        return URL.create("sqlite", database=str(where))
    url = make_url(where)
    return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # `change` says BEGIN itself
    for pragma in ("synchronous = FULL", "trusted_schema = OFF", "busy_timeout = 10000"):
        connection.execute(f"PRAGMA {pragma}")


def _insert(conn: Connection, table: Table, values: dict[str, object]) -> Any:  # of one dialect or the other
    dialect: Any = postgresql if conn.dialect.name == "postgresql" else sqlite
    return dialect.insert(table).values(**values)


def _take_over(conn: Connection) -> None:
    """Have a file of format 1 be one of this format."""
    there = set(inspect(conn).get_table_names())
    if not {"meta", "current", "said"} <= there or _meta.name in there:
        return
    for table in ("meta", "current", "withdrawn", "said", "tag"):
        conn.exec_driver_sql(f"ALTER TABLE {table} RENAME TO signer_{table}")
    conn.exec_driver_sql("UPDATE signer_meta SET value = '2' WHERE name = 'format' AND value = '1'")


def _to_current(row: Row[Any]) -> Current:
    return Current(
        name=row.name,
        number=row.number,
        digest=Digest.parse(row.digest),
        issued=datetime.fromtimestamp(row.issued, UTC),
        envelope=bytes(row.envelope),
    )
