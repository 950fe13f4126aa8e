"""Retention at work: tags that no rule keeps are removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from sqlalchemy import Connection

from registry.access import REGISTRY
from registry.catalogue.blobs import hold_repository
from registry.catalogue.garbage import KnownTag, known_tags, repository_names
from registry.catalogue.rules import rules_now, rules_to_keep
from registry.catalogue.running import hold_reports
from registry.collect.report import Reason
from registry.collect.retention import Named, Retention, Tag, Verdict, judge
from registry.collect.run import PAGE, Run, batches
from registry.removing import Remover
from registry.rules import Kind, RuleSet


def untag(run: Run) -> None:
    """Remove the tags that retention rules let go, in every repository that is under one."""
    with run.catalogue.look() as conn:
        rules = rules_now(conn)
    if not any(rule.kind is Kind.RETENTION for rule in rules.rules):
        return
    for names in run.pages(lambda conn, after: repository_names(conn, after or "", PAGE), lambda name: name):
        for name in names:
            if retention_of(rules, name):
                _untag(run, rules, name)
                run.list_pending()


def retention_of(rules: RuleSet, repository: str) -> tuple[Named, ...]:
    """The retention rules that a repository is under."""
    return tuple(
        Named(pattern=rule.pattern, value=rule.value)
        for rule in rules.of(Kind.RETENTION, repository)
        if isinstance(rule.value, Retention)
    )


def judged(
    rules: RuleSet,
    under: tuple[Named, ...],
    repository: str,
    tags: Iterable[KnownTag],
    *,
    now: datetime,
    grace: timedelta,
) -> Iterator[tuple[KnownTag, Verdict]]:
    """What becomes of each of a repository's tags, which come with the newest push first."""
    found = list(tags)
    seen = (
        Tag(name=tag.tag, pushed_at=tag.pushed_at, pulled=tag.pulled, served=tag.served is not None, runs=tag.runs)
        for tag in found
    )
    verdicts = judge(under, seen, immutable=lambda tag: rules.immutable(repository, tag), now=now, grace=grace)
    return zip(found, verdicts, strict=True)


def _untag(run: Run, rules: RuleSet, repository: str) -> None:
    now, since = run.started, run.running_since
    under = retention_of(rules, repository)
    with run.catalogue.look() as conn:
        tags = known_tags(conn, repository, running_since=since)
    run.tally.looked_at += len(tags)
    verdicts = judged(rules, under, repository, tags, now=now, grace=run.grace)
    doomed = [(tag, verdict) for tag, verdict in verdicts if not verdict.stays]
    for batch in batches(doomed):
        run.beat()
        if run.dry:
            for tag, verdict in batch:
                _note(run, repository, tag, verdict)
        else:
            _remove(run, rules, repository, batch)


def _remove(run: Run, rules: RuleSet, repository: str, doomed: list[tuple[KnownTag, Verdict]]) -> None:
    """Remove tags that are still as they were when they were judged, under rules that are still the same."""

    def remove(conn: Connection) -> list[tuple[KnownTag, Verdict]] | None:
        hold_repository(conn, repository)
        if rules_to_keep(conn) is not rules:
            return None
        hold_reports(conn)
        names = [tag.tag for tag, _ in doomed]
        still = set(known_tags(conn, repository, running_since=run.running_since, names=names))
        found = [(tag, verdict) for tag, verdict in doomed if tag in still]
        for tag, verdict in found:
            _remover(run, verdict.reason).tag(conn, repository, tag.tag)
        return found

    removed = run.change(remove)
    if removed is None:
        run.tally.leave("rules changed")
    for tag, verdict in removed or ():
        _note(run, repository, tag, verdict)


def _note(run: Run, repository: str, tag: KnownTag, verdict: Verdict) -> None:
    run.tally.note(Reason.TAG, f"{repository}:{tag.tag}", detail=f"{tag.pushed}: {verdict.reason}")


def _remover(run: Run, why: str) -> Remover:
    return Remover(audit=run.audit, principal=REGISTRY.name, source="", now=run.clock(), why=f"removed: {why}")
