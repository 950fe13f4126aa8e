"""Whether the registry can work: each part is looked at by a thread of its own, so that none holds up the answer.

A look holds for KEEP_SECONDS: anybody may ask, and one of them writes to the store. A part that does not answer within
DEADLINE_SECONDS counts as failed until it does; nobody waits for it again meanwhile, and no second thread asks it.
"""

from __future__ import annotations

import logging
import math
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sqlalchemy import text

from registry.catalogue.database import Catalogue
from registry.catalogue.upgrade import newest_revision
from registry.errors import CatalogueError, RegistryError, StorageError
from registry.judge.pulse import SILENT_SECONDS
from registry.places import Places
from registry.settings import Settings
from registry.store.interface import BlobStore

KEEP_SECONDS: Final = 1.0
DEADLINE_SECONDS: Final = 2.0

_log = logging.getLogger("pratique.readiness")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A part of the registry; `look` raises RegistryError or OSError, with the reason, if it cannot be used."""

    part: str
    look: Callable[[], None]


@dataclass(slots=True)
class _Part:
    check: Check
    failed: str = "not looked at yet"
    looked: float = -math.inf
    asked: float = -math.inf
    busy: bool = False


@dataclass(slots=True)
class Readiness:
    """The last answers, shared by all who ask; `draining` is a file that is there once the registry is to stop."""

    checks: Sequence[Check]
    draining: Path | None = None
    _parts: list[_Part] = field(init=False)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _logged: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Nothing is looked at yet."""
        self._parts = [_Part(check) for check in self.checks]

    def add(self, check: Check) -> None:
        """Look at one more part."""
        self._parts.append(_Part(check))

    def look(self) -> Mapping[str, str]:
        """The parts that cannot be used, each with its reason; nothing if the registry is ready.

        Takes DEADLINE_SECONDS at most.
        """
        now = time.monotonic()
        ends = now + DEADLINE_SECONDS
        with self._changed:
            for part in self._parts:
                if not part.busy and now - part.looked >= KEEP_SECONDS:
                    part.busy, part.asked = True, now
                    name = f"readiness-{part.check.part}"
                    threading.Thread(target=self._ask, args=(part,), name=name, daemon=True).start()
            while any(_awaited(part) for part in self._parts) and (left := ends - time.monotonic()) > 0:
                self._changed.wait(left)
            failed = {part.check.part: _reason(part) for part in self._parts if _reason(part)}
        if self.draining is not None and self.draining.exists():
            failed["draining"] = "the registry stops"
        self._tell(failed)
        return failed

    def _ask(self, part: _Part) -> None:
        try:
            part.check.look()
            failed = ""
        except (RegistryError, OSError) as error:
            failed = str(error)
        except Exception as error:  # a bug in a check is no reason to call the part ready
            _log.exception("readiness of %s", part.check.part)
            failed = type(error).__name__
        with self._changed:
            part.failed, part.busy, part.looked = failed, False, time.monotonic()
            self._changed.notify_all()

    def _tell(self, failed: Mapping[str, str]) -> None:
        if failed.keys() != self._logged.keys():
            said = "; ".join(f"{part}: {reason}" for part, reason in failed.items())
            _log.warning("not ready: %s", said) if failed else _log.warning("ready again")
        self._logged = failed


def _awaited(part: _Part) -> bool:
    return part.busy and time.monotonic() - part.asked < DEADLINE_SECONDS


def _reason(part: _Part) -> str:
    return f"no answer within {DEADLINE_SECONDS:g} s" if part.busy and not _awaited(part) else part.failed


def checks_of(settings: Settings, store: BlobStore, catalogue: Catalogue) -> tuple[Check, ...]:
    """What every instance looks at."""
    revision = newest_revision()  # now: the files may not be readable later

    def database() -> None:
        with catalogue.look() as conn:
            conn.execute(text("SELECT 1"))

    def migrations() -> None:
        with catalogue.look() as conn:
            found = conn.scalar(text("SELECT version_num FROM alembic_version"))
        if found != revision:
            raise CatalogueError(f"tables are of revision {str(found)[:40]}, expected {revision}")

    def disk() -> None:
        free = shutil.disk_usage(settings.data).free
        if free < settings.limits.free_bytes:
            raise StorageError(f"{settings.data}: {free} bytes free, expected at least {settings.limits.free_bytes}")

    return (
        Check(part="storage", look=store.check),
        Check(part="database", look=database),
        Check(part="migrations", look=migrations),
        Check(part="disk", look=disk),
    )


def judge_check(settings: Settings) -> Check:
    """Whether the judge works and reaches the signer: for instances that have them."""
    alive = Places(settings).judge_alive

    def judge() -> None:
        try:
            silent = time.time() - alive.stat().st_mtime
        except FileNotFoundError:
            raise RegistryError("no sign of life from judge and signer yet") from None
        if silent > SILENT_SECONDS:
            raise RegistryError(f"no sign of life from judge and signer for {silent:.0f} s")

    return Check(part="judge", look=judge)
