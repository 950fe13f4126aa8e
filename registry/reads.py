"""Reads in the audit: noted as they are answered, and written in batches, by a thread that nobody waits for.

A read is in the audit at most BATCH_SECONDS after it was answered, as long as the catalogue can be written, and a
process that is killed loses what it has noted in that time. Where the catalogue cannot be written, or not fast enough,
MAX_WAITING reads wait; then each further one waits for them to be written, and is refused if they cannot be: no more
is read than can be recorded. When a manifest was last read is written with them, for retention.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from sqlalchemy import Connection

from registry.audit import Audit, Entry, Event
from registry.catalogue.running import note_pulls
from registry.collect.pulls import Pulls
from registry.errors import RegistryError

BATCH_SECONDS: Final = 1.0
MAX_BATCH: Final = 2000
"""Reads of one transaction; so many do not wait until BATCH_SECONDS are over."""

MAX_WAITING: Final = 10 * MAX_BATCH

_log = logging.getLogger("pratique.registry")


class _Read(NamedTuple):
    principal: str
    source: str
    subject: str
    after: str
    time: datetime

    def entry(self) -> Entry:
        return Entry(
            event=Event.READ,
            principal=self.principal,
            source=self.source,
            subject=self.subject,
            after=self.after,
            time=self.time,
        )


class ReadLog:
    """The reads of one process; for many threads.

    `write` opens a writing transaction and calls the function it is given with it.
    """

    def __init__(
        self, audit: Audit, clock: Callable[[], datetime], write: Callable[[Callable[[Connection], None]], None]
    ):
        """Nothing is started before the first read is noted."""
        self._audit, self._clock, self._write = audit, clock, write
        self._starting, self._writing = threading.Lock(), threading.Lock()
        self._noted, self._full = threading.Event(), threading.Event()
        self._pulls = Pulls()
        self._waiting: deque[_Read] = deque()
        self._thread: threading.Thread | None = None

    def note(self, *, principal: str, source: str, subject: str, after: str = "") -> None:
        """Record that `principal` read `subject`; `after` says what is answered.

        Raises:
            CatalogueError: too many wait, and they cannot be written.
        """
        waiting = self._waiting
        if len(waiting) >= MAX_WAITING:
            self.flush()
        waiting.append(_Read(principal, source, subject, after, self._clock()))
        if not self._noted.is_set():
            self._noted.set()
            self._start()
        elif len(waiting) >= MAX_BATCH and not self._full.is_set():
            self._full.set()

    def waiting(self) -> int:
        """How many reads are not written yet."""
        return len(self._waiting)

    def flush(self) -> None:
        """Write what was noted; also at the end of the process.

        Raises:
            CatalogueError: it cannot be written; it still waits.
        """
        with self._writing:
            for _ in range(-(-len(self._waiting) // MAX_BATCH)):
                self._write_batch()

    def _write_batch(self) -> None:
        batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_BATCH))]
        if not batch:
            return
        try:
            self._write(lambda conn: self._put(conn, batch))
        except BaseException:
            self._waiting.extendleft(reversed(batch))
            raise

    def _put(self, conn: Connection, batch: list[_Read]) -> None:
        pulls = self._pulls.among((read.subject, read.after, read.time) for read in batch)
        note_pulls(conn, pulls)
        self._audit.append_all(conn, [read.entry() for read in batch])
        self._pulls.written(pulls)

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="reads", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while self._noted.wait():
            self._full.wait(BATCH_SECONDS)
            self._noted.clear()
            self._full.clear()
            try:
                self.flush()
            except RegistryError as error:
                _log.error("%d reads are not in the audit yet: %s", len(self._waiting), error)
                self._noted.set()
                time.sleep(BATCH_SECONDS)
