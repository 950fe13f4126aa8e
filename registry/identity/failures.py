"""Logins that failed, in the audit: counted, and written once a minute."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from registry.audit import Audit, Event
from registry.catalogue.accounts import is_account_name
from registry.catalogue.database import Catalogue
from registry.counted import CountedLog, Refusal


class FailureLog:
    """The failures of this process; for many threads. Loses at most those of a minute when it is killed."""

    def __init__(self, catalogue: Catalogue, audit: Audit, clock: Callable[[], datetime]) -> None:
        """Nothing is started before the first failure."""
        self._counted = CountedLog(catalogue, audit, clock, Event.LOGIN)

    def note(self, *, account: str, source: str, reason: str) -> None:
        """Count a failure to log in as `account` (whatever was given as that) from an address."""
        # What is no account's name may be a password that was typed in its place.
        name = account if is_account_name(account) else "(no account's name)"
        self._counted.note(Refusal(name, source, "login", reason))

    def flush(self) -> None:
        """Write what was counted; also at the end of the process."""
        self._counted.flush()
