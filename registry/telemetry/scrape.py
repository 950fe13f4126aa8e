"""What is read when Prometheus asks: of the catalogue, of /proc, of the disk, of the certificate.

Each group is read by itself: one that fails, or takes too long, says so in `pratique_scrape_failed`, and the others
are told. What costs the catalogue something is kept for a while, however often somebody asks.
"""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlalchemy import Connection, and_, case, func, or_, select

from ocispec.errors import SpecError
from policy import dsse, wire
from policy.errors import PolicyError
from policy.statements import ListDate
from registry import statements
from registry.audit import head
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.errors import RegistryError
from registry.settings import Settings
from registry.telemetry import metrics, usage
from registry.telemetry.certificate import ends
from registry.telemetry.metrics import Described

EXPIRING: Final = (0, 3600, 86_400)
"""Seconds within which clearances are counted that end."""

MAX_SOURCES: Final = 64

WAIT_SECONDS: Final = 4.0
"""How long one scrape waits for what takes long; Prometheus itself waits for 10 seconds, if it is not told else."""

_log = logging.getLogger("pratique.metrics")

Value = tuple[Described, tuple[str, ...], float]
"""A metric, the values of its labels, and what it shows."""

Read = Callable[[], Iterable[Value]]


@dataclass(slots=True, kw_only=True)
class Group:
    """Metrics that are read together, at most every `keep` seconds, by a thread of their own."""

    name: str
    read: Read
    keep: float = 0.0
    values: tuple[Value, ...] = ()
    failed: bool = True
    _began: float = float("-inf")
    _thread: threading.Thread | None = None

    def begin(self) -> None:
        """Read them again, if it is time; a reading that still goes on is not joined by another."""
        if (self._thread is None or not self._thread.is_alive()) and time.monotonic() - self._began >= self.keep:
            self._began = time.monotonic()
            self._thread = threading.Thread(target=self._run, name=f"scrape-{self.name}", daemon=True)
            self._thread.start()

    def forget(self) -> None:
        """Have them read anew at the next look."""
        self._began = float("-inf")

    def wait(self, ends: float) -> bool:
        """Wait for a reading that goes on, until `ends` (of the monotonic clock); False if it takes longer."""
        if self._thread is not None:
            self._thread.join(max(0.0, ends - time.monotonic()))
        return self._thread is None or not self._thread.is_alive()

    def _run(self) -> None:
        try:
            self.values, self.failed = tuple(self.read()), False
        except (RegistryError, PolicyError, SpecError, OSError, ValueError) as error:
            if not self.failed:
                _log.warning("metrics of %s: %s", self.name, error)
            self.values, self.failed = (), True


class Scrape(Collector):
    """Groups as prometheus_client collects them."""

    def __init__(self, groups: Sequence[Group]) -> None:
        """Nothing is read yet."""
        self._groups = groups
        self._one = threading.Lock()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """See `Collector`; takes WAIT_SECONDS at most, and leaves out what is not there by then."""
        with self._one:
            families = self._families(time.monotonic() + WAIT_SECONDS)
        yield from families

    def _families(self, ends: float) -> list[GaugeMetricFamily]:
        families: dict[str, GaugeMetricFamily] = {}
        for group in self._groups:
            group.begin()
        for group in self._groups:
            there = group.wait(ends)
            failed = (metrics.SCRAPE_FAILED, (group.name,), float(group.failed or not there))
            for metric, labels, value in (*(group.values if there else ()), failed):
                family = families.get(metric.name)
                if family is None:
                    family = families[metric.name] = GaugeMetricFamily(metric.name, metric.doc, labels=metric.labels)
                family.add_metric(labels, value)
        return list(families.values())


def groups_of(settings: Settings, catalogue: Catalogue, clock: Callable[[], datetime], supervisor: int) -> list[Group]:
    """All groups of a registry whose supervisor has the pid `supervisor`."""

    def read(function: Callable[[Connection, datetime], Iterable[Value]]) -> Read:
        def run() -> Iterable[Value]:
            with catalogue.read() as conn:
                return tuple(function(conn, clock()))

        return run

    made = [
        Group(name="jobs", read=read(_jobs), keep=5),
        Group(name="statements", read=read(_statements), keep=5),
        Group(name="audit", read=read(_audit), keep=5),
        Group(name="clearances", read=read(_clearances), keep=30),
        Group(name="images", read=read(_images), keep=60),
        Group(name="collection", read=read(_collection), keep=30),
        Group(name="processes", read=lambda: _processes(supervisor)),
        Group(name="disk", read=lambda: [(metrics.DISK_FREE, (), float(shutil.disk_usage(settings.data).free))]),
    ]
    if (path := settings.http.certificate) is not None:
        made.append(Group(name="certificate", read=lambda: _certificate(path, clock()), keep=60))
    return made


