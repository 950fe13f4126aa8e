"""Restores a backup into an empty database, of either kind, and looks at what came of it.

 (1) the file is looked through: its digest, and that all of it is there; it is of this registry, and the signer's
     memory here goes together with it;
 (2) tables of the backup's revision are made, in a database that holds nothing;
 (3) all rows are put into them in one transaction; older tables are then brought to this release;
 (4) what ended with the processes is let go of, and everything is to be judged anew; what the signer's memory knows and
     the backup does not is taken in (`knowledge.py`); the restoring is recorded;
 (5) the audit chain is verified, and each blob looked for in the store.

From (3) to (4) a mark in the catalogue keeps the registry from starting on it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, column, delete, exists, func, insert, inspect, select, table, text, update

from registry import statements
from registry.audit import Audit, Event
from registry.backup.file import Head, Reader
from registry.backup.found import Found, look
from registry.backup.knowledge import check_memory, take_newer
from registry.catalogue import schema
from registry.catalogue.database import Catalogue, put_row
from registry.catalogue.upgrade import newest_revision
from registry.errors import BackupError
from registry.judge.jobs import JobKind, enqueue
from registry.prepare import RESTORING
from registry.settings import Settings
from registry.store.interface import BlobStore
from registry.store.open import open_store

_PIECE: Final = 500
_OWN: Final = "schema"
"""The row of `meta` that the database's own making has written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What was restored; `notes` are for the operator, `found` is what looking at it came to."""

    head: Head
    rows: int
    notes: tuple[str, ...]
    found: Found


def restore_backup(
    settings: Settings, path: Path, *, now: datetime, older_memory: bool = False, store: BlobStore | None = None
) -> Restored:
    """Restore the backup at `path` into the database of the settings.

    Raises:
        BackupError: the file is no backup of this registry, or damaged; the database is not empty; the signer's memory
            is older than the backup, unless that is on purpose (`older_memory`).
        CatalogueError, StorageError: database or store cannot be used.
    """
    backup = Reader(path)
    head = backup.head
    if head.registry != settings.name:
        raise BackupError(f"backup {path}: is of registry {head.registry!r}, the settings are of {settings.name!r}")
    if head.revision > newest_revision():
        raise BackupError(
            f"backup {path}: its tables are of revision {head.revision}, this release knows them up to "
            f"{newest_revision()}: the release that made it, or a later one, restores it"
        )
    notes = check_memory(settings, head, older=older_memory)
    try:
        settings.data.mkdir(mode=0o770, parents=True, exist_ok=True)
    except OSError as error:
        raise BackupError(f"folder {settings.data}: {error.strerror}") from error
    catalogue = Catalogue(settings.catalogue_url, connections=2)
    try:
        with catalogue.read() as conn:
            _check_empty(conn)
        catalogue.create(head.revision)
        with catalogue.write() as conn:
            _check_empty(conn)
            _fill(conn, backup)
        catalogue.create()
        with catalogue.write() as conn:
            statements.lock_statements(conn)
            audit = Audit(lambda: now)
            _let_go(conn)
            notes = (*notes, *take_newer(conn, settings, audit, now))
            for kind, subject in ((JobKind.REJUDGE, "all"), (JobKind.LIST, "")):
                enqueue(conn, kind, subject, now=now)
            before, after = f"{head.records} records, {head.chain}", f"backup of {head.made}"
            audit.append(conn, Event.RESTORE, principal="registry", subject=settings.name, before=before, after=after)
            conn.execute(delete(schema.meta).where(schema.meta.c.name == RESTORING))
        found = look(catalogue, store if store is not None else open_store(settings), settings.name, head, now)
    finally:
        catalogue.close()
    return Restored(head=head, rows=backup.total, notes=notes, found=found)


def _check_empty(conn: Connection) -> None:
    """Nothing that was ever used is written over."""
    there = set(inspect(conn).get_table_names())
    for known in (schema.audit, schema.accounts, schema.repositories, schema.statements, schema.trust):
        if known.name in there and conn.scalar(select(exists().select_from(known))):
            raise BackupError(
                f"catalogue: its table {known.name} has rows; a backup is restored into an empty database"
            )


def _fill(conn: Connection, backup: Reader) -> None:
    there = set(inspect(conn).get_table_names())
    for (name, columns), rows in groupby(backup.rows(), key=lambda found: found[:2]):
        if name not in there:
            raise BackupError(f"backup: its table {name[:80]} is not one of revision {backup.head.revision}")
        into = table(name, *[column(each) for each in columns])
        values: Iterator[dict[str, object]] = (dict(zip(columns, row, strict=True)) for _, _, row in rows)
        made = delete(into)  # what a revision puts there when it is made
        if name == schema.meta.name:
            made = made.where(into.c.name != _OWN)
            values = (row for row in values if row["name"] != _OWN)
        conn.execute(made)
        for piece in _pieces(values):
            conn.execute(insert(into), piece)
    put_row(conn, schema.meta, name=RESTORING, value=backup.head.made)
    if conn.dialect.name == "postgresql":
        _count_on(conn)


def _pieces(rows: Iterator[dict[str, object]]) -> Iterator[list[dict[str, object]]]:
    piece: list[dict[str, object]] = []
    for row in rows:
        piece.append(row)
        if len(piece) == _PIECE:
            yield piece
            piece = []
    if piece:
        yield piece


def _count_on(conn: Connection) -> None:
    """Numbers that PostgreSQL gives by itself go on behind those that were put in."""
    for each in schema.metadata.sorted_tables:
        for key in each.primary_key:
            if key.autoincrement is True:
                highest = conn.scalar(select(func.max(key)))
                sequence = text("SELECT setval(pg_get_serial_sequence(:table, :column), :number, :used)")
                values = {"table": each.name, "column": key.name, "number": highest or 1, "used": highest is not None}
                conn.execute(sequence, values)


def _let_go(conn: Connection) -> None:
    """What was in the hands of processes that are gone is free."""
    conn.execute(update(schema.jobs).values(claimed_by="", claimed_until=None))
    going = schema.collections.c.state == "running"
    conn.execute(update(schema.collections).where(going).values(state="waiting"))
