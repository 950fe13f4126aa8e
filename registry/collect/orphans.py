"""Store and catalogue compared: bytes that the catalogue does not know go, blobs that the store has not are told.

A blob that is missing is damage that somebody must know of: it is never repaired by forgetting it.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from itertools import islice
from typing import Final, TypeVar

from sqlalchemy import Connection

from ocispec.digest import Digest
from registry.catalogue.garbage import StoredBlob, is_there, known_blobs, stored_blobs
from registry.catalogue.leases import Mark, mark_orphan
from registry.collect.blobs import Doomed, delete
from registry.collect.report import Reason
from registry.collect.run import PAGE, Run

Item = TypeVar("Item")

_PREFIX: Final = 16
"""Hex digits of a digest that are remembered: 8 bytes a blob. Two that agree in them hide a missing one from us."""

_log = logging.getLogger("pratique.collect")


def sweep(run: Run) -> None:
    """Go through the whole store, then through what it should have."""
    seen = array("Q")
    for stored in chunks(run.store.listing(), PAGE):
        run.beat()
        run.tally.looked_at += len(stored)
        seen.extend(_prefix(found.digest) for found in stored)
        with run.catalogue.look() as conn:
            known = known_blobs(conn, [found.digest for found in stored])
        orphans = [
            Doomed(digest=found.digest, size=found.size, reason=Reason.ORPHAN)
            for found in stored
            if found.digest not in known and found.changed < run.old
        ]
        delete(run, orphans, lambda conn, blob: _mark(run, conn, blob))
        run.list_pending()
    _tell_missing(run, array("Q", sorted(seen)))


def _mark(run: Run, conn: Connection, blob: Doomed) -> Mark:
    return mark_orphan(conn, blob.digest, blob.size, run=run.attempt, now=run.clock())


def _tell_missing(run: Run, seen: array[int]) -> None:
    def read(conn: Connection, after: Digest | None) -> list[StoredBlob]:
        return stored_blobs(conn, after, PAGE, now=run.clock())

    for page in run.pages(read, lambda stored: stored.digest):
        suspects = [stored.digest for stored in page if stored.deleting is None and not _among(seen, stored.digest)]
        # Stored since the listing passed its place, or deleted since: the store is asked, and the catalogue after it.
        absent = [digest for digest in suspects if run.store.size(digest) is None]
        for digest in absent:
            with run.catalogue.look() as conn:
                known = is_there(conn, digest)
            if known:
                run.tally.miss(digest)
                _log.error("blob %s: the catalogue has it, and the store has not", digest)


def chunks(items: Iterator[Item], size: int) -> Iterator[list[Item]]:
    """The items, `size` at a time."""
    while chunk := list(islice(items, size)):
        yield chunk


def _prefix(digest: Digest) -> int:
    return int(digest.hex[:_PREFIX], 16)


def _among(seen: array[int], digest: Digest) -> bool:
    wanted = _prefix(digest)
    at = bisect_left(seen, wanted)
    return at < len(seen) and seen[at] == wanted
