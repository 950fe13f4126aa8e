"""Rows that go: decisions beyond what is kept, and what speaks of manifests, layers, pulls and hosts that are gone."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Final

from sqlalchemy import Connection

from ocispec.digest import Digest
from ocispec.errors import SpecError
from policy import dsse, wire
from policy.clearance import CLEARANCE_LIFETIME
from policy.errors import PolicyError
from policy.statements import Clearance
from registry.catalogue.leases import forget_leases
from registry.catalogue.leftovers import (
    Decided,
    decided_images,
    drop_contents,
    drop_decisions,
    drop_layers,
    drop_statement_keys,
    lost_contents,
    lost_layers,
    old_decisions,
)
from registry.catalogue.mirrored import forget_lookups
from registry.catalogue.running import Image, forget_pulls, forget_reports
from registry.collect.report import Reason
from registry.collect.run import BATCH, PAGE, Run, batches

LOOKED_UP: Final = timedelta(days=30)
"""How long it is remembered what another registry said of a reference; long before, it is asked again anyway."""

LONG_DEAD: Final = timedelta(days=1)
"""How long after its end a lease is forgotten; until then its holder may come back, and is believed."""


def drop_decisions_beyond(run: Run) -> None:
    """Remove the decisions on each image that are not among the newest, nor in use."""
    keep = run.settings.decisions
    for page in run.pages(
        lambda conn, after: decided_images(conn, after, PAGE), lambda found: (found.repository, found.image)
    ):
        for batch in batches([found for found in page if found.taken > keep or not found.there]):
            run.beat()
            if run.dry:
                with run.catalogue.read() as conn:
                    doomed = _old(run, batch, conn)
            else:
                doomed = run.change(partial(_drop_old, run, batch))
            for found, digest, size in doomed:
                run.tally.note(Reason.DECISION, _shown(found, digest), size)


def _old(run: Run, batch: list[Decided], conn: Connection) -> list[tuple[Decided, Digest, int]]:
    gone_before = run.started - timedelta(seconds=run.settings.removed)
    keep, now = run.settings.decisions, run.started
    return [
        (found, digest, size)
        for found in batch
        for digest, size in old_decisions(conn, found, keep=keep, now=now, gone_before=gone_before, rests_on=rests_on)
    ]


def _drop_old(run: Run, batch: list[Decided], conn: Connection) -> list[tuple[Decided, Digest, int]]:
    doomed = _old(run, batch, conn)
    drop_decisions(conn, [digest for _, digest, _ in doomed])
    return doomed


def drop_leftovers(run: Run) -> None:
    """Remove the other rows that speak of what is gone."""
    _drop(run, lost_contents, drop_contents)
    _drop(run, lost_layers, drop_layers)
    if run.dry:
        return
    before, asked_before = run.old, run.started - LOOKED_UP
    _repeat(run, "keys of statements that ended", lambda conn: drop_statement_keys(conn, before=before, limit=BATCH))
    _repeat(run, "what other registries said", lambda conn: forget_lookups(conn, before=asked_before, limit=PAGE))
    _note(run, "hosts' reports", run.change(lambda conn: forget_reports(conn, run.running_since)))
    _note(run, "leases", run.change(lambda conn: forget_leases(conn, run.clock() - LONG_DEAD)))
    after: Image | None = None
    while True:
        run.beat()
        after = run.change(partial(forget_pulls, after=after, limit=PAGE), durable=False)
        if after is None:
            break


def rests_on(envelope: bytes | None) -> tuple[Digest | None, timedelta]:
    """The evidence that a clearance names, if it names one, and how long clearances of its image are valid.

    Earlier ones, in place of which it came, may be in use on hosts as long.
    """
    if envelope is None:
        return None, CLEARANCE_LIFETIME
    try:
        said = wire.decode(dsse.parse(envelope, what="clearance").payload, what="clearance")
    except (SpecError, PolicyError):
        return None, CLEARANCE_LIFETIME
    if not isinstance(said, Clearance):
        return None, CLEARANCE_LIFETIME
    return said.evidence, max(said.expires - said.issued, CLEARANCE_LIFETIME)


def _drop(
    run: Run,
    find: Callable[[Connection, Digest | None, int], list[tuple[Digest, bool]]],
    drop: Callable[[Connection, list[Digest]], int],
) -> None:
    def key(found: tuple[Digest, bool]) -> Digest:
        return found[0]

    for page in run.pages(lambda conn, after: find(conn, after, PAGE), key):
        for batch in batches([digest for digest, there in page if not there]):
            dropped = len(batch)
            if not run.dry:
                dropped = run.change(partial(_dropped, drop, batch))
            _note(run, batch[0], dropped)


def _repeat(run: Run, what: str, drop: Callable[[Connection], int]) -> None:
    """Remove some rows at a time, until there are none."""
    dropped = 1
    while dropped:
        run.beat()
        dropped = run.change(drop, durable=False)
        _note(run, what, dropped)


def _dropped(drop: Callable[[Connection, list[Digest]], int], batch: list[Digest], conn: Connection) -> int:
    return drop(conn, batch)


def _note(run: Run, what: object, times: int) -> None:
    for _ in range(times):
        run.tally.note(Reason.RECORD, what)


def _shown(found: Decided, digest: Digest) -> str:
    return f"{digest} on {found.repository}@{found.image}"
