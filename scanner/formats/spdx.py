"""SPDX 2.3 in JSON (ISO/IEC 5962 and its successor): the packages of an image, their licences and layers.

SPDX 2.3 has no place for findings; CycloneDX has. A `LicenseRef-` is declared, as the specification asks (section
10), though only its name is known.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from ocispec.strictjson import JsonValue
from scanner.formats.interface import Subject, document_id, rendered, timestamp
from scanner.lifecycle import system_purl
from scanner.model import Component, OperatingSystem, Report

_NONE: Final = "NOASSERTION"
_REFERENCE: Final = re.compile(r"LicenseRef-[A-Za-z0-9.-]+", re.ASCII)
_IMAGE: Final = "SPDXRef-Image"


class Spdx:
    """Writes SPDX 2.3."""

    media_type = "application/spdx+json"

    def encode(self, report: Report, subject: Subject, *, created: datetime) -> bytes:
        """The report as an SPDX document."""
        components = report.inventory.components
        packages: list[JsonValue] = [_image(subject)]
        if report.inventory.operating_system is not None:
            packages.append(_system(report.inventory.operating_system, subject))
        packages += [_package(component, _id(index), subject) for index, component in enumerate(components)]
        body: dict[str, JsonValue] = {
            "creationInfo": {"created": timestamp(created), "creators": ["Tool: pratique"]},
            "packages": packages,
            "hasExtractedLicensingInfos": _references(components),
            "relationships": _relationships(report),
        }
        head: dict[str, JsonValue] = {
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": subject.name,
            "documentNamespace": document_id(body).urn,
        }
        return rendered(head | body)


def _id(index: int) -> str:
    return f"SPDXRef-Package-{index}"


def _entry(identifier: str, name: str, version: str, purpose: str) -> dict[str, JsonValue]:
    members: dict[str, JsonValue] = {"SPDXID": identifier, "name": name}
    if version:
        members["versionInfo"] = version
    return members | {
        "downloadLocation": _NONE,
        "filesAnalyzed": False,
        "licenseConcluded": _NONE,
        "licenseDeclared": _NONE,
        "copyrightText": _NONE,
        "primaryPackagePurpose": purpose,
    }


def _image(subject: Subject) -> dict[str, JsonValue]:
    members = _entry(_IMAGE, subject.name, str(subject.digest), "CONTAINER")
    algorithm = subject.digest.algorithm.upper()
    return members | {"checksums": [{"algorithm": algorithm, "checksumValue": subject.digest.hex}]}


def _system(system: OperatingSystem, subject: Subject) -> dict[str, JsonValue]:
    members = _entry("SPDXRef-OperatingSystem", system.id, system.version_id, "OPERATING_SYSTEM")
    members["comment"] = f"layer {system.layer}: {subject.layer(system.layer)}"
    return members | {"externalRefs": [_purl(system_purl(system))]}


def _package(component: Component, identifier: str, subject: Subject) -> dict[str, JsonValue]:
    members = _entry(identifier, component.name, component.version, "LIBRARY")
    if component.licences:
        members["licenseDeclared"] = component.licences
    source = f"; built from {component.source} {component.source_version}" if component.source else ""
    members["sourceInfo"] = f"read from {component.location}{source}"
    members["comment"] = f"layer {component.layer}: {subject.layer(component.layer)}"
    return members | {"externalRefs": [_purl(component.purl)]}


def _purl(purl: str) -> JsonValue:
    return {"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator": purl}


def _references(components: Sequence[Component]) -> list[JsonValue]:
    found = {name for component in components for name in _REFERENCE.findall(component.licences)}
    return [
        {
            "licenseId": name,
            "name": name.removeprefix("LicenseRef-"),
            "extractedText": "The package names this licence; its text is in the package's files.",
        }
        for name in sorted(found)
    ]


def _relationships(report: Report) -> list[JsonValue]:
    components = report.inventory.components
    identifiers = {component.purl: _id(index) for index, component in enumerate(components)}
    found: list[tuple[str, str, str]] = [("SPDXRef-DOCUMENT", "DESCRIBES", _IMAGE)]
    if report.inventory.operating_system is not None:
        found.append((_IMAGE, "CONTAINS", "SPDXRef-OperatingSystem"))
    for index, component in enumerate(components):
        found.append((_IMAGE, "CONTAINS", _id(index)))
        if component.owner in identifiers:
            found.append((identifiers[component.owner], "CONTAINS", _id(index)))
    return [
        {"spdxElementId": element, "relationshipType": kind, "relatedSpdxElement": related}
        for element, kind, related in found
    ]
