"""Uploads that the judge was told of: read while they come if they take long, and as soon as they have ended if not.

A layer that comes faster than it is read gains nothing by being read meanwhile, and whoever sends it waits for the
processors that reading takes (docs/adr/0185-short-uploads-are-read-afterwards.md).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from typing import Final

from ocispec.digest import Digest
from policy import canonical
from registry.catalogue.database import Catalogue
from registry.errors import RegistryError
from registry.judge import layers as kept
from registry.judge.child import Answered, Outcome
from registry.judge.confine import Limits
from registry.judge.tasks import GrowingFile, Tasks
from registry.store.interface import BlobStore

SHORT_SECONDS: Final = 0.5
"""An upload that has ended by then is read afterwards."""

_LIMITS: Final = Limits(seconds=24 * 3600, cpu_seconds=3600)

_log = logging.getLogger("pratique.judge")

Keep = Callable[[Digest, tuple[bytes, ...]], object]
Guarded = Callable[[str], Callable[[Callable[[Outcome], None]], Callable[[Outcome], None]]]


class Uploads:
    """One thread's; `tasks` is stepped by whoever owns it."""

    def __init__(
        self,
        *,
        store: BlobStore,
        catalogue: Catalogue,
        tasks: Tasks,
        keep: Keep,
        guarded: Guarded,
        short: float = SHORT_SECONDS,
    ) -> None:
        """`keep` takes what a layer's reader answered; `guarded` gives what is done then its errors' handling."""
        self._store, self._catalogue, self._tasks = store, catalogue, tasks
        self._keep, self._guarded, self._short = keep, guarded, short
        self._begun: dict[str, float] = {}
        self._feeds: dict[str, GrowingFile] = {}
        self._ended: dict[str, tuple[Digest, int]] = {}

    def begun(self, upload: str) -> None:
        """The first bytes of an upload have come."""
        if upload not in self._feeds:
            self._begun.setdefault(upload, time.monotonic())
        self.step()

    def step(self) -> None:
        """Begin to read what has been coming for long enough."""
        now = time.monotonic()
        for upload, since in tuple(self._begun.items()):
            if now - since >= self._short:
                del self._begun[upload]
                self._follow(upload)

    def ended(self, upload: str, digest: Digest | None, size: int) -> None:
        """An upload is the blob `digest` of `size` bytes now, or, with None, gone."""
        feed, short = self._feeds.get(upload), self._begun.pop(upload, None) is not None
        if feed is None and not short:
            return
        with self._catalogue.read() as conn:
            known = digest is not None and kept.find_layer(conn, digest) is not None
        if digest is None or known:
            self._tasks.stop(_key(upload))
            self._feeds.pop(upload, None)
        elif feed is not None:
            feed.final = size
            self._ended[upload] = (digest, size)
        elif self._read(upload, digest):
            self._ended[upload] = (digest, size)

    def reading(self, digest: Digest) -> str | None:
        """The task that reads a blob that was an upload before, or None."""
        return next((_key(upload) for upload, (found, _) in self._ended.items() if found == digest), None)

    def _follow(self, upload: str) -> None:
        """Begin to read an upload that grows; not while all children are busy, nor where the store has no file."""
        path = self._store.growing_file(upload)
        if path is None or self._tasks.full or self._tasks.running(_key(upload)):
            return
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        feed = GrowingFile(descriptor=descriptor)
        if self._start(upload, feed=feed):
            self._feeds[upload] = feed

    def _read(self, upload: str, digest: Digest) -> bool:
        """Begin to read what an upload became, where the store has a file of it; else it is read when it is needed."""
        if self._store.growing_file(upload) is None or self._tasks.full:
            return False
        try:
            with self._store.open(digest) as stored:
                return self._start(upload, sources=[stored.fileno()])
        except (RegistryError, OSError) as error:
            _log.warning("upload %s: its blob is not read yet: %s", upload, error)
            return False

    def _start(self, upload: str, *, feed: GrowingFile | None = None, sources: list[int] | None = None) -> bool:
        key = _key(upload)
        done = self._guarded(key)(lambda outcome: self._done(upload, outcome))
        try:
            self._tasks.start(key, "follow", {}, feed=feed, sources=sources or [], limits=_LIMITS, done=done)
        except OSError as error:
            _log.warning("upload %s is not read: %s", upload, error)
            return False
        return True

    def _done(self, upload: str, outcome: Outcome) -> None:
        self._feeds.pop(upload, None)
        ended = self._ended.pop(upload, None)
        if ended is None or not isinstance(outcome, Answered) or not outcome.parts:
            return
        digest, size = ended
        stored, *parts = outcome.parts
        # The child hashed what it read: only if that is the blob, what it says is about it.
        if stored == canonical.encode({"digest": str(digest), "stored": size}):
            self._keep(digest, tuple(parts))


def _key(upload: str) -> str:
    return f"upload:{upload}"
