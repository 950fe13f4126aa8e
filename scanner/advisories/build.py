"""The import: sources in, one immutable snapshot file out, put in place of the old one in one step.

A record that cannot be read is counted, kept with its reason and the packages it names, and reported by
every scan of one of them. A source without a single good record is an error: an empty file must never look
like good news. Two records of one id: the later modified one counts (OSV schema, `modified`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from ocispec.digest import Digest
from scanner.advisories import schema
from scanner.advisories.endoflife import parse_products
from scanner.advisories.kev import parse_catalogue
from scanner.advisories.osv import named_packages, parse_advisory
from scanner.advisories.records import Advisory, Affected, Product
from scanner.advisories.sources import Document, Source, SourceKind, documents
from scanner.codec import to_json
from scanner.errors import ScanError
from scanner.model import DataSource

MAX_PROBLEMS: Final = 10_000
"""Broken records that are kept with their reason; all are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A record that could not be read: where, and why."""

    source: str
    name: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A snapshot file that was written: its digest, what is in it, and what could not be read."""

    path: Path
    digest: Digest
    date: str
    sources: tuple[DataSource, ...]
    problems: tuple[Problem, ...]


def import_sources(sources: Sequence[Source], target: Path, *, now: datetime) -> Snapshot:
    """Read `sources` and write them to the snapshot file `target`, replacing it at the end or not at all.

    Raises:
        ScanError: no source, a source that cannot be read or has no good record, or the disk is full.
    """
    if not sources:
        raise ScanError("advisory import: no source given")
    date = _text(now)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with contextlib.closing(sqlite3.connect(partial, isolation_level=None)) as database:
            build = _Build(database, date)
            read = tuple(build.source(source) for source in sources)
            build.finish()
        digest = _publish(partial, target)
    except (sqlite3.Error, OSError) as error:
        raise ScanError(f"{target}: cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return Snapshot(path=target, digest=digest, date=date, sources=read, problems=tuple(build.problems))


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")


def _publish(partial: Path, target: Path) -> Digest:
    with partial.open("rb") as file:
        digest = Digest("sha256", hashlib.file_digest(file, "sha256").hexdigest())
        os.fsync(file.fileno())
    partial.chmod(0o644)
    partial.replace(target)
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return digest


class _Build:
    """One snapshot file being written."""

    def __init__(self, database: sqlite3.Connection, date: str) -> None:
        self.database = database
        self.date = date
        self.problems: list[Problem] = []
        self._newest = ""
        self._numbers: dict[str, tuple[int, str]] = {}
        # The file is new and private until it is complete, so nothing needs a journal.
        database.executescript(
            f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA application_id={schema.APPLICATION_ID};"
        )
        database.executescript(schema.TABLES)
        database.execute("BEGIN")

    def source(self, source: Source) -> DataSource:
        """Read one source into the file."""
        digest = hashlib.sha256()
        problems_before, self._broken = len(self.problems), 0
        self._newest = ""
        records = sum(self._document(source, document) for document in _hashed(documents(source), digest))
        if not records:
            detail = self.problems[problems_before].detail if len(self.problems) > problems_before else "it is empty"
            raise ScanError(f"{source.path}: no record could be read, expected at least one: {detail}")
        row = DataSource(
            name=source.name,
            digest=f"sha256:{digest.hexdigest()}",
            date=self.date if source.date is None else min(self.date, _text(source.date)),
            records=records,
            broken=self._broken,
        )
        self.database.execute(
            "INSERT INTO source VALUES (?,?,?,?,?,?)",
            (row.name, source.kind, row.digest, row.date, row.records, row.broken),
        )
        if self._newest:
            # A time to come is a mistake in one record, and must not make all that comes look old.
            newest = min(self.date, self._newest)
            self.database.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (schema.NEWEST + row.name, newest))
        return row

    def finish(self) -> None:
        """Write the counts and indexes, and end the transaction."""
        count = self.database.execute("SELECT count(*) FROM record").fetchone()[0]
        meta = {"format": schema.FORMAT, "date": self.date, "records": str(count)}
        self.database.executemany("INSERT INTO meta VALUES (?,?)", sorted(meta.items()))
        self.database.execute("COMMIT")
        self.database.executescript(schema.INDEXES)

    def _document(self, source: Source, document: Document) -> int:
        what = f"{source.name} {document.name}"
        if document.problem:
            self._report(source, document.name, document.problem, b"")
            return 0
        try:
            if source.kind is SourceKind.KEV:
                return self._catalogue(source, document, what)
            if source.kind is SourceKind.END_OF_LIFE:
                return self._products(source, document, what)
            advisory = parse_advisory(document.raw, what=what)
        except ScanError as error:
            self._report(source, document.name, str(error), document.raw)
            return 0
        self._newest = max(self._newest, _text(datetime.fromisoformat(advisory.modified)))
        self._advisory(advisory)
        return 1

    def _report(self, source: Source, name: str, detail: str, raw: bytes) -> None:
        self._broken += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(source=source.name, name=name, detail=detail))
        identifier, packages = named_packages(raw)
        rows = [(*package, identifier or name, detail) for package in sorted(packages) or [("", "")]]
        self.database.executemany("INSERT INTO broken VALUES (?,?,?,?)", rows)

    def _advisory(self, advisory: Advisory) -> None:
        number, modified = self._numbers.get(advisory.id, (0, ""))
        if number:
            if datetime.fromisoformat(advisory.modified) < datetime.fromisoformat(modified):
                return
            self.database.execute("DELETE FROM record WHERE number=?", (number,))
            self.database.execute("DELETE FROM affected WHERE record=?", (number,))
        body = _json(to_json(replace(advisory, affected=())))
        number = self.database.execute("INSERT INTO record (id, body) VALUES (?,?)", (advisory.id, body)).lastrowid or 0
        self._numbers[advisory.id] = (number, advisory.modified)
        packages: dict[tuple[str, str], list[Affected]] = {}
        for item in advisory.affected:
            packages.setdefault((item.ecosystem, item.name), []).append(item)
        self.database.executemany(
            "INSERT INTO affected VALUES (?,?,?,?)",
            [(*package, number, _json(to_json(tuple(items)))) for package, items in packages.items()],
        )

    def _catalogue(self, source: Source, document: Document, what: str) -> int:
        entries, problems = parse_catalogue(document.raw, what=what)
        for problem in problems:
            self._report(source, document.name, problem, b"")
        self.database.executemany(
            "INSERT OR REPLACE INTO exploited VALUES (?,?,?,?)",
            [(entry.cve, entry.added, entry.due, entry.ransomware) for entry in entries],
        )
        self._newest = max(self._newest, *(f"{entry.added}T00:00:00Z" for entry in entries), "")
        return len(entries)

    def _products(self, source: Source, document: Document, what: str) -> int:
        products, problems = parse_products(document.raw, what=what)
        for problem in problems:
            self._report(source, document.name, problem, b"")
        for product in products:
            self._product(product)
        return len(products)

    def _product(self, product: Product) -> None:
        self.database.executemany(
            "INSERT OR REPLACE INTO cycle VALUES (?,?,?,?,?,?)",
            [
                (product.name, position, cycle.name, cycle.codename, cycle.eol, cycle.ended)
                for position, cycle in enumerate(product.cycles)
            ],
        )
        self.database.executemany(
            "INSERT OR REPLACE INTO purl VALUES (?,?)", [(purl, product.name) for purl in product.identifiers]
        )


def _hashed(read: Iterator[Document], digest: hashlib._Hash) -> Iterator[Document]:
    # The digest is of the names and bytes in order, so that a zip and the folder it was made from agree.
    for document in read:
        digest.update(f"{len(document.name)}:{document.name}:{len(document.raw)}:".encode("utf-8", "surrogateescape"))
        digest.update(document.raw)
        yield document


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
