"""What a request does in a repository that is a copy: have what it asks for fetched, wait a while, say how it went.

What is there already is served without the other registry, which may be away for as long as it likes: a digest always,
a tag also when it is time to look it up again, which happens behind the answer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from ocispec.digest import Digest
from registry.catalogue.database import Catalogue
from registry.catalogue.mirrored import Lookup, Said, last_lookup
from registry.errors import UpstreamError
from registry.judge.jobs import JobKind, Priority, enqueue
from registry.mirror.mirrors import Copy, Mirrors

MISSING_FOR: Final = timedelta(seconds=60)
"""How long an upstream that has not what was asked for is believed."""

FAILED_FOR: Final = timedelta(seconds=10)
"""How long an upstream that could not be asked is left alone."""

_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5


class Asking:
    """For many threads, of which at most `waiting` wait at a time."""

    def __init__(self, mirrors: Mirrors, catalogue: Catalogue, clock: Callable[[], datetime], *, waiting: int) -> None:
        """Nothing is asked yet."""
        self.mirrors, self._catalogue, self._clock = mirrors, catalogue, clock
        self._places = threading.BoundedSemaphore(waiting)

    def see_to(self, repository: str, wanted: Digest | str, *, there: bool) -> bool:
        """Have `wanted` fetched if it is not `there`, or if it is time; True if it is worth looking again.

        Raises:
            UpstreamError: it is not here, and cannot be had now.
        """
        copy = self.mirrors.find(repository) if self.mirrors else None
        if copy is None or (there and isinstance(wanted, Digest)):
            return False
        reference, now = str(wanted), self._clock()
        with self._catalogue.look() as conn:
            last = last_lookup(conn, repository, reference)
        if there:
            if last is None or now - last.checked >= self._fresh_for(copy, last):
                self._enqueue(copy, reference)
            return False
        if last is not None and last.said is not Said.FOUND and now - last.checked < self._fresh_for(copy, last):
            return _outcome(copy, reference, last)
        self._enqueue(copy, reference)
        return self._wait(copy, reference, since=now)

    def _enqueue(self, copy: Copy, reference: str) -> None:
        with self._catalogue.write(durable=False) as conn:
            subject = subject_of(copy.repository, reference)
            enqueue(conn, JobKind.MIRROR, subject, now=self._clock(), priority=Priority.PUSH)

    def _wait(self, copy: Copy, reference: str, *, since: datetime) -> bool:
        if not self._places.acquire(blocking=False):
            raise UpstreamError(f"{copy.origin}: being fetched; too many wait for such already")
        try:
            ends, pause = time.monotonic() + copy.mirror.wait, _PAUSE
            while (left := ends - time.monotonic()) > 0:
                with self._catalogue.look() as conn:
                    last = last_lookup(conn, copy.repository, reference)
                if last is not None and last.checked >= since:
                    return _outcome(copy, reference, last)
                time.sleep(min(pause, left))
                pause = min(pause * 1.5, _LONGEST_PAUSE)
        finally:
            self._places.release()
        raise UpstreamError(f"{copy.origin}: {reference} is being fetched; to be asked for again")

    @staticmethod
    def _fresh_for(copy: Copy, last: Lookup) -> timedelta:
        match last.said:
            case Said.FOUND:
                return timedelta(seconds=copy.mirror.refresh)
            case Said.MISSING:
                return MISSING_FOR
            case Said.FAILED:
                return FAILED_FOR


def subject_of(repository: str, reference: str) -> str:
    """The subject of a MIRROR job."""
    return f"{repository} {reference}"


def _outcome(copy: Copy, reference: str, last: Lookup) -> bool:
    if last.said is Said.FAILED:
        raise UpstreamError(f"{copy.origin}: {reference} cannot be fetched: {last.detail}")
    return last.said is Said.FOUND
