"""End of life: the operating system, and components whose purl the end-of-life data name.

A distribution maintains the packages that it built until its own end, whatever the upstream project does;
so a deb's end is reported, and suppressed while the distribution's release lives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date, timedelta
from typing import Final

from scanner.advisories.interface import Advisories
from scanner.advisories.records import Cycle
from scanner.model import Component, Finding, FixState, OperatingSystem, Unknown

END_OF_LIFE: Final = "end-of-life"
"""`Finding.kind` of a component, or of the operating system, whose support has ended."""

HORIZON: Final = timedelta(days=366)
"""How long before its end a component is told, so that a policy can warn."""

# os-release ID to endoflife.date's product, where they differ.
_PRODUCTS: Final[Mapping[str, str]] = {
    "alpine": "alpine-linux",
    "amzn": "amazon-linux",
    "rocky": "rocky-linux",
    "ol": "oracle-linux",
    "photon": "vmware-photon",
    "opensuse-leap": "opensuse",
}

_NUMBERS: Final = re.compile(r"v?(?:[0-9]+:|[0-9]+!)?([0-9]+(?:\.[0-9]+)*)", re.ASCII)


def system_purl(system: OperatingSystem) -> str:
    """How findings about the operating system itself name it."""
    return f"pkg:generic/{system.id}" + (f"@{system.version_id}" if system.version_id else "")


def ends(
    components: Sequence[Component], system: OperatingSystem | None, advisories: Advisories, today: date
) -> tuple[tuple[Finding, ...], tuple[Unknown, ...]]:
    """What has reached its end of life on `today`, or will within HORIZON (`Finding.ended` tells); the system first.

    Raises:
        ScanError: the end-of-life data cannot be read.
    """
    findings: list[Finding] = []
    unknowns: list[Unknown] = []
    maintained = ""
    if system is not None:
        cycles = advisories.product_cycles(_PRODUCTS.get(system.id, system.id))
        cycle = _cycle(cycles, system.version_id)
        if cycle is None:
            detail = "the end-of-life data do not know this operating system and release"
            unknowns.append(
                Unknown(code="no-end-of-life-date", subject=system_purl(system), detail=detail, layer=system.layer)
            )
        else:
            findings += _findings(cycle, cycles, today, purl=system_purl(system), layer=system.layer)
            maintained = _maintained(system, cycle, today)
    for component in components:
        reason = maintained if component.type == "deb" or component.owner else ""
        for others, own in _component_cycles(component, system, advisories):
            for finding in _findings(own, others, today, purl=component.purl, layer=component.layer):
                findings.append(replace(finding, suppressed=reason))
    return tuple(findings), tuple(unknowns)


def has_ended(cycle: Cycle, today: date) -> bool:
    """True if a cycle's support is over; where there is a date, the date decides."""
    return cycle.ended or bool(cycle.eol and cycle.eol <= today.isoformat())


def _maintained(system: OperatingSystem, cycle: Cycle, today: date) -> str:
    if has_ended(cycle, today):
        return ""
    until = f" until {cycle.eol}" if cycle.eol else ""
    return f"{system.id} {system.version_id} maintains its packages{until}"


def _component_cycles(
    component: Component, system: OperatingSystem | None, advisories: Advisories
) -> Iterator[tuple[Sequence[Cycle], Cycle]]:
    if component.type == "pypi":
        purls = [f"pkg:pypi/{component.name}"]
        version = component.version
    elif component.type == "deb" and system is not None:
        names = dict.fromkeys((component.name, component.source or component.name))
        purls = [f"pkg:deb/{system.id}/{name}" for name in names]
        version = component.source_version or component.version
    else:
        return
    products: dict[str, list[Cycle]] = {}
    for purl in purls:
        for cycle in advisories.purl_cycles(purl):
            products.setdefault(cycle.product, []).append(cycle)
    for cycles in products.values():
        if (found := _cycle(cycles, version)) is not None:
            yield cycles, found


def _cycle(cycles: Sequence[Cycle], version: str) -> Cycle | None:
    """The cycle that a version belongs to: the longest name that its numbers begin with."""
    match = _NUMBERS.match(version)
    if match is None:
        return None
    numbers = match.group(1)
    names = {cycle.name: cycle for cycle in cycles}
    while numbers:
        if numbers in names:
            return names[numbers]
        numbers = numbers.rpartition(".")[0]
    return None


def _findings(cycle: Cycle, cycles: Sequence[Cycle], today: date, *, purl: str, layer: int) -> Iterator[Finding]:
    over = has_ended(cycle, today)
    if not over and (not cycle.eol or cycle.eol > (today + HORIZON).isoformat()):
        return
    when = f" on {cycle.eol}" if cycle.eol else ""
    yield Finding(
        kind=END_OF_LIFE,
        id=f"EOL-{cycle.product}-{cycle.name}",
        purl=purl,
        layer=layer,
        summary=f"{cycle.product} {cycle.name} {'reached' if over else 'reaches'} its end of life{when}",
        fix_state=FixState.NOT_FIXED,
        fixed_in=_next_maintained(cycle, cycles, today),
        ended=cycle.eol,
        source="endoflife",
    )


def _next_maintained(cycle: Cycle, cycles: Sequence[Cycle], today: date) -> str:
    """The name of the nearest newer cycle that is still maintained; "" if there is none."""
    newer = list(cycles)[: list(cycles).index(cycle)]
    return next((item.name for item in reversed(newer) if not has_ended(item, today)), "")
