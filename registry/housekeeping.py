"""What each web process does by the way: upload sessions that nobody goes on with are dropped."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from typing import Final

from registry.context import Context
from registry.errors import RegistryError
from registry.prepare import expire_uploads

INTERVAL: Final = 600.0
"""Seconds between two looks; several processes may look at once, and do no harm."""

_log = logging.getLogger("pratique.web")


def start_housekeeping(parts: Context) -> None:
    """Look every INTERVAL until the process ends."""
    threading.Thread(target=_run, args=(parts,), name="housekeeping", daemon=True).start()


def _run(parts: Context) -> None:
    while True:
        time.sleep(INTERVAL)
        tidy(parts)


def tidy(parts: Context) -> tuple[str, ...]:
    """Drop the sessions past their end; returns their ids. A failure is logged: it can wait for the next time."""
    before = parts.clock() - timedelta(seconds=parts.settings.limits.upload_expiry)
    try:
        return expire_uploads(parts.catalogue, parts.store, before=before)
    except RegistryError as error:
        _log.warning("upload sessions past their end were not dropped: %s", error)
        return ()
