"""CycloneDX 1.6 in JSON (ECMA-424): components, licences, layers, and findings as vulnerabilities.

What CycloneDX has no member for is in properties under `pratique:`: layers, unknowns, owners, end-of-life dates.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from ocispec.strictjson import JsonValue
from scanner.formats.interface import Subject, document_id, rendered, timestamp
from scanner.lifecycle import END_OF_LIFE, system_purl
from scanner.model import Component, Finding, FixState, OperatingSystem, Report, Severity, Unknown

_SEVERITY: Final[Mapping[Severity, str]] = {
    Severity.CRITICAL: "critical",
    Severity.HIGH: "high",
    Severity.MEDIUM: "medium",
    Severity.LOW: "low",
    Severity.NONE: "unknown",
}


class CycloneDx:
    """Writes CycloneDX 1.6."""

    media_type = "application/vnd.cyclonedx+json; version=1.6"

    def encode(self, report: Report, subject: Subject, *, created: datetime) -> bytes:
        """The report as a CycloneDX document."""
        references = _references(report.inventory.components)
        ends = _ends(report.findings)
        components = [
            _component(component, reference, subject, ends.get(component.purl, ()))
            for component, reference in zip(report.inventory.components, references, strict=True)
        ]
        system = report.inventory.operating_system
        if system is not None:
            components.insert(0, _system(system, subject, ends.get(system_purl(system), ())))
        document: dict[str, JsonValue] = {
            "metadata": _metadata(report, subject, created),
            "components": list(components),
            "vulnerabilities": _vulnerabilities(report, references),
            "properties": [_property(f"unknown:{item.code}", _told(item, subject)) for item in report.unknowns],
        }
        head: dict[str, JsonValue] = {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": document_id(document).urn,
            "version": 1,
        }
        return rendered(head | document)


def _metadata(report: Report, subject: Subject, created: datetime) -> dict[str, JsonValue]:
    return {
        "timestamp": timestamp(created),
        "tools": {"components": [{"type": "application", "name": "pratique", "version": report.scanner_version}]},
        "component": {
            "type": "container",
            "bom-ref": str(subject.digest),
            "name": subject.name,
            "version": str(subject.digest),
        },
        "properties": [
            *(_property(f"layer:{index}", str(diff_id)) for index, diff_id in enumerate(subject.diff_ids)),
            *(_property(f"data:{source.name}", f"{source.digest} {source.date}") for source in report.data),
        ],
    }


def _references(components: Sequence[Component]) -> list[str]:
    """A reference for each component, unique in the document: its purl, and its place where that is not enough."""
    seen: dict[str, int] = {}
    references: list[str] = []
    for component in components:
        count = seen[component.purl] = seen.get(component.purl, 0) + 1
        references.append(component.purl if count == 1 else f"{component.purl}#{component.location}:{count}")
    return references


def _ends(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    ends: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        if finding.kind == END_OF_LIFE:
            ends[finding.purl].append(finding)
    return ends


def _component(component: Component, reference: str, subject: Subject, ends: Sequence[Finding]) -> dict[str, JsonValue]:
    members: dict[str, JsonValue] = {
        "type": "library",
        "bom-ref": reference,
        "name": component.name,
        "version": component.version,
    }
    if component.licences:
        members["licenses"] = [{"expression": component.licences}]
    members["purl"] = component.purl
    properties = [
        ("layer:index", str(component.layer)),
        ("layer:diffId", subject.layer(component.layer)),
        ("location", component.location),
        ("source", f"{component.source} {component.source_version}".strip()),
        ("owner", component.owner),
        ("files", str(component.files)),
    ]
    members["properties"] = [_property(name, value) for name, value in properties if value] + _end_properties(ends)
    return members


def _system(system: OperatingSystem, subject: Subject, ends: Sequence[Finding]) -> dict[str, JsonValue]:
    members: dict[str, JsonValue] = {
        "type": "operating-system",
        "bom-ref": system_purl(system),
        "name": system.id,
    }
    if system.version_id:
        members["version"] = system.version_id
    if system.pretty_name:
        members["description"] = system.pretty_name
    members["properties"] = [_property("layer:diffId", subject.layer(system.layer)), *_end_properties(ends)]
    return members


def _end_properties(ends: Sequence[Finding]) -> list[JsonValue]:
    return [
        _property("end-of-life", f"{end.summary}{f' ({end.suppressed})' if end.suppressed else ''}") for end in ends
    ]


def _vulnerabilities(report: Report, references: Sequence[str]) -> list[JsonValue]:
    places: dict[str, list[str]] = defaultdict(list)
    for component, reference in zip(report.inventory.components, references, strict=True):
        places[component.purl].append(reference)
    return [_vulnerability(finding, places[finding.purl]) for finding in report.findings if finding.kind != END_OF_LIFE]


def _vulnerability(finding: Finding, references: Sequence[str]) -> dict[str, JsonValue]:
    members: dict[str, JsonValue] = {
        "id": finding.id,
        "source": {"name": finding.source},
    }
    if finding.aliases:
        members["references"] = [{"id": alias, "source": {"name": "alias"}} for alias in finding.aliases]
    members["ratings"] = [{"severity": _SEVERITY[finding.severity]}]
    if finding.summary:
        members["description"] = finding.summary
    if finding.fixed_in:
        members["recommendation"] = f"Upgrade to {finding.fixed_in} or later."
    if finding.published:
        members["published"] = f"{finding.published}T00:00:00Z"
    if finding.suppressed:
        members["analysis"] = {"state": "not_affected", "detail": finding.suppressed}
    elif finding.fix_state is FixState.WONT_FIX:
        members["analysis"] = {"state": "exploitable", "response": ["will_not_fix"]}
    members["affects"] = [{"ref": reference} for reference in references]
    properties = [("exploited", "true" if finding.exploited else ""), ("fix-state", finding.fix_state)]
    members["properties"] = [_property(name, value) for name, value in properties if value]
    return members


def _told(unknown: Unknown, subject: Subject) -> str:
    return f"{unknown.subject}: {unknown.detail} (layer {subject.layer(unknown.layer)})"


def _property(name: str, value: str) -> JsonValue:
    return {"name": f"pratique:{name}", "value": value}
