"""Runs of the collector, as a judge sees to them: begun when asked for or due, each in a child process of its own.

The job of a run is held by the judge while its child lives, and the run itself by the child, which says that it goes
on (`collect/run.py`). The child dies with the judge. A judge that comes after it, under its name, takes the run up
again at once; one of another machine does so when nothing was heard of it for long enough. docs/adr/0112 has the rest.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from registry.access import REGISTRY
from registry.audit import Audit
from registry.catalogue.collections import (
    Begun,
    Collection,
    Progress,
    begin_collection,
    bury_collections,
    find_collection,
    last_sweep,
    request_collection,
    scheduled_waits,
)
from registry.catalogue.database import Catalogue
from registry.collect.collector import collect_and_tell
from registry.collect.report import freed_by
from registry.collect.run import Run, silence_of
from registry.errors import CollectionLostError, RegistryError
from registry.judge import jobs
from registry.judge.jobs import ClaimLostError, Job, JobKind, Priority
from registry.processes import die_with_parent
from registry.settings import Settings
from registry.store.interface import BlobStore
from registry.telemetry import metrics

RETRY: Final = timedelta(seconds=5)
"""How long a run waits that cannot begin, because another one goes on, or whose collector died."""

_RENEW_SECONDS: Final = jobs.CLAIM_SECONDS / 3

_log = logging.getLogger("pratique.collect")


def enqueue_collection(conn: Connection, *, by: str, dry_run: bool, now: datetime) -> str:
    """Have a run done as soon as possible; returns its id."""
    run = request_collection(conn, by=by, dry_run=dry_run, now=now)
    jobs.enqueue(conn, JobKind.COLLECT, run, now=now, priority=Priority.PUSH)
    return run


@dataclass(slots=True, kw_only=True)
class _Child:
    job: Job
    pid: int
    renewed: float = field(default_factory=time.monotonic)


@dataclass(slots=True, kw_only=True)
class Collecting:
    """The runs of one judge, one at a time. `store` is used by children alone: connections are nobody else's."""

    settings: Settings
    store: BlobStore
    catalogue: Catalogue
    clock: Callable[[], datetime]
    _child: _Child | None = None

    @property
    def busy(self) -> bool:
        """True while a child is at work."""
        return self._child is not None

    @property
    def silence(self) -> timedelta:
        """How long a run of which nothing is heard counts as alive."""
        engine = self.settings.storage.s3
        return silence_of(engine.deadline if engine is not None else 0)

    def prepare(self, conn: Connection, worker: str) -> None:
        """Take over what a judge of this name left, and see to it that the next run by schedule is due in time."""
        now = self.clock()
        if buried := bury_collections(conn, worker, now=now):
            _log.warning("%d collections that %s was at when it died are taken up again", buried, worker)
        interval = self.settings.collect.interval
        if interval:
            jobs.enqueue_by(conn, JobKind.COLLECT, now=now, at=now + timedelta(seconds=interval))
        else:
            jobs.forget(conn, JobKind.COLLECT)

    def take(self, job: Job, worker: str) -> None:
        """Do a COLLECT job: see that a run is asked for, or begin one; called by a process with one thread."""
        if not job.subject:
            self._schedule(job)
            return
        now = self.clock()
        try:
            with self.catalogue.write() as conn:
                begun = begin_collection(conn, job.subject, worker=worker, now=now, until=now + self.silence)
        except CollectionLostError as lost:
            _log.info("%s", lost)
            with self.catalogue.write() as conn:
                jobs.finish(conn, job, now=now)
            return
        if isinstance(begun, Begun):
            self._child = _Child(job=job, pid=self._fork(job.subject, begun))
            return
        with self.catalogue.write() as conn:
            jobs.release(conn, job, at=now + RETRY, error="another collection goes on")

    def step(self, worker: str) -> None:
        """Look after the child, if there is one."""
        child = self._child
        if child is None:
            return
        pid, status = os.waitpid(child.pid, os.WNOHANG)
        if pid == child.pid:
            self._child = None
            self._ended(child.job, worker, os.waitstatus_to_exitcode(status))
        elif time.monotonic() - child.renewed >= _RENEW_SECONDS:
            child.renewed = time.monotonic()
            with suppress(ClaimLostError), self.catalogue.write(durable=False) as conn:
                jobs.renew(conn, child.job, now=self.clock())

    def close(self, worker: str) -> None:
        """End the child, wherever it is: what it left is finished by whoever takes the run up."""
        child, self._child = self._child, None
        if child is not None:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)
            with suppress(RegistryError):
                self._ended(child.job, worker, -signal.SIGKILL)

    def _ended(self, job: Job, worker: str, code: int) -> None:
        now = self.clock()
        with self.catalogue.write() as conn:
            died = bury_collections(conn, worker, now=now)
            found = find_collection(conn, job.subject)
            with suppress(ClaimLostError):
                if found is not None and found.state is Progress.WAITING:
                    jobs.release(conn, job, at=now + RETRY, error=f"the collector ended with {code}")
                else:
                    jobs.finish(conn, job, now=now)
        if died:
            _log.error("collection %s: its collector ended with %d", job.subject, code)
        if found is not None:
            metrics.COLLECTIONS.labels("died" if died else str(found.state)).inc()
            metrics.COLLECTED.inc(0 if found.dry_run else freed_by(found.report))

    def _schedule(self, job: Job) -> None:
        now, interval = self.clock(), self.settings.collect.interval
        with self.catalogue.write() as conn:
            if interval and not scheduled_waits(conn):
                enqueue_collection(conn, by=REGISTRY.name, dry_run=False, now=now)
            again = now + timedelta(seconds=interval) if interval else None
            jobs.finish(conn, job, now=now, again_at=again)

    def _fork(self, run: str, begun: Begun) -> int:
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            die_with_parent(signal.SIGKILL)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            code = 0 if collect_as(self, run, begun) else 2
        except RegistryError as error:
            _log.error("collection %s: %s", run, error)
        except BaseException:  # a forked child never returns into its parent's code
            _log.exception("collection %s", run)
        finally:
            os._exit(code)


def collect_as(parts: Collecting, run: str, begun: Begun) -> bool:
    """Do a run that was begun, on connections of one's own; True if all went well."""
    catalogue = Catalogue(parts.settings.catalogue_url, connections=2)
    with catalogue.look() as conn:
        found, swept = find_collection(conn, run), last_sweep(conn)
    if found is None:
        raise CollectionLostError(f"collection {run}: not known")
    made = Run(
        id=run,
        attempt=begun.attempt,
        started=begun.started,
        catalogue=catalogue,
        store=parts.store,
        audit=Audit(parts.clock),
        clock=parts.clock,
        settings=parts.settings.collect,
        silence=parts.silence,
        dry=found.dry_run,
        sweep=_sweeps(parts, found, swept),
    )
    return collect_and_tell(made, by=found.requested_by)


def _sweeps(parts: Collecting, found: Collection, swept: datetime | None) -> bool:
    """Whether the whole store is looked through: always when somebody asked for the run."""
    if found.requested_by != REGISTRY.name or swept is None:
        return True
    return parts.clock() - swept >= timedelta(seconds=parts.settings.collect.orphans)
