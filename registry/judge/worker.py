"""The judge's process: takes jobs from the queue, one after another, while children read beside it.

A job that waits for a child is parked, and others go on; its claim is renewed meanwhile. Every error ends in the
job's row with its reason and a later time, never in a state that nobody decided.
"""

from __future__ import annotations

import logging
import secrets
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Final, assert_never

from sqlalchemy import Connection

from ocispec.digest import Digest
from ocispec.errors import SpecError
from policy import dsse, wire
from policy.errors import PolicyError
from policy.statements import ListDate
from registry import statements
from registry.audit import Audit, Event, head
from registry.catalogue import schema
from registry.catalogue.database import Catalogue, put_row
from registry.errors import RegistryError
from registry.judge import jobs
from registry.judge.advising import Advising, Imported
from registry.judge.collecting import Collecting
from registry.judge.jobs import ClaimLostError, Job, JobKind, Priority, subject_of
from registry.judge.judge import Judge, OutOfDateError
from registry.judge.outcome import SOONEST
from registry.judge.queue import UploadEnded, UploadGrows, Wake, parse_notice
from registry.judge.reading import Reader, Waiting
from registry.judge.tasks import Tasks
from registry.signer.identity import check_signer
from registry.signer.interface import Signing
from registry.signer.protocol import SignerRefusedError, SignerUnavailableError
from registry.telemetry import metrics, origin, traces
from registry.touched import all_images, touched_by
from scanner.errors import ScanError

MAX_PARKED: Final = 64
MAX_ATTEMPTS: Final = 5
"""Claims after which a job that never came to an end is put aside: it may be what kills the workers."""

CHECKPOINT_EVERY: Final = timedelta(minutes=1)
LIST_EVERY: Final = timedelta(hours=1)
_RENEW_SECONDS: Final = jobs.CLAIM_SECONDS / 3
_PIECE: Final = 500
"""Images that one transaction has judged again."""
_POLL_SECONDS: Final = 0.5
_SIGNER_SECONDS: Final = 0.05

_log = logging.getLogger("pratique.judge")


@dataclass(slots=True)
class _Parked:
    job: Job
    renewed: float
    ready: bool = False