def _jobs(conn: Connection, now: datetime) -> Iterator[Value]:
    jobs = schema.jobs.c
    claimed = and_(jobs.claimed_by != "", jobs.claimed_until >= now)
    state = case((claimed, "claimed"), (jobs.not_before <= now, "due"), else_="later").label("state")
    for row in conn.execute(select(jobs.kind, state, func.count().label("number")).group_by(jobs.kind, state)):
        yield metrics.JOBS, (row.kind, row.state), row.number
    unclaimed = or_(jobs.claimed_by == "", jobs.claimed_until < now)
    due = select(jobs.not_before).where(jobs.not_before <= now, unclaimed).order_by(jobs.not_before).limit(1)
    oldest = conn.scalar(due)
    yield metrics.OLDEST_JOB, (), (now - oldest).total_seconds() if oldest is not None else 0.0
    yield metrics.UPLOADS, (), float(conn.scalar(select(func.count()).select_from(schema.uploads)) or 0)


def _statements(conn: Connection, now: datetime) -> Iterator[Value]:
    dated = statements.dated_list(conn)
    if dated is not None:
        said = wire.decode(dsse.parse(dated[1], what="list date").payload, what="list date")
        if isinstance(said, ListDate):
            yield metrics.LIST_NUMBER, (), float(said.number)
            yield metrics.LIST_AGE, (), (now - said.issued).total_seconds()
            yield metrics.LIST_ENDS, (), (said.expires - now).total_seconds()
    advisories = schema.advisories.c
    rows = select(advisories.name, func.max(advisories.date).label("date")).where(advisories.current)
    for row in conn.execute(rows.group_by(advisories.name).order_by(advisories.name).limit(MAX_SOURCES)):
        yield metrics.ADVISORY_AGE, (row.name,), (now - row.date).total_seconds()


def _audit(conn: Connection, now: datetime) -> Iterator[Value]:
    yield metrics.UNSIGNED, (), float(head(conn)[0] - statements.newest_checkpoint(conn))
    signed = conn.scalar(select(schema.checkpoints.c.time).order_by(schema.checkpoints.c.seq.desc()).limit(1))
    if signed is not None:
        yield metrics.CHECKPOINT_AGE, (), (now - signed).total_seconds()


def _clearances(conn: Connection, now: datetime) -> Iterator[Value]:
    expires = schema.clearances.c.expires
    for seconds in EXPIRING:
        counted = select(func.count()).where(expires <= now + timedelta(seconds=seconds))
        yield metrics.EXPIRING, (str(seconds),), float(conn.scalar(counted) or 0)


def _images(conn: Connection, _now: datetime) -> Iterator[Value]:
    state = schema.images.c.state
    for row in conn.execute(select(state, func.count().label("number")).group_by(state)):
        yield metrics.IMAGES, (row.state,), row.number


def _collection(conn: Connection, now: datetime) -> Iterator[Value]:
    runs = schema.collections.c
    over = select(runs.ended, runs.report, runs.state).where(runs.ended.is_not(None), runs.dry_run.is_(False))
    row = conn.execute(over.order_by(runs.ended.desc()).limit(1)).first()
    if row is None:
        return
    yield metrics.COLLECTION_AGE, (), (now - row.ended).total_seconds()
    yield metrics.COLLECTION_FAILED, (), float(row.state == "failed")
    report = json.loads(row.report or "{}")
    if "freedBytes" in report:
        yield metrics.COLLECTION_FREED, (), float(report["freedBytes"])
        yield metrics.COLLECTION_MISSING, (), float(report["missing"]["count"])


def _certificate(path: Path, now: datetime) -> Iterator[Value]:
    yield metrics.CERTIFICATE_ENDS, (), (ends(path) - now).total_seconds()


def _processes(supervisor: int) -> Iterator[Value]:
    for name, used in usage.family(supervisor).items():
        yield metrics.PROCESSES, (name,), float(used.count)
        yield metrics.MEMORY, (name,), float(used.resident)
        yield metrics.CPU, (name,), used.seconds
