"""One run of the collector: what it works with, what it goes by, and how it goes through long lists."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, TypeVar

from sqlalchemy import Connection

from registry.audit import Audit
from registry.catalogue.collections import add_collected, renew_collection
from registry.catalogue.database import Catalogue
from registry.collect.report import Tally
from registry.settings_collect import CollectSettings
from registry.store.interface import BlobStore

SILENCE: Final = timedelta(minutes=5)
"""How long a run that says nothing is not taken for dead, at the least: see `silence_of`."""

BEAT_SECONDS: Final = 30.0
"""How often a run says that it goes on. It begins no deletion if the last time is longer ago."""

PAGE: Final = 500
"""Rows that are looked at in one transaction."""

BATCH: Final = 50
"""Things that are taken away in one transaction, and blobs that are in deletion at a time."""

LONGEST_PAUSE: Final = 0.02
"""Seconds of the pause after a transaction."""

Done = TypeVar("Done")
Key = TypeVar("Key")
Item = TypeVar("Item")


def silence_of(deadline: float) -> timedelta:
    """How long a run that says nothing is not taken for dead, where a call of the store takes so many seconds at most.

    Far longer than from the last word to the end of a deletion that was begun after it.
    """
    return max(SILENCE, timedelta(seconds=2 * BEAT_SECONDS + 4 * deadline))


@dataclass(slots=True, kw_only=True)
class Run:
    """A run; `dry` changes nothing, `sweep` looks through the whole store. `clock` gives aware times in UTC.

    `attempt` is who is at it (`catalogue/collections.py`), `started` when. What was last needed before `started`,
    less the grace, may go; so what the run itself lets go of stays for the next one, and a dry run, in which nothing
    is let go of, comes to the same.
    """

    id: str
    attempt: str
    started: datetime
    catalogue: Catalogue
    store: BlobStore
    audit: Audit
    clock: Callable[[], datetime]
    settings: CollectSettings
    silence: timedelta = SILENCE
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
        """What was last needed before then may go. Times are whole seconds, and nothing of the first one is old."""
        return self.started - self.grace

    @property
    def running_since(self) -> datetime:
        """Hosts' reports from then on count."""
        return self.started - timedelta(seconds=self.settings.running)

    def change(self, work: Callable[[Connection], Done], *, durable: bool = True) -> Done:
        """`Catalogue.change`, and then a pause as long as it took: where one writes at a time, others want to, too."""
        began = time.monotonic()
        done = self.catalogue.change(work, durable=durable)
        time.sleep(min(time.monotonic() - began, LONGEST_PAUSE))
        return done

    def beat(self) -> None:
        """Say that the run goes on, if the last time is a while ago.

        Raises:
            CollectionLostError: it was taken for dead; it must delete nothing more.
        """
        now = time.monotonic()
        if now - self._beat >= BEAT_SECONDS:
            with self.catalogue.write(durable=False, stamped=False) as conn:
                renew_collection(conn, self.id, self.attempt, until=self.clock() + self.silence)
            self._beat = now

    def list_pending(self) -> None:
        """Write down what was taken away since the last time, one by one."""
        tally = self.tally
        if tally.pending:
            with self.catalogue.write(durable=False, stamped=False) as conn:
                add_collected(conn, self.id, tally.listed, tally.pending)
            tally.listed += len(tally.pending)
            tally.pending.clear()

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
            self.list_pending()
            after = key(page[-1])


def batches(items: list[Item], size: int = BATCH) -> Iterator[list[Item]]:
    """The items, at most `size` at a time."""
    for at in range(0, len(items), size):
        yield items[at : at + size]