@dataclass(slots=True, kw_only=True)
class Worker:
    """One worker. `wake` is the socket that notices come to, None for a worker that only polls; without `collecting`
    it leaves the collector's runs to others.

    Of two workers of one `name`, only one runs at a time: the later one takes over what the earlier one held.
    """

    catalogue: Catalogue
    judge: Judge
    reader: Reader
    tasks: Tasks
    signer: Signing
    audit: Audit
    advising: Advising
    clock: Callable[[], datetime]
    collecting: Collecting | None = None
    wake: socket.socket | None = None
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    _parked: list[_Parked] = field(default_factory=list)
    _import: Job | None = None
    _nothing_by: tuple[object, ...] = ()
    _nothing_until: float = 0.0

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Work until `should_stop` says so, after `begin`; jobs that are not done stay in the queue."""
        if self.wake is not None:
            self.wake.setblocking(False)
            self.tasks.watch(self.wake.fileno())
        while not should_stop():
            try:
                self.step(_POLL_SECONDS)
            except (RegistryError, OSError) as error:
                # The catalogue is away, or the disk full: jobs and claims stay as they are, and it may pass.
                _log.error("%s", error)
                time.sleep(_POLL_SECONDS)
        self.close()

    def begin(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Wait for the signer, take over what a worker of this name held when it died, see to the standing jobs.

        Raises:
            SettingsError: the signer is not the one that this catalogue's statements come from.
        """
        while not should_stop():
            try:
                memory = self.signer.status().memory
                break
            except SignerUnavailableError:
                time.sleep(_SIGNER_SECONDS)
        else:
            return
        with self.catalogue.write() as conn:
            check_signer(conn, memory)
            self.advising.publish(conn)
            if freed := jobs.free_claims_of(conn, self.name):
                _log.warning("%d jobs that %s held when it died are free again", freed, self.name)
            for kind in (JobKind.LIST, JobKind.CHECKPOINT):
                jobs.enqueue_new(conn, kind, now=self.clock())
            if self.collecting is not None:
                self.collecting.prepare(conn, self.name)

    def step(self, timeout: float) -> None:
        """One round: notices, parked jobs, a new job, children."""
        self._hear()
        self.reader.uploads.step()
        self._look_after_import()
        if self.collecting is not None:
            self.collecting.step(self.name)
        worked = self._go_on() or self._take_one()
        self._renew()
        if self.tasks.step(0.0 if worked else timeout):
            for parked in self._parked:
                parked.ready = True

    def idle(self) -> bool:
        """True if nothing is due, parked, or at work."""
        collecting = self.collecting is not None and self.collecting.busy
        at_work = self._parked or self.advising.busy or self.tasks.busy or collecting
        return not at_work and not self._may_be_free()

    def close(self) -> None:
        """End all children, and give the parked jobs back."""
        self.tasks.close()
        if self.collecting is not None:
            self.collecting.close(self.name)
        for parked in self._parked:
            self._release(parked.job, "the worker was stopped", after=timedelta(0))
        self._parked.clear()

    # ---- jobs ------------------------------------------------------------------------------------------------

    def _take_one(self) -> bool:
        """Claim a job and do it; False if there is none."""
        if len(self._parked) >= MAX_PARKED:
            return False
        # A layer that is being read wakes us a thousand times: what was not there is not looked for again until
        # something that it rests on has changed.
        rests_on = self.catalogue.stamp(), self.clock(), self.advising.busy, len(self._parked)
        now = time.monotonic()
        if rests_on == self._nothing_by and now < self._nothing_until:
            return False
        kinds = self._now()
        if not self._may_be_free(kinds):
            self._nothing_by, self._nothing_until = rests_on, now + _POLL_SECONDS
            return False
        with self.catalogue.write() as conn:
            token = f"{self.name}:{secrets.token_hex(12)}"
            job = jobs.claim(conn, token=token, now=self.clock(), kinds=kinds)
        if job is None:
            return False
        self._do(job)
        return True

    def _now(self) -> frozenset[JobKind]:
        """What can be done now: no image is judged while our advisory data are not those that every judge is to use.

        No run of the collector is begun beside another one here, nor while a thread runs that a child would not have.
        """
        with self.catalogue.read() as conn:
            kinds = jobs.JUDGED if self.advising.current(conn) else jobs.JUDGED - {JobKind.JUDGE}
        if self.collecting is None or self.collecting.busy or self.advising.busy:
            kinds -= {JobKind.COLLECT}
        return kinds

    def _may_be_free(self, kinds: frozenset[JobKind] = jobs.JUDGED - {JobKind.COLLECT}) -> bool:
        with self.catalogue.read() as conn:
            return jobs.any_free(conn, now=self.clock(), kinds=kinds)

    def _go_on(self) -> bool:
        """Try a parked job again whose child may have ended; False if there is none."""
        for position, parked in enumerate(self._parked):
            if parked.ready:
                del self._parked[position]
                self._do(parked.job)
                return True
        return False

    def _do(self, job: Job) -> None:
        """Go on with a job, as part of what it began with: so its log lines and spans are found from the request."""
        attributes: dict[str, str | int] = {"pratique.subject": job.subject[:256], "pratique.attempt": job.attempts}
        with origin.within(job.origin), traces.part_of(job.origin.trace, f"job {job.kind}", attributes):
            self._attempt(job)

    def _attempt(self, job: Job) -> None:
        try:
            if job.attempts > MAX_ATTEMPTS and job.kind is JobKind.JUDGE:
                self.judge.give_up(job, f"{job.attempts - 1} attempts, and none came to an end")
                return
            waiting = self._dispatch(job)
        except (OutOfDateError, ClaimLostError) as error:
            _log.info("%s", error)
            if isinstance(error, OutOfDateError):
                self._release(job, str(error), after=timedelta(0))
        except (RegistryError, PolicyError, SpecError, ScanError, OSError) as error:
            _log.warning("job %s %s: %s", job.kind, job.subject, error)
            self._fail(job, str(error))
        except Exception as error:  # what we did not foresee is a failure of this job, not of the worker
            _log.exception("job %s %s", job.kind, job.subject)
            self._fail(job, f"{type(error).__name__}: {error}")
        else:
            if waiting is not None:
                # Without a child at work nothing would wake it again.
                ready = not waiting.tasks or not self.tasks.busy
                self._parked.append(_Parked(job, time.monotonic(), ready=ready))
            else:
                metrics.JOB_SECONDS.labels(job.kind).observe((self.clock() - job.due).total_seconds())

    def _dispatch(self, job: Job) -> Waiting | None:
        match job.kind:
            case JobKind.JUDGE:
                return self.judge.judge(job)
            case JobKind.REJUDGE:
                self._rejudge(job)
            case JobKind.LIST:
                self._date_list(job)
            case JobKind.CHECKPOINT:
                self._checkpoint(job)
            case JobKind.ADVISORIES:
                self._begin_import(job)
            case JobKind.COLLECT:
                if self.collecting is not None:
                    self.collecting.take(job, self.name)
            case JobKind.MIRROR:
                raise AssertionError(f"job {job.kind} {job.subject}: claimed by a judge")
            case _:
                assert_never(job.kind)
        return None

    def _fail(self, job: Job, error: str) -> None:
        metrics.JOB_ERRORS.labels(job.kind).inc()
        backoff = min(timedelta(seconds=2 ** min(job.attempts, 9)), timedelta(minutes=5))
        self._release(job, error, after=backoff)
        if job.kind is JobKind.JUDGE:
            repository, _, digest = job.subject.rpartition("@")
            self.catalogue.change(
                lambda conn: self.judge.outcomes.expire(conn, repository, Digest.parse(digest), now=self.clock())
            )

    def _release(self, job: Job, error: str, *, after: timedelta) -> None:
        try:
            with self.catalogue.write() as conn:
                jobs.release(conn, job, at=self.clock() + after, error=error)
        except RegistryError as lost:
            _log.info("%s", lost)

    def _renew(self) -> None:
        now = time.monotonic()
        for parked in tuple(self._parked):
            if now - parked.renewed < _RENEW_SECONDS:
                continue
            parked.renewed = now
            try:
                with self.catalogue.write() as conn:
                    jobs.renew(conn, parked.job, now=self.clock())
            except ClaimLostError as error:
                _log.info("%s", error)
                self._parked.remove(parked)

    # ---- what jobs there are ------------------------------------------------------------------------------------

    def _rejudge(self, job: Job) -> None:
        """Have everything that a change touches judged again."""
        now = self.clock()
        urgent = job.subject.startswith("urgent ")
        priority = Priority.URGENT if urgent else Priority.CHANGE
        subjects = sorted(subject_of(*image) for image in self._touched(job.subject.removeprefix("urgent ")))

        def enqueue(part: Sequence[str], conn: Connection) -> None:
            jobs.enqueue_all(conn, JobKind.JUDGE, part, now=now, priority=priority)
            jobs.renew(conn, job, now=self.clock())

        # In pieces, since pushes want to enqueue meanwhile. Whoever takes the job over begins anew, which harms nobody.
        for start in range(0, len(subjects), _PIECE):
            self.catalogue.change(partial(enqueue, subjects[start : start + _PIECE]))
        with self.catalogue.write() as conn:
            jobs.finish(conn, job, now=now)

    def _touched(self, subject: str) -> tuple[tuple[str, Digest], ...]:
        kind, _, text = subject.partition(" ")
        with self.catalogue.read() as conn:
            if kind == "statement":
                return touched_by(conn, Digest.parse(text), registry=self.judge.registry)
            return all_images(conn)

    def _date_list(self, job: Job) -> None:
        with self.catalogue.read() as conn:
            generation = statements.generation(conn)
            newest = statements.revocation_list(conn)
        now = self.clock()
        if newest is None:
            with self.catalogue.write() as conn:
                jobs.finish(conn, job, now=now)
            return
        self.judge.teach(generation)
        date = self.signer.date_list()
        with self.catalogue.write() as conn:
            statements.hold_statements(conn)
            if statements.generation(conn) != generation:
                raise OutOfDateError("the revocation list changed while it was dated")
            statements.date_list(conn, newest, date)
            jobs.finish(conn, job, now=now, again_at=now + _next_date(date))

    def _checkpoint(self, job: Job) -> None:
        """Have the head of the audit chain signed, if it is not yet."""
        now = self.clock()
        with self.catalogue.read() as conn:
            seq, last = head(conn)
            generation = statements.generation(conn)
            signed = statements.newest_checkpoint(conn)
            trusted = statements.stored_trust(conn) is not None
        envelope: bytes | None = None
        if trusted and seq > signed:
            try:
                self.judge.teach(generation)
                envelope = self.signer.sign_checkpoint(seq, Digest("sha256", last))
            except SignerRefusedError as error:
                _log.warning("audit checkpoint at %d: %s", seq, error)
        with self.catalogue.write() as conn:
            if envelope is not None:
                put_row(conn, schema.checkpoints, seq=seq, envelope=envelope, time=now)
            jobs.finish(conn, job, now=now, again_at=now + CHECKPOINT_EVERY)

    def _begin_import(self, job: Job) -> None:
        if self._import is not None:
            self._release(job, "another import is going on", after=SOONEST)
        elif self.advising.begin():
            self._import = job
        else:
            with self.catalogue.write() as conn:
                jobs.finish(conn, job, now=self.clock())

    def _look_after_import(self) -> None:
        """Go on with what there is to do for advisory data; the job of an import is held meanwhile."""
        ended, job = self.advising.step(), self._import
        if job is None:
            return
        try:
            if ended is None:
                with self.catalogue.write() as conn:
                    jobs.renew(conn, job, now=self.clock())
                return
            self._import = None
            self._end_import(job, ended)
        except (RegistryError, ScanError) as error:
            _log.warning("advisory import: %s", error)
            if ended is not None:
                self._release(job, str(error), after=SOONEST)

    def _end_import(self, job: Job, ended: Imported) -> None:
        now = self.clock()
        if ended.error:
            _log.warning("advisory import: %s", ended.error)
        with self.catalogue.write() as conn:
            statements.lock_statements(conn)
            self.advising.record(conn, ended)
            if not ended.error:
                statements.raise_generation(conn)
                jobs.enqueue(conn, JobKind.REJUDGE, "all", now=now)
            said = f"import failed, the data before it stay: {ended.error}" if ended.error else f"{ended.snapshot}"
            self.audit.append(conn, Event.ADVISORIES, principal="registry", subject="advisories", after=said)
            jobs.finish(conn, job, now=now)

    # ---- notices --------------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        if self.wake is None:
            return
        for _ in range(64):
            try:
                raw = self.wake.recv(8192)
            except BlockingIOError:
                return
            try:
                notice = parse_notice(raw)
            except (SpecError, RegistryError) as error:
                _log.warning("%s", error)
                continue
            match notice:
                case UploadGrows(upload=upload):
                    self.reader.uploads.begun(upload)
                case UploadEnded(upload=upload, digest=digest, size=size):
                    self.reader.uploads.ended(upload, digest, size)
                case Wake():
                    pass
                case _:
                    assert_never(notice)


def _next_date(date: bytes) -> timedelta:
    """When a list is dated anew: every LIST_EVERY, and four times within the life of a date that is shorter."""
    said = wire.decode(dsse.parse(date, what="list date").payload, what="list date")
    life = said.expires - said.issued if isinstance(said, ListDate) else LIST_EVERY
    return max(SOONEST, min(LIST_EVERY, life / 4))
