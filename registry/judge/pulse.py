"""The judge's sign of life, for readiness: a file that is touched while it works and the signer answers it.

The web cannot ask the signer: only the judge's user may.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from registry.errors import RegistryError
from registry.signer.interface import Signing

BEAT_SECONDS: Final = 5.0

SILENT_SECONDS: Final = 60.0
"""Without a sign for so long, the judge or the signer hangs."""

_log = logging.getLogger("pratique.judge")


@dataclass(slots=True, kw_only=True)
class Pulse:
    """Beats at most every BEAT_SECONDS, whenever the judge's loop asks whether to stop."""

    path: Path
    signer: Signing
    stopped: Callable[[], bool]
    _beaten: float = 0.0

    def should_stop(self) -> bool:
        """As `stopped` says."""
        now = time.monotonic()
        if now - self._beaten >= BEAT_SECONDS or not self._beaten:
            self._beaten = now
            try:
                self.signer.status()
                self.path.touch()
            except (RegistryError, OSError) as error:
                _log.warning("no sign of life: %s", error)
        return self.stopped()
