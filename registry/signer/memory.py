"""What the signer may not forget: the highest numbers, what was withdrawn, and what it last said of each image.

One SQLite file beside the key, of the same owner. Each change is on the disk before the signature that rests on
it leaves the process (synchronous=FULL), so a crash can lose a number, never repeat one. Whoever puts an older
copy of this file back takes the registry back in time; hosts then refuse its lower numbers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ocispec.digest import Digest
from registry.errors import RegistryError

FORMAT: Final = "1"

_TABLES: Final = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS current (name TEXT PRIMARY KEY, number INTEGER NOT NULL, digest TEXT NOT NULL,
                                    issued INTEGER NOT NULL, envelope BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS withdrawn (digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS said (repository TEXT NOT NULL, digest TEXT NOT NULL, clearance TEXT NOT NULL,
                                 until INTEGER NOT NULL, PRIMARY KEY (repository, digest)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tag (repository TEXT NOT NULL, name TEXT NOT NULL, number INTEGER NOT NULL,
                                digest TEXT NOT NULL, day INTEGER NOT NULL, moves INTEGER NOT NULL,
                                PRIMARY KEY (repository, name)) WITHOUT ROWID;
"""


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
    """The file at `path`; one thread."""

    def __init__(self, path: Path) -> None:
        """Open the file, and make it if there is none.

        Raises:
            SignerMemoryError: it cannot be opened, or is of another format.
        """
        self._what = f"signer memory {path}"
        with self._translated():
            self._database = sqlite3.connect(path, isolation_level=None, timeout=10)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.execute("PRAGMA trusted_schema = OFF")
            self._database.executescript(_TABLES)
            self._database.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))
            found = self._database.execute("SELECT value FROM meta WHERE name = 'format'").fetchone()[0]
        if found != FORMAT:
            raise SignerMemoryError(f"{self._what}: format {found!r}, expected {FORMAT!r}")

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """A transaction: on the disk when the block ends, undone when it raises."""
        with self._translated():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def current(self, name: str) -> Current | None:
        """The newest `name`, or None."""
        found = self._rows("SELECT * FROM current WHERE name = ?", name)
        return _current(found[0]) if found else None

    def currents(self, prefix: str) -> tuple[Current, ...]:
        """The newest of each name that begins with `prefix`."""
        rows = self._rows("SELECT * FROM current WHERE substr(name, 1, ?) = ? ORDER BY name", len(prefix), prefix)
        return tuple(_current(row) for row in rows)

    def put_current(self, current: Current) -> None:
        """Remember the newest of something, in place of the one before; the caller has compared the numbers."""
        self._do(
            "INSERT OR REPLACE INTO current VALUES (?, ?, ?, ?, ?)",
            current.name,
            current.number,
            str(current.digest),
            int(current.issued.timestamp()),
            current.envelope,
        )

    def withdraw(self, statement: Digest) -> None:
        """Remember that a statement was withdrawn."""
        self._do("INSERT OR IGNORE INTO withdrawn VALUES (?)", str(statement))

    def is_withdrawn(self, statement: Digest) -> bool:
        """True if the statement was withdrawn."""
        return bool(self._rows("SELECT 1 FROM withdrawn WHERE digest = ?", str(statement)))

    def say(self, repository: str, digest: Digest, clearance: Digest | None, until: datetime, now: datetime) -> None:
        """Remember what was last said of an image: this clearance, or (None) that it is not cleared.

        A denial is kept until the last clearance signed before it has ended; what has ended is forgotten.
        """
        ends = int(until.timestamp())
        self._do("DELETE FROM said WHERE until < ?", int(now.timestamp()))
        before = self._rows("SELECT until FROM said WHERE repository = ? AND digest = ?", repository, str(digest))
        if clearance is None and not before:
            return
        kept = max([ends, *(int(str(row[0])) for row in before)])
        said = str(clearance) if clearance is not None else ""
        self._do("INSERT OR REPLACE INTO said VALUES (?, ?, ?, ?)", repository, str(digest), said, kept)

    def said(self, repository: str, digest: Digest) -> Digest | None:
        """The digest of the clearance that was last given, or None: none, or a denial came after it."""
        found = self._rows("SELECT clearance FROM said WHERE repository = ? AND digest = ?", repository, str(digest))
        return Digest.parse(str(found[0][0])) if found and found[0][0] else None

    def tag(self, repository: str, tag: str) -> TagMemory | None:
        """The newest statement on a tag, or None."""
        found = self._rows(
            "SELECT number, digest, day, moves FROM tag WHERE repository = ? AND name = ?", repository, tag
        )
        if not found:
            return None
        number, digest, day, moves = found[0]
        return TagMemory(
            number=int(str(number)), digest=Digest.parse(str(digest)), day=int(str(day)), moves=int(str(moves))
        )

    def put_tag(self, repository: str, tag: str, memory: TagMemory) -> None:
        """Remember the newest statement on a tag."""
        self._do(
            "INSERT OR REPLACE INTO tag VALUES (?, ?, ?, ?, ?, ?)",
            repository,
            tag,
            memory.number,
            str(memory.digest),
            memory.day,
            memory.moves,
        )

    def _rows(self, query: str, *arguments: object) -> list[tuple[object, ...]]:
        with self._translated():
            return self._database.execute(query, arguments).fetchall()

    def _do(self, query: str, *arguments: object) -> None:
        with self._translated():
            self._database.execute(query, arguments)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise SignerMemoryError(f"{self._what}: {error}") from error


def _current(row: tuple[object, ...]) -> Current:
    name, number, digest, issued, envelope = row
    return Current(
        name=str(name),
        number=int(str(number)),
        digest=Digest.parse(str(digest)),
        issued=datetime.fromtimestamp(int(str(issued)), UTC),
        envelope=envelope if isinstance(envelope, bytes) else b"",
    )
