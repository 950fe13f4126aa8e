"""The judge's durable queue: rows of the catalogue's `jobs` table, claimed for a time and fenced by the claim.

- One row a kind and subject. Who wants it done again while it is being done makes `wanted` rise, and it is
  done again.
- A claim ends by itself: the job of a worker that was killed is taken by the next one. `attempts` counts claims,
  so a job that kills every worker is seen.
- `finish` is part of the transaction that writes the job's result, and raises if the claim was lost meanwhile: of
  two workers that hold one job, only one writes.
- A job that is due again later (the renewal of a clearance) stays as its row, with its time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Row, Select, case, delete, func, literal, or_, select, update

from registry.catalogue import schema
from registry.catalogue.columns import Moment
from registry.catalogue.database import insert_new, insert_or_change, insert_or_change_all
from registry.errors import RegistryError
from registry.telemetry import origin
from registry.telemetry.origin import Origin

CLAIM_SECONDS: Final = 60
"""How long a claim holds without being renewed."""

MAX_ERROR: Final = 2000

_JOBS = schema.jobs.c


class JobKind(StrEnum):
    """What there is to do; the subject's meaning is in brackets."""

    JUDGE = "judge"
    """Judge an image or index (`repository@digest`)."""
    REJUDGE = "rejudge"
    """Find the images that a change touches, and have them judged (what changed, e.g. `statement sha256:…`)."""
    LIST = "list"
    """Date the revocation list anew (empty)."""
    CHECKPOINT = "checkpoint"
    """Have the head of the audit chain signed (empty)."""
    ADVISORIES = "advisories"
    """Import uploaded advisory data (empty)."""
    COLLECT = "collect"
    """Do a run of the collector (its id), or ask for one, when it is time (empty)."""
    MIRROR = "mirror"
    """Fetch a manifest of another registry into its copy (`repository tag-or-digest`); not for a judge."""


JUDGED: Final = frozenset(JobKind) - {JobKind.MIRROR}
"""What judges do."""


class Priority:
    """Jobs of a higher priority are taken first: what stops things before what lets them go on."""

    FIRST: Final = 30
    """What hosts wait for (`_FIRST`), whatever is asked for: a million urgent judgements may be before it."""
    URGENT: Final = 20
    PUSH: Final = 10
    CHANGE: Final = 5
    RENEWAL: Final = 0

    ALL: Final = (FIRST, URGENT, PUSH, CHANGE, RENEWAL)


_FIRST: Final = frozenset({JobKind.LIST})


class ClaimLostError(RegistryError):
    """The job is another worker's by now; nothing of this one's result may be written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A claimed job; `due` is since when it could be claimed."""

    id: int
    kind: JobKind
    subject: str
    wanted: int
    attempts: int
    claim: str
    due: datetime
    origin: Origin


def subject_of(repository: str, digest: object) -> str:
    """The subject of a JUDGE job."""
    return f"{repository}@{digest}"


def enqueue(
    conn: Connection, kind: JobKind, subject: str = "", *, now: datetime, priority: int = Priority.CHANGE
) -> None:
    """Have a job done as soon as possible, in the caller's writing transaction; one that waits is brought forward.

    The job has the origin of what is done now: a request's log lines and spans are found from its judgement.
    """
    enqueue_all(conn, kind, [subject], now=now, priority=priority)


def enqueue_all(
    conn: Connection, kind: JobKind, subjects: Collection[str], *, now: datetime, priority: int = Priority.CHANGE
) -> None:
    """`enqueue` for each of some subjects."""
    asked, priority = origin.current.get(), _priority(kind, priority)
    insert_or_change_all(
        conn,
        schema.jobs,
        key=("kind", "subject"),
        rows=[_new(kind, subject, priority, now) for subject in subjects],
        change={
            "wanted": _JOBS.wanted + 1,
            "attempts": 0,
            "priority": case((_JOBS.priority > priority, _JOBS.priority), else_=priority),
            "not_before": case((_JOBS.not_before < now, _JOBS.not_before), else_=literal(now, Moment())),
            "request": asked.request,
            "trace": asked.trace,
        },
    )


def enqueue_new(conn: Connection, kind: JobKind, subject: str = "", *, now: datetime) -> None:
    """Have a job done, unless there is one already, due or not."""
    insert_new(conn, schema.jobs, **_new(kind, subject, Priority.CHANGE, now))


def enqueue_by(conn: Connection, kind: JobKind, *, now: datetime, at: datetime) -> None:
    """Have a job without a subject done at `at`, or earlier if it is due earlier."""
    insert_or_change(
        conn,
        schema.jobs,
        key=("kind", "subject"),
        values=_new(kind, "", Priority.CHANGE, now) | {"not_before": at},
        change={"not_before": case((_JOBS.not_before < at, _JOBS.not_before), else_=literal(at, Moment()))},
    )


def forget(conn: Connection, kind: JobKind) -> None:
    """Have a job without a subject not done any more."""
    conn.execute(delete(schema.jobs).where(_JOBS.kind == kind, _JOBS.subject == ""))


def _priority(kind: JobKind, priority: int) -> int:
    return Priority.FIRST if kind in _FIRST else priority


