"""Refusals in the audit: counted, and written once a minute, so that nobody can flood it with them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final, NamedTuple

from registry.audit import Audit, Entry, Event
from registry.catalogue.database import Catalogue
from registry.errors import RegistryError

INTERVAL: Final = 60.0
MAX_KINDS: Final = 1000
"""Different refusals that are counted apart within INTERVAL."""

MAX_RECORDS: Final = 50
"""Records of one INTERVAL; the most frequent refusals have one each, the others share one."""

_log = logging.getLogger("pratique.registry")


class Refusal(NamedTuple):
    """What was refused, to whom, at which address, and why; each a short text."""

    principal: str
    source: str
    subject: str
    reason: str


class CountedLog:
    """The refusals of this process; for many threads. Loses at most those of INTERVAL when it is killed."""

    def __init__(self, catalogue: Catalogue, audit: Audit, clock: Callable[[], datetime], event: Event) -> None:
        """Record them as `event`. Nothing is started before the first."""
        self._catalogue, self._audit, self._clock, self._event = catalogue, audit, clock, event
        self._lock = threading.Lock()
        self._counts: Counter[Refusal] = Counter()
        self._others = 0
        self._timer: threading.Timer | None = None

    def note(self, refusal: Refusal) -> None:
        """Count one."""
        with self._lock:
            if refusal in self._counts or len(self._counts) < MAX_KINDS:
                self._counts[refusal] += 1
            else:
                self._others += 1
            if self._timer is None:
                self._timer = threading.Timer(INTERVAL, self.flush)
                self._timer.daemon = True
                self._timer.start()

    def flush(self) -> None:
        """Write what was counted; also at the end of the process."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            others, self._others = self._others, 0
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if not counts:
            return
        shown = counts.most_common(MAX_RECORDS)
        entries = [self._entry(refusal, f"{count} refused: {refusal.reason}") for refusal, count in shown]
        others += counts.total() - sum(count for _, count in shown)
        if others:
            more = f"{others} more refused, of other accounts or from other addresses"
            entries.append(self._entry(Refusal("", "", "others", ""), more))
        try:
            with self._catalogue.write() as conn:
                self._audit.append_all(conn, entries)
        except RegistryError as error:
            _log.error("refusals are not in the audit: %s: %s", error, [entry.after for entry in entries])

    def _entry(self, refusal: Refusal, after: str) -> Entry:
        return Entry(
            event=self._event,
            principal=refusal.principal,
            source=refusal.source,
            subject=refusal.subject,
            after=after,
            time=self._clock(),
        )
