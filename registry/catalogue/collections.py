"""Runs of the collector: asked for, going on, and what each came to. At most one goes on at a time."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from registry.catalogue.database import put_row
from registry.catalogue.locks import Lock, hold
from registry.catalogue.schema import collections, meta
from registry.errors import CollectionLostError

KEPT: Final = 100
"""Runs that are remembered."""

_RUNS: Final = collections.c
_SWEPT: Final = "swept"


class Progress(StrEnum):
    """How far a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One run; `worker` is the judge whose child it is, `report` is JSON, "" before its end."""

    id: str
    requested: datetime
    requested_by: str
    dry_run: bool
    state: Progress
    worker: str
    started: datetime | None
    ended: datetime | None
    report: str


def request_collection(conn: Connection, *, by: str, dry_run: bool, now: datetime) -> str:
    """Record that a run is wanted; returns its id."""
    wanted = secrets.token_hex(16)
    conn.execute(
        insert(collections).values(
            id=wanted, requested=now, requested_by=by, dry_run=dry_run, state=Progress.WAITING, worker="", report=""
        )
    )
    return wanted


def begin_collection(conn: Connection, run: str, *, worker: str, now: datetime, until: datetime) -> bool:
    """Begin a run that waits; False while another one goes on.

    One that has said nothing until its `until` is taken for dead, and what it left is finished by this one.

    Raises:
        CollectionLostError: it is not known, or over.
    """
    hold(conn, Lock.COLLECTION)
    found = find_collection(conn, run)
    if found is None or found.state is not Progress.WAITING:
        raise CollectionLostError(f"collection {run[:32]}: not known, or begun before")
    if conn.scalar(select(_RUNS.id).where(_RUNS.state == Progress.RUNNING, _RUNS.until >= now)) is not None:
        return False
    _fail(conn, _RUNS.state == Progress.RUNNING, now)
    begun = {"state": Progress.RUNNING, "worker": worker, "started": now, "until": until}
    conn.execute(update(collections).where(_RUNS.id == run).values(**begun))
    return True


def bury_collections(conn: Connection, worker: str, *, now: datetime) -> None:
    """Say that the runs of a worker are over, which is known to be dead, and they with it."""
    hold(conn, Lock.COLLECTION)
    _fail(conn, (_RUNS.state == Progress.RUNNING) & (_RUNS.worker == worker), now)


def renew_collection(conn: Connection, run: str, *, until: datetime) -> None:
    """Say that a run still goes on.

    Raises:
        CollectionLostError: it was taken for dead.
    """
    this = update(collections).where(_RUNS.id == run, _RUNS.state == Progress.RUNNING)
    if not conn.execute(this.values(until=until)).rowcount:
        raise CollectionLostError(f"collection {run}: was taken for dead, and another one may go on")


def end_collection(conn: Connection, run: str, *, state: Progress, report: str, now: datetime) -> None:
    """Record what a run came to, and forget the oldest ones."""
    conn.execute(update(collections).where(_RUNS.id == run).values(state=state, report=report, ended=now))
    oldest = select(_RUNS.id).where(_RUNS.state.in_([Progress.DONE, Progress.FAILED]))
    gone = conn.scalars(oldest.order_by(_RUNS.requested.desc(), _RUNS.id).offset(KEPT)).all()
    conn.execute(delete(collections).where(_RUNS.id.in_(gone)))


def _fail(conn: Connection, which: ColumnElement[bool], now: datetime) -> None:
    report = json.dumps({"error": "the collector died"})
    conn.execute(update(collections).where(which).values(state=Progress.FAILED, ended=now, report=report))


def last_sweep(conn: Connection) -> datetime | None:
    """When a run last began that looked through the whole store and came to its end."""
    said = conn.scalar(select(meta.c.value).where(meta.c.name == _SWEPT))
    return datetime.fromtimestamp(int(said), UTC) if said is not None else None


def note_sweep(conn: Connection, at: datetime) -> None:
    """Record that such a run, which began then, came to its end."""
    put_row(conn, meta, name=_SWEPT, value=str(int(at.timestamp())))


def find_collection(conn: Connection, run: str) -> Collection | None:
    """The run of that id."""
    row = conn.execute(select(collections).where(_RUNS.id == run)).first()
    return _collection(row) if row is not None else None


def list_collections(conn: Connection, limit: int) -> tuple[Collection, ...]:
    """The newest runs."""
    rows = conn.execute(select(collections).order_by(_RUNS.requested.desc(), _RUNS.id).limit(limit))
    return tuple(_collection(row) for row in rows)


def _collection(row: Row[tuple[object, ...]]) -> Collection:
    return Collection(
        id=row.id,
        requested=row.requested,
        requested_by=row.requested_by,
        dry_run=row.dry_run,
        state=Progress(row.state),
        worker=row.worker,
        started=row.started,
        ended=row.ended,
        report=row.report,
    )
