"""The advisory data as a scan uses it: a snapshot file, opened read-only, looked up by package."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from datetime import datetime, timedelta
from pathlib import Path
from typing import cast

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from scanner.advisories import schema
from scanner.advisories.records import Advisory, BrokenRecord, Cycle
from scanner.codec import from_json
from scanner.errors import ScanError
from scanner.model import DataSource


class AdvisoryStore:
    """One snapshot file. Not for use by two threads at once: opening another is cheap."""

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        """Use `open`; this takes a connection that was checked."""
        self._database = database
        self.path = path
        meta = dict(database.execute("SELECT key, value FROM meta"))
        self.date: str = meta["date"]
        self.records = int(meta["records"])
        self.newest: dict[str, str] = {
            key.removeprefix(schema.NEWEST): value for key, value in meta.items() if key.startswith(schema.NEWEST)
        }
        rows = database.execute("SELECT name, digest, date, records, broken FROM source ORDER BY rowid").fetchall()
        self._sources = tuple(
            DataSource(name=name, digest=digest, date=date, records=records, broken=broken)
            for name, digest, date, records, broken in rows
        )

    @classmethod
    def open(cls, path: Path, *, digest: Digest | None = None) -> AdvisoryStore:
        """The store in the snapshot file `path`; with `digest`, only if the file has it.

        Raises:
            ScanError: there is none, it is of another format, or its digest is another one.
        """
        if not path.is_file():
            raise ScanError(f"advisory data {path}: no such file")
        if digest is not None and (got := file_digest(path)) != digest:
            raise ScanError(f"advisory data {path}: digest mismatch: got {got}, want {digest}")
        try:
            database = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None)
        except sqlite3.Error as error:
            raise ScanError(f"advisory data {path}: cannot be opened: {error}") from error
        try:
            _check(database, path)
            return cls(database, path)
        except sqlite3.Error as error:
            database.close()
            raise ScanError(f"advisory data {path}: cannot be read: {error}") from error
        except ScanError:
            database.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def __enter__(self) -> AdvisoryStore:
        """The store itself, closed at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """What the records came from, and when."""
        return self._sources

    def age(self, now: datetime) -> timedelta:
        """How long ago the data were imported."""
        return now - datetime.fromisoformat(self.date)

    def covers(self, ecosystem: str) -> bool:
        """True if there is any record for `ecosystem`."""
        return self._one("SELECT 1 FROM affected WHERE ecosystem=? LIMIT 1", ecosystem) is not None

    def advisories(self, ecosystem: str, name: str) -> tuple[Advisory, ...]:
        """The records for one package, in the order of their ids."""
        rows = self._all(
            "SELECT record.body, affected.body FROM affected JOIN record ON record.number = affected.record"
            " WHERE affected.ecosystem=? AND affected.name=? ORDER BY record.id",
            ecosystem,
            name,
        )
        return tuple(_advisory(cast(str, body), cast(str, affected), f"{ecosystem} {name}") for body, affected in rows)

    def broken(self, ecosystem: str, name: str) -> tuple[BrokenRecord, ...]:
        """The records for one package that could not be read."""
        rows = self._all("SELECT id, detail FROM broken WHERE ecosystem=? AND name=? ORDER BY id", ecosystem, name)
        return tuple(BrokenRecord(id=cast(str, row[0]), detail=cast(str, row[1])) for row in rows)

    def problems(self) -> tuple[BrokenRecord, ...]:
        """All records that could not be read."""
        rows = self._all("SELECT DISTINCT id, detail FROM broken ORDER BY id, detail")
        return tuple(BrokenRecord(id=cast(str, row[0]), detail=cast(str, row[1])) for row in rows)

    def exploited(self, ids: Iterable[str]) -> bool:
        """True if one of these CVE ids is in the KEV catalogue."""
        return any(
            self._one("SELECT 1 FROM exploited WHERE cve=?", name) is not None
            for name in ids
            if name.startswith("CVE-")
        )

    def product_cycles(self, product: str) -> tuple[Cycle, ...]:
        """The release cycles of a product, newest first."""
        rows = self._all(
            "SELECT product, name, codename, eol, ended FROM cycle WHERE product=? ORDER BY position", product
        )
        return tuple(_cycle(row) for row in rows)

    def purl_cycles(self, purl: str) -> tuple[Cycle, ...]:
        """The release cycles of the products that a purl without version identifies."""
        products = [cast(str, row[0]) for row in self._all("SELECT product FROM purl WHERE purl=?", purl)]
        return tuple(cycle for product in products for cycle in self.product_cycles(product))

    def _all(self, query: str, *arguments: str) -> list[tuple[object, ...]]:
        try:
            return self._database.execute(query, arguments).fetchall()
        except sqlite3.Error as error:
            raise ScanError(f"advisory data {self.path}: cannot be read: {error}") from error

    def _one(self, query: str, *arguments: str) -> tuple[object, ...] | None:
        return next(iter(self._all(query, *arguments)), None)


def file_digest(path: Path) -> Digest:
    """The digest of a snapshot file.

    Raises:
        ScanError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
    except OSError as error:
        raise ScanError(f"advisory data {path}: {error.strerror or error}") from error


def _check(database: sqlite3.Connection, path: Path) -> None:
    if database.execute("PRAGMA application_id").fetchone()[0] != schema.APPLICATION_ID:
        raise ScanError(f"advisory data {path}: not a snapshot of advisory data")
    row = database.execute("SELECT value FROM meta WHERE key='format'").fetchone()
    if row is None or row[0] != schema.FORMAT:
        found = row[0] if row is not None else None
        raise ScanError(f"advisory data {path}: format is {found!r:.20}, expected {schema.FORMAT!r}")


def _advisory(body: str, affected: str, what: str) -> Advisory:
    # Our own canonical JSON, from a file whose digest the caller may pin: no need for the strict parser.
    members = cast("dict[str, JsonValue]", json.loads(body))
    return from_json(Advisory, {**members, "affected": json.loads(affected)}, what=what)


def _cycle(row: tuple[object, ...]) -> Cycle:
    product, name, codename, eol, ended = row
    return Cycle(
        product=cast(str, product),
        name=cast(str, name),
        codename=cast(str, codename),
        eol=cast(str, eol),
        ended=bool(ended),
    )
