"""Whether what a process remembers of accounts still holds: a number, read again whenever the catalogue has changed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from registry.catalogue.database import Catalogue
from registry.catalogue.generations import ACCOUNTS, generation
from registry.catalogue.stamps import Stamp

_NEVER: Final = -1


class AccountsGeneration:
    """The generation of accounts; for many threads."""

    def __init__(self, catalogue: Catalogue, changed: Callable[[], None]) -> None:
        """Look at the first question; `changed` is called at each new number."""
        self._catalogue = catalogue
        self._changed = changed
        self._lock = threading.Lock()
        self._known: tuple[Stamp, int] = _NEVER, _NEVER

    def current(self) -> int:
        """The number as it is now.

        Raises:
            CatalogueError: it cannot be read, so nothing that is remembered counts.
        """
        stamp = self._catalogue.stamp()
        known = self._known
        return known[1] if known[0] == stamp else self._look(stamp)

    def _look(self, stamp: Stamp) -> int:
        with self._lock:
            if self._known[0] == stamp:
                return self._known[1]
            with self._catalogue.look() as conn:
                number = generation(conn, ACCOUNTS)
            if number != self._known[1]:
                self._changed()
            # The stamp was taken before the number was read: a change in between makes the next stamp another one.
            self._known = stamp, number
            return number