def _new(kind: JobKind, subject: str, priority: int, now: datetime) -> dict[str, object]:
    asked = origin.current.get()
    return {
        "kind": kind,
        "subject": subject,
        "priority": _priority(kind, priority),
        "wanted": 1,
        "not_before": now,
        "attempts": 0,
        "created": now,
        "request": asked.request,
        "trace": asked.trace,
    }


def is_due(conn: Connection, kind: JobKind, subject: str, *, now: datetime) -> bool:
    """True if such a job is waiting or being done."""
    due = or_(_JOBS.not_before <= now, _JOBS.claimed_by != "")
    return conn.scalar(select(_JOBS.id).where(_JOBS.kind == kind, _JOBS.subject == subject, due)) is not None


def any_free(conn: Connection, *, now: datetime, kinds: Collection[JobKind]) -> bool:
    """True if there is a job of these kinds to claim; cheap, for a reading transaction."""
    return any(conn.scalar(query) is not None for query in _by_priority(select(_JOBS.id), now, kinds))


def claim(conn: Connection, *, token: str, now: datetime, kinds: Collection[JobKind]) -> Job | None:
    """Take the most urgent job of these kinds that nobody holds, in a writing transaction.

    `token` is new for each claim.
    """
    for query in _by_priority(select(schema.jobs), now, kinds):
        row = conn.execute(query.with_for_update(skip_locked=True)).first()
        if row is not None:
            return _claimed(conn, row, token, now)
    return None


def _claimed(conn: Connection, row: Row[Any], token: str, now: datetime) -> Job:
    conn.execute(
        update(schema.jobs)
        .where(_JOBS.id == row.id)
        .values(claimed_by=token, claimed_until=_until(now), attempts=row.attempts + 1)
    )
    return Job(
        id=row.id,
        kind=JobKind(row.kind),
        subject=row.subject,
        wanted=row.wanted,
        attempts=row.attempts + 1,
        claim=token,
        due=row.not_before,
        origin=Origin(row.request, row.trace),
    )


def free_claims_of(conn: Connection, worker: str) -> int:
    """Give back what the worker of that name held: for its successor, which knows that it is dead; how many."""
    held = _JOBS.claimed_by.startswith(f"{worker}:", autoescape=True)
    return int(conn.execute(update(schema.jobs).where(held).values(claimed_by="", claimed_until=None)).rowcount)


def renew(conn: Connection, job: Job, *, now: datetime) -> None:
    """Hold on to a job that takes long.

    Raises:
        ClaimLostError: it is another worker's by now.
    """
    _change(conn, job, claimed_until=_until(now))


def finish(conn: Connection, job: Job, *, now: datetime, again_at: datetime | None = None) -> None:
    """The job is done, in the transaction that writes its result; `again_at` keeps it for later.

    If it was wanted again meanwhile, it is free at once.

    Raises:
        ClaimLostError: it is another worker's by now; the caller's transaction must not be committed.
    """
    # The row is locked: a wish that came between this look and the end would go with the row.
    wanted_again = conn.scalar(select(_JOBS.wanted).where(*_held(job)).with_for_update()) != job.wanted
    if wanted_again:
        _change(conn, job, claimed_by="", claimed_until=None, attempts=0, not_before=now, error="")
    elif again_at is not None:
        _change(
            conn,
            job,
            claimed_by="",
            claimed_until=None,
            attempts=0,
            not_before=again_at,
            priority=_priority(job.kind, Priority.RENEWAL),
            error="",
            request="",
            trace="",
        )
    elif not conn.execute(delete(schema.jobs).where(*_held(job))).rowcount:
        raise ClaimLostError(f"job {job.kind} {job.subject}: claimed by another worker")


def release(conn: Connection, job: Job, *, at: datetime, error: str = "") -> None:
    """Give a job back: it could not be done, and is free again at `at`.

    Raises:
        ClaimLostError: it is another worker's by now.
    """
    _change(conn, job, claimed_by="", claimed_until=None, not_before=at, error=error[:MAX_ERROR])


def next_due(conn: Connection) -> datetime | None:
    """When the next job becomes free, or None if there is none."""
    return conn.scalar(select(_JOBS.not_before).where(_JOBS.claimed_by == "").order_by(_JOBS.not_before).limit(1))


def _by_priority(query: Select[Any], now: datetime, kinds: Collection[JobKind]) -> Iterator[Select[Any]]:
    """For the first free job of each priority, the highest first: each is where an index begins, however many wait."""
    unclaimed = or_(_JOBS.claimed_by == "", _JOBS.claimed_until < now)
    # An expression, so that no database takes the index of kinds, and looks at all jobs of one.
    kind = func.coalesce(_JOBS.kind, "")
    free = query.where(_JOBS.not_before <= now, unclaimed, kind.in_([str(kind) for kind in kinds]))
    for priority in Priority.ALL:
        yield free.where(_JOBS.priority == priority).order_by(_JOBS.not_before, _JOBS.id).limit(1)


def _held(job: Job) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return _JOBS.id == job.id, _JOBS.claimed_by == job.claim


def _change(conn: Connection, job: Job, **values: object) -> None:
    if not conn.execute(update(schema.jobs).where(*_held(job)).values(**values)).rowcount:
        raise ClaimLostError(f"job {job.kind} {job.subject}: claimed by another worker")


def _until(now: datetime) -> datetime:
    return now + timedelta(seconds=CLAIM_SECONDS)
