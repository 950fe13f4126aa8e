"""Runs of the collector: asked for, going on, and what each came to. At most one goes on at a time.

A run is of whoever began it last, its *attempt*. An attempt that is known to be dead, or has said nothing until its
`until`, is over, and the run waits to be taken up again, by whoever comes first. What an attempt writes counts only
while it is the run's: so of two that think so, one is told otherwise before it deletes anything.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from registry.access import REGISTRY
from registry.catalogue.columns import storable
from registry.catalogue.database import put_row
from registry.catalogue.locks import Lock, hold
from registry.catalogue.schema import collected, collections, meta
from registry.errors import CollectionLostError

KEPT: Final = 100
"""Runs that are remembered."""

LISTED: Final = 20
"""Newest runs of which it is remembered what each thing was that they took away."""

WAITING_MOST: Final = 20
"""Runs that may wait."""

MAX_ATTEMPTS: Final = 5
"""Attempts that may die before the run is given up."""

MAX_SUBJECT: Final = 1024

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
    until: datetime | None
    attempts: int
    report: str


class Collected(NamedTuple):
    """One thing that a run took away, or would have; `detail` is more than the reason says, or ""."""

    reason: str
    subject: str
    bytes: int
    detail: str


class Begun(NamedTuple):
    """A run that goes on: whose it is (`attempt`), and when it began."""

    attempt: str
    started: datetime


# ---- asking for runs ------------------------------------------------------------------------------------------------


def request_collection(conn: Connection, *, by: str, dry_run: bool, now: datetime) -> str:
    """Record that a run is wanted; returns its id."""
    wanted = secrets.token_hex(16)
    conn.execute(
        insert(collections).values(
            id=wanted, requested=now, requested_by=by, dry_run=dry_run, state=Progress.WAITING, worker="", report=""
        )
    )
    return wanted


def waiting_collections(conn: Connection) -> int:
    """How many runs wait."""
    return conn.scalar(select(func.count()).where(_RUNS.state == Progress.WAITING)) or 0


def scheduled_waits(conn: Connection) -> bool:
    """True if a run that nobody but the registry itself asked for waits, or goes on."""
    unfinished = _RUNS.state.in_([Progress.WAITING, Progress.RUNNING])
    by_itself = (_RUNS.requested_by == REGISTRY.name, unfinished)
    return conn.scalar(select(_RUNS.id).where(*by_itself).limit(1)) is not None


# ---- going on -------------------------------------------------------------------------------------------------------


def begin_collection(conn: Connection, run: str, *, worker: str, now: datetime, until: datetime) -> Begun | datetime:
    """Begin a run that waits, or whose attempt has said nothing until its `until`.

    While one goes on, this one or another, the time until which that counts as alive.

    Raises:
        CollectionLostError: it is not known, or over.
    """
    hold(conn, Lock.COLLECTION)
    found = find_collection(conn, run)
    if found is None or found.state not in {Progress.WAITING, Progress.RUNNING}:
        raise CollectionLostError(f"collection {run[:32]}: not known, or over")
    alive: datetime | None = conn.scalar(select(func.max(_RUNS.until)).where(_RUNS.state == Progress.RUNNING))
    if alive is not None and alive >= now:
        return alive
    _bury(conn, _RUNS.state == Progress.RUNNING, now)
    attempt = secrets.token_hex(16)
    begun = {"state": Progress.RUNNING, "worker": worker, "attempt": attempt, "started": now, "until": until}
    this = update(collections).where(_RUNS.id == run, _RUNS.state == Progress.WAITING)
    if not conn.execute(this.values(**begun, attempts=_RUNS.attempts + 1)).rowcount:
        raise CollectionLostError(f"collection {run}: {MAX_ATTEMPTS} collectors died at it")
    return Begun(attempt=attempt, started=now)


def bury_collections(conn: Connection, worker: str, *, now: datetime) -> int:
    """Have the runs of a worker wait again, which is known to be dead, and they with it; returns how many."""
    hold(conn, Lock.COLLECTION)
    return _bury(conn, (_RUNS.state == Progress.RUNNING) & (_RUNS.worker == worker), now)


def renew_collection(conn: Connection, run: str, attempt: str, *, until: datetime) -> None:
    """Say that a run still goes on.

    Raises:
        CollectionLostError: it was taken for dead.
    """
    this = update(collections).where(*_of(run, attempt))
    if not conn.execute(this.values(until=until)).rowcount:
        raise CollectionLostError(f"collection {run}: was taken for dead, and another one may go on")


def end_collection(conn: Connection, run: str, attempt: str, *, state: Progress, report: str, now: datetime) -> None:
    """Record what a run came to, and forget the oldest ones.

    Raises:
        CollectionLostError: it was taken for dead.
    """
    this = update(collections).where(*_of(run, attempt))
    if not conn.execute(this.values(state=state, report=report, ended=now)).rowcount:
        raise CollectionLostError(f"collection {run}: was taken for dead, and another one may go on")
    ended = select(_RUNS.id).where(_RUNS.state.in_([Progress.DONE, Progress.FAILED]))
    by_age = ended.order_by(_RUNS.requested.desc(), _RUNS.id)
    conn.execute(delete(collected).where(collected.c.run.in_(conn.scalars(by_age.offset(LISTED)).all())))
    conn.execute(delete(collections).where(_RUNS.id.in_(conn.scalars(by_age.offset(KEPT)).all())))


def _of(run: str, attempt: str) -> tuple[ColumnElement[bool], ...]:
    return _RUNS.id == run, _RUNS.state == Progress.RUNNING, _RUNS.attempt == attempt


def _bury(conn: Connection, which: ColumnElement[bool], now: datetime) -> int:
    """Have dead runs wait to be taken up again; those that died too often are over."""
    report = json.dumps({"error": f"{MAX_ATTEMPTS} collectors died at it"})
    often = which & (_RUNS.attempts >= MAX_ATTEMPTS)
    conn.execute(update(collections).where(often).values(state=Progress.FAILED, ended=now, report=report))
    return int(conn.execute(update(collections).where(which).values(state=Progress.WAITING)).rowcount)


# ---- what was taken away --------------------------------------------------------------------------------------------


def add_collected(conn: Connection, run: str, after: int, things: Sequence[Collected]) -> None:
    """Record things that a run took away; their numbers go on from `after`."""
    if things:
        rows = [
            {
                "run": run,
                "number": number,
                "reason": thing.reason,
                "subject": storable(thing.subject, MAX_SUBJECT),
                "bytes": thing.bytes,
                "detail": storable(thing.detail, MAX_SUBJECT),
            }
            for number, thing in enumerate(things, after + 1)
        ]
        conn.execute(insert(collected), rows)


def list_collected(conn: Connection, run: str, *, after: int, limit: int) -> list[tuple[int, Collected]]:
    """At most `limit` things that a run took away, with numbers above `after`, in their order."""
    at = collected.c
    query = select(at.number, at.reason, at.subject, at.bytes, at.detail).where(at.run == run, at.number > after)
    return [(row[0], Collected(*row[1:])) for row in conn.execute(query.order_by(at.number).limit(limit))]


def forget_collected(conn: Connection, run: str) -> None:
    """Forget what a dry run found before it died: the next attempt finds it again."""
    conn.execute(delete(collected).where(collected.c.run == run))


# ---- what there is to know ------------------------------------------------------------------------------------------


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
        until=row.until,
        attempts=row.attempts,
        report=row.report,
    )
