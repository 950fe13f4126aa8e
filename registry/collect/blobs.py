"""Blobs that go: out of repositories whose manifests do not need them, then, if none has them, out of the store.

Bytes are deleted in three steps, each of which another run can take up: the row is marked, in a transaction that finds
that nobody needs or is storing them; the bytes are deleted; the row is removed. See `catalogue/leases.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final

from sqlalchemy import Connection

from ocispec.digest import Digest
from registry.catalogue.blobs import hold_repository
from registry.catalogue.garbage import HeldBlob, StoredBlob, drop_loose, held_blobs, stored_blobs
from registry.catalogue.leases import Mark, forget_deleted, mark_deleting, take_over
from registry.collect.report import Reason
from registry.collect.run import PAGE, Run, batches
from registry.errors import StorageError

MAX_FAILURES: Final = 10
"""Deletions that may fail one after the other; then the store is taken to be away, and the run ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """A blob whose bytes are to go, and why."""

    digest: Digest
    size: int
    reason: Reason


def release_blobs(run: Run) -> None:
    """Take blobs out of repositories where no manifest needs them."""
    before = run.old
    for page in run.pages(
        lambda conn, after: held_blobs(conn, after, PAGE, before=before),
        lambda held: (held.repository, held.digest),
    ):
        for repository, group in groupby((held for held in page if held.loose), key=lambda held: held.repository):
            for batch in batches(list(group)):
                run.beat()
                _release(run, repository, batch)


def _release(run: Run, repository: str, loose: list[HeldBlob]) -> None:
    def drop(conn: Connection) -> list[HeldBlob]:
        hold_repository(conn, repository)
        return [held for held in loose if drop_loose(conn, repository, held.digest, before=run.old)]

    for held in loose if run.dry else run.change(drop):
        run.tally.note(Reason.NOT_NEEDED, f"{repository}@{held.digest}", held.size)


def free_blobs(run: Run) -> None:
    """Delete the bytes of blobs that are in no repository, and of those whose deletion another run began."""
    loose_before = run.old if run.dry else None

    def read(conn: Connection, after: Digest | None) -> list[StoredBlob]:
        return stored_blobs(conn, after, PAGE, now=run.clock(), loose_before=loose_before)

    for page in run.pages(read, lambda stored: stored.digest):
        doomed = [
            Doomed(
                digest=stored.digest,
                size=stored.size,
                reason=Reason.IN_NO_REPOSITORY if stored.deleting is None else Reason.INTERRUPTED,
            )
            for stored in page
            if _may_go(run, stored)
        ]
        delete(run, doomed, lambda conn, blob: _mark(run, conn, blob))


def _may_go(run: Run, stored: StoredBlob) -> bool:
    if stored.needed:
        return False
    if stored.leased:
        run.tally.leave("leased")
        return False
    return True


def _mark(run: Run, conn: Connection, blob: Doomed) -> Mark:
    if blob.reason is Reason.INTERRUPTED:
        taken = take_over(conn, blob.digest, run=run.attempt, now=run.clock())
        return Mark.MARKED if taken else Mark.BUSY
    return mark_deleting(conn, blob.digest, run=run.attempt, now=run.clock())


def delete(run: Run, doomed: list[Doomed], mark: Callable[[Connection, Doomed], Mark]) -> None:
    """Delete the bytes of those that `mark` marks; in a dry run, count them."""
    for batch in batches(doomed):
        run.beat()
        if run.dry:
            _count(run, batch)
            continue
        marks = run.change(partial(_marks, mark, batch))
        for found in marks:
            if found in {Mark.BUSY, Mark.LEASED}:
                run.tally.leave(found.value)
        _delete_bytes(run, [blob for blob, found in zip(batch, marks, strict=True) if found is Mark.MARKED])


def _marks(mark: Callable[[Connection, Doomed], Mark], batch: list[Doomed], conn: Connection) -> list[Mark]:
    return [mark(conn, blob) for blob in batch]


def _delete_bytes(run: Run, marked: list[Doomed]) -> None:
    """Steps two and three. What cannot be deleted stays marked, for the next run: nobody knows what became of it."""
    gone: list[Doomed] = []
    failures = 0
    try:
        for blob in marked:
            run.beat()
            try:
                run.store.delete(blob.digest)
            except StorageError:
                run.tally.leave("failed")
                failures += 1
                if failures >= MAX_FAILURES:
                    raise
            else:
                gone.append(blob)
                failures = 0
    finally:
        if gone:
            digests = [blob.digest for blob in gone]
            run.change(lambda conn: forget_deleted(conn, digests, run=run.attempt), durable=False)
            _count(run, gone)


def _count(run: Run, blobs: Iterable[Doomed]) -> None:
    for blob in blobs:
        run.tally.note(blob.reason, blob.digest, blob.size)
