"""Components met by advisories: the cases of matching.md, each with its test.

One vulnerability is one finding of a component, whatever number of databases name it: records whose names
meet (ids, aliases) are joined. Names are joined within one component's own records only, never over `related`
and never over a notice that bundles several CVEs. What does not count is kept, with the reason.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from scanner.advisories.evaluate import Hit, Undetermined, evaluate
from scanner.advisories.interface import Advisories
from scanner.advisories.records import Advisory, BrokenRecord
from scanner.advisories.severity import worst
from scanner.ecosystems import Scope, distribution, foreign_origin, scope
from scanner.model import Component, Finding, FixState, OperatingSystem, Severity, Unknown
from scanner.versions.interface import VersionError, VersionOrder

ADVISORY: Final = "advisory"
"""`Finding.kind` of a component met by an advisory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Match:
    """An advisory that affects a component."""

    advisory: Advisory
    ecosystem: str
    fixed_in: str
    wont_fix: bool
    severity: Severity


def match(
    components: Sequence[Component], system: OperatingSystem | None, advisories: Advisories
) -> tuple[tuple[Finding, ...], tuple[Unknown, ...]]:
    """The findings of `components`, and what could not be told, both in the order of the components.

    Raises:
        ScanError: the advisory data cannot be read.
    """
    findings: list[Finding] = []
    unknowns: list[Unknown] = list(_coverage(components, system, advisories))
    look_up = _LookUp(advisories)
    for component in components:
        place = scope(component, system)
        if place is None:
            continue
        if owner := foreign_origin(component, system):
            detail = f"version {component.version} was built by {owner}, of which the distribution's data say nothing"
            unknowns.append(_unknown("foreign-origin", component, detail))
        suppressed = _suppression(component, system, advisories)
        matches, doubts = _matches(component, place, look_up)
        if not suppressed:
            unknowns += doubts
        findings += _findings(component, matches, place.order, advisories, suppressed)
    return tuple(findings), tuple(unknowns)


def _coverage(
    components: Sequence[Component], system: OperatingSystem | None, advisories: Advisories
) -> Iterator[Unknown]:
    """An ecosystem without any record finds nothing in any version: that is ignorance, not health."""
    if any(component.type == "deb" for component in components):
        ecosystems = distribution(system)
        if system is not None and not ecosystems:
            named = f"{system.id} {system.version_id or system.codename}".strip()
            detail = "no advisory data are known for this distribution and release"
            yield Unknown(code="unsupported-ecosystem", subject=named, detail=detail, layer=system.layer)
        elif ecosystems and not any(map(advisories.covers, ecosystems)):
            detail = f"the advisory data hold no record for {ecosystems[0]}"
            yield Unknown(code="unsupported-ecosystem", subject=ecosystems[0], detail=detail)
    if any(component.type == "pypi" for component in components) and not advisories.covers("PyPI"):
        detail = "the advisory data hold no record for PyPI"
        yield Unknown(code="unsupported-ecosystem", subject="PyPI", detail=detail)


def _unknown(code: str, component: Component, detail: str) -> Unknown:
    return Unknown(code=code, subject=component.purl, detail=detail, layer=component.layer)


class _LookUp:
    """The records of each package, fetched once: several components are built from one source."""

    def __init__(self, advisories: Advisories) -> None:
        self._advisories = advisories
        self._known: dict[tuple[str, str], tuple[tuple[Advisory, ...], tuple[BrokenRecord, ...]]] = {}

    def records(self, ecosystem: str, name: str) -> tuple[tuple[Advisory, ...], tuple[BrokenRecord, ...]]:
        """The records for a package, and those that could not be read."""
        key = (ecosystem, name)
        if key not in self._known:
            self._known[key] = self._advisories.advisories(*key), self._advisories.broken(*key)
        return self._known[key]


def _matches(component: Component, place: Scope, look_up: _LookUp) -> tuple[list[_Match], list[Unknown]]:
    unknowns: list[Unknown] = []
    readable = True
    try:
        place.order.key(place.version)
    except VersionError as error:
        readable = False
        unknowns.append(_unknown("unreadable-version", component, str(error)))
    matches: list[_Match] = []
    for ecosystem in place.ecosystems:
        records, broken = look_up.records(ecosystem, place.name)
        for advisory in records:
            found, doubt = _judge(advisory, place)
            if found is not None:
                matches.append(found)
            elif doubt is not None and readable:
                unknowns.append(_unknown(doubt.code, component, f"{advisory.id}: {doubt.detail}"))
        unknowns += [_unknown("unreadable-record", component, f"{item.id}: {item.detail}") for item in broken]
    return matches, unknowns


