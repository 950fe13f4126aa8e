"""Manifests that go: what nothing names any more, as a retention rule says, and artifacts whose image is gone."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import groupby

from sqlalchemy import Connection

from registry.access import REGISTRY, tag_subject
from registry.catalogue.blobs import hold_repository
from registry.catalogue.garbage import KnownManifest, known_manifest, known_manifests
from registry.catalogue.rules import rules_now, rules_to_keep
from registry.catalogue.running import hold_reports
from registry.catalogue.tags import tags_of
from registry.collect.report import Reason
from registry.collect.retention import untagged_for
from registry.collect.run import PAGE, Run, batches
from registry.collect.tags import retention_of
from registry.removing import Remover
from registry.rules import RuleSet


def drop_manifests(run: Run) -> None:
    """Remove the manifests that nothing keeps."""
    since = run.running_since
    with run.catalogue.look() as conn:
        rules = rules_now(conn)
    for page in run.pages(
        lambda conn, after: known_manifests(conn, after, PAGE, running_since=since),
        lambda found: (found.repository, found.digest),
    ):
        for repository, group in groupby(page, key=lambda found: found.repository):
            stays_for = untagged_for(retention_of(rules, repository))
            doomed = [found for found in group if _why(run, found, stays_for, run.started) is not None]
            for batch in batches(doomed):
                run.beat()
                _drop(run, rules, repository, stays_for, batch)


def _drop(run: Run, rules: RuleSet, repository: str, stays_for: timedelta | None, doomed: list[KnownManifest]) -> None:
    """Look at each again, in the transaction that removes it."""

    def drop(conn: Connection) -> list[tuple[KnownManifest, Reason]] | None:
        removed: list[tuple[KnownManifest, Reason]] = []
        if not run.dry:
            hold_repository(conn, repository)
            if rules_to_keep(conn) is not rules:
                return None
            hold_reports(conn)
        for suspect in doomed:
            found = known_manifest(conn, repository, suspect.digest, running_since=run.running_since)
            why = _why(run, found, stays_for, run.started) if found is not None else None
            if found is None or why is None:
                continue
            if found.tagged and not all(map(tag_subject, tags_of(conn, repository, found.digest))):
                continue
            if run.dry or _remover(run, why).manifest(conn, repository, found.digest):
                removed.append((found, why))
        return removed

    if run.dry:
        with run.catalogue.read() as conn:
            gone = drop(conn)
    else:
        gone = run.change(drop)
    if gone is None:
        run.tally.leave("rules changed")
    for found, why in gone or ():
        run.tally.note(why, f"{repository}@{found.digest}", found.size)


def _why(run: Run, found: KnownManifest, stays_for: timedelta | None, now: datetime) -> Reason | None:
    """Why a manifest goes, None if it stays. An artifact may have tags that speak of its image; others keep it."""
    if found.listed or found.runs:
        return None
    if found.about is not None and found.kind == "artifact":
        goes = not found.subject_there and (found.own or run.settings.referrers) and found.touched < now - run.grace
        return Reason.SUBJECT_GONE if goes else None
    if found.tagged or stays_for is None or found.touched >= now - max(stays_for, run.grace):
        return None
    pulled_lately = found.pulled is not None and found.pulled >= now - run.grace
    return None if pulled_lately else Reason.UNTAGGED


def _remover(run: Run, why: Reason) -> Remover:
    return Remover(audit=run.audit, principal=REGISTRY.name, source="", now=run.clock(), why=f"removed: {why}")
