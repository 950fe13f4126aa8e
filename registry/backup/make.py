"""Writes a backup of the catalogue, while the registry works: one state of it, from one reading transaction.

SQLite's readers see one state of a database in WAL mode and hold up nobody; on PostgreSQL the transaction is
REPEATABLE READ. Both are read by the same statements, so a backup of one can be restored into the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Table, select

from ocispec.digest import Digest
from policy.times import format_time
from registry.audit import Audit, Event, head
from registry.backup.file import Head, Value, Writer, file_digest, written
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.catalogue.upgrade import found_revision, newest_revision
from registry.errors import BackupError, RegistryError
from registry.settings import Settings
from registry.signer.identity import memory_place
from registry.signer.memory import facts

LEFT_OUT: Final = frozenset({schema.uploads.name, schema.leases.name})
"""What ends with the processes that it is about: uploads under way, whose bytes are nowhere else, and leases."""

_PAGE: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was made: its file and the digest of that, and how many rows are in it."""

    path: Path
    digest: str
    head: Head
    rows: int


def make_backup(settings: Settings, path: Path, *, now: datetime) -> Backup:
    """Write the catalogue to a new file, and record that in the audit.

    Raises:
        BackupError: the file cannot be written, or is there already; the tables are of another release.
        CatalogueError: the catalogue cannot be read.
    """
    memory, generation = _signer(settings)
    catalogue = Catalogue(settings.catalogue_url, connections=2)
    try:
        with written(path) as stream, catalogue.read() as conn:
            if (revision := found_revision(conn)) != newest_revision():
                raise BackupError(
                    f"backup: the catalogue's tables are of revision {revision}, this release has {newest_revision()}: "
                    "the release that runs makes it, or a start of this one, which brings the tables up to date"
                )
            records, chain = head(conn)
            made = Head(
                registry=settings.name,
                revision=newest_revision(),
                made=format_time(now),
                records=records,
                chain=chain,
                memory=memory,
                generation=generation,
            )
            writer = Writer(stream, made)
            for table in schema.metadata.sorted_tables:
                if table.name not in LEFT_OUT:
                    _write(conn, table, writer)
            rows = writer.end()
        digest = file_digest(path)
        with catalogue.write() as conn:
            after = f"{records} records, {digest}"
            Audit(lambda: now).append(conn, Event.BACKUP, principal="registry", subject=settings.name, after=after)
    finally:
        catalogue.close()
    return Backup(path=path, digest=digest, head=made, rows=rows)


def _write(conn: Connection, table: Table, writer: Writer) -> None:
    columns = [column.name for column in table.columns]
    writer.table(table.name, columns)
    reading = conn.execution_options(stream_results=True, yield_per=_PAGE)
    for row in reading.execute(select(table).order_by(*table.primary_key)):
        writer.row([_plain(value) for value in row])


def _plain(value: Any) -> Value:
    """A value as its column keeps it."""
    if isinstance(value, datetime):
        return int(value.timestamp())
    if isinstance(value, Digest):
        return str(value)
    if isinstance(value, memoryview):
        return bytes(value)
    if value is None or isinstance(value, int | str | bytes):
        return value
    raise BackupError(f"backup: a value of type {type(value).__name__}, which its format does not have")


def _signer(settings: Settings) -> tuple[str, int]:
    """The signer's memory, if it can be read here, and how far it is. What is read first can only be too low."""
    try:
        known = facts(memory_place(settings))
    except (RegistryError, OSError):
        return "", 0
    return known.get("id", ""), int(known.get("generation", "0"))
