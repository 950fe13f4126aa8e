"""Whether what a process remembers of accounts still holds: a number that is read at most once a second."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from registry.catalogue.database import Catalogue
from registry.catalogue.generations import ACCOUNTS, generation

LOOK_SECONDS: Final = 1.0
"""How long a removed or changed account may be believed."""

WAIT_SECONDS: Final = 4.0
"""How long after a look is due others go on while one looks; then they wait for it."""


class AccountsGeneration:
    """The generation of accounts; for many threads. `number` is good while the clock is before `until`."""

    __slots__ = ("_catalogue", "_changed", "_lock", "number", "until")

    def __init__(self, catalogue: Catalogue, changed: Callable[[], None]) -> None:
        """Look at the first question; `changed` is called at each new number."""
        self._catalogue = catalogue
        self._changed = changed
        self._lock = threading.Lock()
        self.number = -1
        self.until = float("-inf")

    def current(self) -> int:
        """The number, at most LOOK_SECONDS old.

        Raises:
            CatalogueError: it cannot be read, so nothing that is remembered counts.
        """
        now = time.monotonic()
        if now < self.until:
            return self.number
        if not self._lock.acquire(blocking=now >= self.until + WAIT_SECONDS):
            return self.number
        try:
            if time.monotonic() >= self.until:
                self._look()
            return self.number
        finally:
            self._lock.release()

    def _look(self) -> None:
        began = time.monotonic()
        with self._catalogue.look() as conn:
            number = generation(conn, ACCOUNTS)
        if number != self.number:
            self._changed()
        self.number, self.until = number, began + LOOK_SECONDS
