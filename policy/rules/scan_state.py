"""What a scan must be to be believed: whole, understood, and made with data that are not stale.

A scanner that crashed, a package database that contradicts its files, records of last month: each is a reason of
its own, and none is a pass.
"""

from __future__ import annotations

from collections.abc import Iterable

from policy.errors import PolicyError
from policy.globs import any_of
from policy.model import Verdict
from policy.rules.interface import View, act, unknown
from policy.settings import Action, Check, ScanTerms, spell_duration
from policy.times import SKEW, parse_time
from scanner.model import Unknown

UNKNOWN_CODES = (
    "unreadable-record",
    "unreadable-version",
    "database-contradicts-files",
    "unsupported-ecosystem",
    "unowned-executable",
    "no-operating-system",
    "unreadable-licence",
    "foreign-origin",
    "no-end-of-life-date",
)
"""The codes of `scanner.model.Unknown` that a policy may name; any other is denied."""


def scan_complete(view: View) -> Iterable[Verdict]:
    """Each part of the scan that failed."""
    evidence = view.evidence
    for error in evidence.errors:
        yield unknown("scan", "scan-failed", str(evidence.image.manifest), f"the scan failed: {error[:500]}")


def unknowns(terms: ScanTerms) -> Check:
    """The closure over what the scanner could not tell; what no entry names is denied."""
    entries = [(entry, any_of(entry.subjects)) for entry in terms.unknowns]

    def action(found: Unknown, level: str) -> Action:
        for entry, matches in entries:
            if entry.code != found.code or (entry.levels and level not in entry.levels):
                continue
            if not entry.subjects or matches(found.subject):
                return entry.action
        return Action.DENY

    def check(view: View) -> Iterable[Verdict]:
        for found in view.evidence.unknowns:
            refusal = unknown("unknowns", found.code, found.subject, found.detail, layer=found.layer)
            yield from act(action(found, view.level), refusal)

    return check


def freshness(terms: ScanTerms) -> Check:
    """The closure over the records that the scan used: each source that is wanted must be there, and young enough."""

    def check(view: View) -> Iterable[Verdict]:
        evidence = view.evidence
        for wanted in terms.data:
            sources = [source for source in evidence.data if wanted.source.matches(source.name)]
            if not sources:
                subject = str(wanted.source)
                yield unknown("freshness", "data-missing", subject, f"the scan used no records of {subject}")
            for source in sources:
                age = f"may be {spell_duration(wanted.max_age)} old"
                try:
                    date = parse_time(source.date, what=source.name)
                except PolicyError as error:
                    yield unknown("freshness", "data-undated", source.name, str(error))
                    continue
                if date > evidence.now + SKEW:
                    yield unknown("freshness", "data-from-future", source.name, f"imported {source.date}, after now")
                elif evidence.now - date > wanted.max_age:
                    message = f"{source.name} was imported {source.date}; it {age}"
                    yield unknown("freshness", "data-stale", source.name, message, fix="import newer records")

    return check
