"""Logins that failed, in the audit: counted, and written once a minute, so that nobody can flood it with them."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from typing import Final

from registry.audit import Audit, Entry, Event
from registry.catalogue.accounts import is_account_name
from registry.catalogue.database import Catalogue
from registry.errors import RegistryError

INTERVAL: Final = 60.0
MAX_KINDS: Final = 1000
"""Different failures that are counted apart within INTERVAL."""

MAX_RECORDS: Final = 50
"""Records of one INTERVAL; the most frequent failures have one each, the others share one."""

_log = logging.getLogger("pratique.registry")


class FailureLog:
    """The failures of this process; for many threads. Loses at most those of INTERVAL when it is killed."""

    def __init__(self, catalogue: Catalogue, audit: Audit, clock: Callable[[], datetime]) -> None:
        """Nothing is started before the first failure."""
        self._catalogue, self._audit, self._clock = catalogue, audit, clock
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._others = 0
        self._timer: threading.Timer | None = None

    def note(self, *, account: str, source: str, reason: str) -> None:
        """Count a failure to log in as `account` (whatever was given as that) from an address."""
        # What is no account's name may be a password that was typed in its place.
        kind = (account if is_account_name(account) else "(no account's name)", source, reason)
        with self._lock:
            if kind in self._counts or len(self._counts) < MAX_KINDS:
                self._counts[kind] += 1
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
        entries = [
            self._entry(account, source, f"{count} refused: {reason}") for (account, source, reason), count in shown
        ]
        others += counts.total() - sum(count for _, count in shown)
        if others:
            entries.append(self._entry("", "", f"{others} more refused, of other accounts or from other addresses"))
        try:
            with self._catalogue.write() as conn:
                self._audit.append_all(conn, entries)
        except RegistryError as error:
            _log.error("failed logins are not in the audit: %s: %s", error, [entry.after for entry in entries])

    def _entry(self, account: str, source: str, after: str) -> Entry:
        return Entry(
            event=Event.LOGIN, principal=account, source=source, subject="login", after=after, time=self._clock()
        )
