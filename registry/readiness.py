"""Whether store and catalogue can be used; looked at when asked, at most every KEEP_SECONDS."""

from __future__ import annotations

import threading
import time
from typing import Final

from registry.catalogue.database import Catalogue
from registry.errors import RegistryError
from registry.store.interface import BlobStore

KEEP_SECONDS: Final = 2.0
"""How long an answer holds: anybody may ask, and each look writes to the store."""


class Readiness:
    """The last answer, shared by all who ask."""

    def __init__(self, store: BlobStore, catalogue: Catalogue) -> None:
        """Nothing is looked at yet."""
        self._store = store
        self._catalogue = catalogue
        self._lock = threading.Lock()
        self._until = 0.0
        self._ready = False

    def look(self) -> bool:
        """True if both worked a moment ago."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._ready = self._works()
                self._until = time.monotonic() + KEEP_SECONDS
            return self._ready

    def _works(self) -> bool:
        try:
            self._store.check()
            with self._catalogue.read() as conn:
                conn.exec_driver_sql("SELECT 1")
        except RegistryError:
            return False
        return True
