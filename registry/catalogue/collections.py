"""Runs of the collector: asked for, going on, and what each came to. At most one goes on at a time."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Row, delete, insert, select, update

from registry.catalogue.locks import Lock, hold
from registry.catalogue.schema import collections
from registry.errors import CollectionLostError

KEPT: Final = 100
"""Runs that are remembered."""

_RUNS: Final = collections.c


class Progress(StrEnum):
    """How far a run is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """One run; `report` is JSON, "" before its end."""

    id: str
    requested: datetime
    requested_by: str
    dry_run: bool
    state: Progress
    started: datetime | None
    ended: datetime | None
    report: str


def request_collection(conn: Connection, *, by: str, dry_run: bool, now: datetime) -> str:
    """Record that a run is wanted; returns its id."""
    wanted = secrets.token_hex(16)
    conn.execute(
        insert(collections).values(
            id=wanted, requested=now, requested_by=by, dry_run=dry_run, state=Progress.WAITING, report=""
        )
    )
    return wanted


def begin_collection(conn: Connection, run: str, *, now: datetime, until: datetime) -> Collection | None:
    """Begin a run that waits, or that died; None while another one goes on.

    A run that is past its `until` has died: what it had begun is finished by this one, as by any later one.

    Raises:
        CollectionLostError: it is not known, or over.
    """
    hold(conn, Lock.COLLECTION)
    found = find_collection(conn, run)
    if found is None or found.state not in {Progress.WAITING, Progress.RUNNING}:
        raise CollectionLostError(f"collection {run[:32]}: not known, or over")
    going = (_RUNS.state == Progress.RUNNING, _RUNS.id != run)
    if conn.scalar(select(_RUNS.id).where(*going, _RUNS.until >= now)) is not None:
        return None
    conn.execute(update(collections).where(*going).values(state=Progress.FAILED, ended=now, report=""))
    conn.execute(update(collections).where(_RUNS.id == run).values(state=Progress.RUNNING, started=now, until=until))
    return found


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
        started=row.started,
        ended=row.ended,
        report=row.report,
    )
