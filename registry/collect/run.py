"""One run of the collector: what it works with, what it goes by, and how it goes through long lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from sqlalchemy import Connection

from registry.audit import Audit
from registry.catalogue.collections import renew_collection
from registry.catalogue.database import Catalogue
from registry.collect.report import Tally
from registry.settings_collect import CollectSettings
from registry.store.interface import BlobStore

SILENCE: Final = timedelta(minutes=15)
"""How long a run that says nothing is not taken for dead; far longer than any call of the store takes."""

BEAT_SECONDS: Final = 30.0
"""How often a run says that it goes on. It deletes nothing if the last time is longer ago."""

PAGE: Final = 500
"""Rows that are looked at in one transaction."""

BATCH: Final = 50
"""Things that are taken away in one transaction, and blobs that are in deletion at a time."""

Key = TypeVar("Key")
Item = TypeVar("Item")


@dataclass(slots=True, kw_only=True)
class Run:
    """A run; `dry` changes nothing, `sweep` looks through the whole store. `clock` gives aware times in UTC."""

    id: str
    catalogue: Catalogue
    store: BlobStore
    audit: Audit
    clock: Callable[[], datetime]
    settings: CollectSettings
    dry: bool = False
    sweep: bool = True
    tally: Tally = field(default_factory=Tally)
    _beat: float = field(default_factory=time.monotonic)

    @property
    def grace(self) -> timedelta:
        """How long what nobody needs stays."""
        return timedelta(seconds=self.settings.grace)

    @property
    def old(self) -> datetime:
        """What was last needed before then may go. Times are whole seconds, and nothing of this second is old."""
        return self.clock() - self.grace

    @property
    def running_since(self) -> datetime:
        """Hosts' reports from then on count."""
        return self.clock() - timedelta(seconds=self.settings.running)

    def beat(self) -> None:
        """Say that the run goes on, if the last time is a while ago.

        Raises:
            CollectionLostError: it was taken for dead; it must delete nothing more.
        """
        now = time.monotonic()
        if now - self._beat >= BEAT_SECONDS:
            with self.catalogue.write(durable=False) as conn:
                renew_collection(conn, self.id, until=self.clock() + SILENCE)
            self._beat = now

    def pages(
        self, read: Callable[[Connection, Key | None], list[Item]], key: Callable[[Item], Key]
    ) -> Iterator[list[Item]]:
        """All that `read` gives, a page after the key of the last item of the page before."""
        after: Key | None = None
        while True:
            self.beat()
            with self.catalogue.look() as conn:
                page = read(conn, after)
            if not page:
                return
            self.tally.looked_at += len(page)
            yield page
            after = key(page[-1])


def batches(items: list[Item], size: int = BATCH) -> Iterator[list[Item]]:
    """The items, at most `size` at a time."""
    for at in range(0, len(items), size):
        yield items[at : at + size]
