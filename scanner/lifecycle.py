"""End of life: the operating system, and components whose purl the end-of-life data name.

A distribution maintains the packages that it built until its own end, whatever the upstream project does;
so a deb's end is reported, and suppressed while the distribution's release lives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Final

from scanner.advisories.interface import Advisories
from scanner.advisories.records import Cycle
from scanner.model import Component, Finding, FixState, OperatingSystem, Unknown

END_OF_LIFE: Final = "end-of-life"
"""`Finding.kind` of a component, or of the operating system, whose support has ended."""

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
    """The findings of what has reached its end of life on `today`, the operating system's first.

    Raises:
        ScanError: the end-of-life data cannot be read.
    """
    findings: list[Finding] = []
    unknowns: list[Unknown] = []
    maintained = ""
    if system is not None:
        cycle = _cycle(advisories.product_cycles(_PRODUCTS.get(system.id, system.id)), system.version_id)
        if cycle is None:
            detail = "the end-of-life data do not know this operating system and release"
            unknowns.append(
                Unknown(code="no-end-of-life-date", subject=system_purl(system), detail=detail, layer=system.layer)
            )
        elif has_ended(cycle, today):
            findings.append(_finding(cycle, system_purl(system), system.layer))
        else:
            maintained = f"{system.id} {system.version_id} maintains its packages" + (
                f" until {cycle.eol}" if cycle.eol else ""
            )
    for component in components:
        for cycle in _component_cycles(component, system, advisories):
            if has_ended(cycle, today):
                finding = _finding(cycle, component.purl, component.layer)
                reason = maintained if component.type == "deb" or component.owner else ""
                findings.append(replace(finding, suppressed=reason))
    return tuple(findings), tuple(unknowns)


def has_ended(cycle: Cycle, today: date) -> bool:
    """True if a cycle's support is over; where there is a date, the date decides."""
    return cycle.ended or bool(cycle.eol and cycle.eol <= today.isoformat())


def _component_cycles(component: Component, system: OperatingSystem | None, advisories: Advisories) -> Iterator[Cycle]:
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
            yield found


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


def _finding(cycle: Cycle, purl: str, layer: int) -> Finding:
    when = f" on {cycle.eol}" if cycle.eol else ""
    return Finding(
        kind=END_OF_LIFE,
        id=f"EOL-{cycle.product}-{cycle.name}",
        purl=purl,
        layer=layer,
        summary=f"{cycle.product} {cycle.name} reached its end of life{when}",
        fix_state=FixState.NOT_FIXED,
        ended=cycle.eol,
        source="endoflife",
    )