@dataclass(frozen=True, slots=True, kw_only=True)
class _Doubt:
    code: str
    detail: str


def _judge(advisory: Advisory, place: Scope) -> tuple[_Match | None, _Doubt | None]:
    if advisory.withdrawn:
        return None, None
    doubt: _Doubt | None = None
    for affected in advisory.affected:
        answer = evaluate(affected, place.version, place.order)
        if isinstance(answer, Hit):
            severity = worst(advisory.severity, affected.severity)
            found = _Match(
                advisory=advisory,
                ecosystem=affected.ecosystem,
                fixed_in=answer.fixed_in,
                wont_fix=affected.wont_fix,
                severity=severity,
            )
            return found, None
        if isinstance(answer, Undetermined):
            named = bool(affected.versions or affected.ranges)
            doubt = _Doubt(code="unreadable-version" if named else "unreadable-record", detail=answer.detail)
    return None, doubt


def _suppression(component: Component, system: OperatingSystem | None, advisories: Advisories) -> str:
    """Why findings of a component do not count: a distribution's package owns its files, and its data decide.

    Only where the distribution has data at all (matching.md, case 11).
    """
    ecosystems = distribution(system)
    if not component.owner or not any(map(advisories.covers, ecosystems)):
        return ""
    return f"its files belong to {component.owner}, of which the data of {ecosystems[0]} decide"


def _findings(
    component: Component, matches: list[_Match], order: VersionOrder, advisories: Advisories, suppressed: str
) -> Iterator[Finding]:
    groups = _joined(matches)
    told = {name for group in groups for item in group for name in item.advisory.names}
    for group in groups:
        reason = suppressed or _retold(group, told - {name for item in group for name in item.advisory.names})
        yield _finding(component, group, order, advisories, reason)


def _joined(matches: list[_Match]) -> list[list[_Match]]:
    """The matches in groups of one vulnerability each, ordered by id."""
    groups: list[tuple[set[str], list[_Match]]] = []
    for item in sorted(matches, key=lambda match: match.advisory.id):
        names, members = set(item.advisory.names), [item]
        apart: list[tuple[set[str], list[_Match]]] = []
        for group in groups:
            if group[0] & names:
                names |= group[0]
                members = group[1] + members
            else:
                apart.append(group)
        groups = [*apart, (names, members)]
    return sorted((members for _, members in groups), key=lambda members: members[0].advisory.id)


def _retold(group: list[_Match], told: set[str]) -> str:
    """Why a notice that bundles vulnerabilities does not count: each of them is a finding of its own."""
    upstream = {name for item in group for name in item.advisory.upstream}
    if len(upstream) > 1 and upstream <= told:
        return f"each vulnerability in it is a finding of its own: {', '.join(sorted(upstream))}"
    return ""


def _finding(
    component: Component, group: list[_Match], order: VersionOrder, advisories: Advisories, suppressed: str
) -> Finding:
    records = [item.advisory for item in group]
    first = records[0]
    names = {name for record in records for name in record.names}
    upstream = {name for record in records for name in record.upstream}
    fixed_in = _newest((item.fixed_in for item in group if item.fixed_in), order)
    return Finding(
        kind=ADVISORY,
        id=first.id,
        purl=component.purl,
        layer=component.layer,
        summary=next((record.summary for record in records if record.summary), ""),
        aliases=tuple(sorted(names - {first.id})),
        upstream=tuple(sorted(upstream - names)),
        severity=worst(*(item.severity for item in group)),
        fix_state=_fix_state(group, fixed_in),
        fixed_in=fixed_in,
        # A notice is exploited if one of the vulnerabilities in it is.
        exploited=advisories.exploited(names | upstream),
        published=min((record.published for record in records if record.published), default=""),
        source=group[0].ecosystem,
        suppressed=suppressed,
    )


def _fix_state(group: list[_Match], fixed_in: str) -> FixState:
    if fixed_in:
        return FixState.FIXED
    return FixState.WONT_FIX if all(item.wont_fix for item in group) else FixState.NOT_FIXED


def _newest(versions: Iterable[str], order: VersionOrder) -> str:
    """The newest of the fixes that the records name: each record is content with it."""
    newest = ""
    for version in versions:
        if not newest:
            newest = version
            continue
        # A fix from a SEMVER range may be unreadable in the ecosystem's own order: then the first one stays.
        with contextlib.suppress(VersionError):
            if order.key(newest) < order.key(version):
                newest = version
    return newest
