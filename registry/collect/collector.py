"""A run of the collector, from what is wanted no more to bytes that are gone. Its main path.

 (1) derived objects of what is gone (only where the whole store is looked through);
 (2) decisions beyond the newest, rows that speak of what is gone;
 (3) tags that no retention rule keeps are removed;
 (4) manifests that nothing names any more, where a rule says so, and artifacts whose image is gone;
 (5) blobs that no manifest of their repository needs leave it;
 (6) bytes that no repository has are deleted, and what another run had begun to delete;
 (7) bytes that the catalogue does not know; what it knows and the store has not is told (where the whole store is).

Every step takes away only what was not needed for the grace before the run began, and what one step lets go of comes
before no later one: a run frees what earlier ones let go of, and a dry run comes to the same. All of it goes on beside
pushes, mounts, moves of tags and deletions; a run that dies anywhere leaves what the next one finishes.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Final

from registry.access import REGISTRY
from registry.audit import Audit, Event
from registry.catalogue.collections import (
    Begun,
    Progress,
    begin_collection,
    end_collection,
    forget_collected,
    list_collected,
    note_sweep,
    request_collection,
)
from registry.catalogue.database import Catalogue
from registry.collect.blobs import free_blobs, release_blobs
from registry.collect.derived import drop_derived
from registry.collect.manifests import drop_manifests
from registry.collect.orphans import sweep
from registry.collect.records import drop_decisions_beyond, drop_leftovers
from registry.collect.report import report_text
from registry.collect.run import PAGE, SILENCE, Run
from registry.collect.tags import untag
from registry.errors import CollectionLostError, RegistryError
from registry.settings_collect import CollectSettings
from registry.store.interface import BlobStore

STEPS: Final[tuple[Callable[[Run], None], ...]] = (
    drop_derived,
    drop_decisions_beyond,
    drop_leftovers,
    untag,
    drop_manifests,
    release_blobs,
    free_blobs,
    sweep,
)
"""The steps in order; those of SWEEPS only where the whole store is looked through."""

SWEEPS: Final = frozenset({sweep, drop_derived})

_log = logging.getLogger("pratique.collect")


def collect(run: Run) -> None:
    """Do all steps.

    Raises:
        CollectionLostError: the run was taken for dead.
        StorageError, CatalogueError: store or catalogue are away; what was freed is freed.
    """
    for step in STEPS:
        if run.sweep or step not in SWEEPS:
            step(run)
            run.list_pending()


def collect_and_tell(run: Run, *, by: str) -> bool:
    """Do all steps, and record what came of it: in the run's row, the audit, and the log; True if all went well.

    Raises:
        CollectionLostError: the run was taken for dead, and is another's.
        CatalogueError: nothing could be recorded; the run is taken up again.
    """
    error = ""
    try:
        _resume(run)
        collect(run)
    except CollectionLostError:
        raise
    except RegistryError as failed:
        error = str(failed)
    run.list_pending()
    tally = run.tally
    report = report_text(tally, started=run.started, ended=run.clock(), dry_run=run.dry, sweep=run.sweep, error=error)
    said = f"{'dry run: ' if run.dry else ''}{tally.summary()}{f'; then failed: {error}' if error else ''}"
    state = Progress.FAILED if error else Progress.DONE
    with run.catalogue.write() as conn:
        end_collection(conn, run.id, run.attempt, state=state, report=report, now=run.clock())
        if run.sweep and not run.dry and not error:
            note_sweep(conn, run.started)
        run.audit.append(
            conn, Event.COLLECT, principal=by, subject=f"collection {run.id}", before=str(Progress.RUNNING), after=said
        )
    _log.log(logging.ERROR if error or tally.missing_count else logging.INFO, "collection %s: %s", run.id, said)
    return not error and not tally.left.get("failed")


def collect_now(
    catalogue: Catalogue,
    store: BlobStore,
    settings: CollectSettings,
    *,
    clock: Callable[[], datetime],
    by: str = REGISTRY.name,
    dry: bool = False,
) -> Run:
    """Do a run over everything here and now, in this process, beside a registry or without one; returns it, done.

    Raises:
        CollectionLostError: another run goes on, or this one failed; its row says why.
    """
    now, worker = clock(), secrets.token_hex(8)
    with catalogue.write() as conn:
        wanted = request_collection(conn, by=by, dry_run=dry, now=now)
        begun = begin_collection(conn, wanted, worker=worker, now=now, until=now + SILENCE)
        if not isinstance(begun, Begun):
            raise CollectionLostError("another collection goes on; to be asked for again later")
    run = Run(
        id=wanted,
        attempt=begun.attempt,
        started=begun.started,
        catalogue=catalogue,
        store=store,
        audit=Audit(clock),
        clock=clock,
        settings=settings,
        dry=dry,
    )
    if not collect_and_tell(run, by=by):
        raise CollectionLostError(f"collection {run.id}: failed")
    return run


def _resume(run: Run) -> None:
    """Go on counting from what an attempt that died had taken away; a dry run begins anew."""
    if run.dry:
        with run.catalogue.write(durable=False) as conn:
            forget_collected(conn, run.id)
        return
    while True:
        with run.catalogue.look() as conn:
            page = list_collected(conn, run.id, after=run.tally.listed, limit=PAGE)
        if not page:
            return
        for number, thing in page:
            run.tally.resume(number, thing)
