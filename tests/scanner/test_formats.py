"""SBOM documents: valid by the official schema, read by another tool, the same bytes each time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from scanner.formats.cyclonedx import CycloneDx
from scanner.formats.interface import Format, Subject
from scanner.formats.spdx import Spdx
from scanner.model import Finding, FixState, Report, Severity, Unknown
from scanner.scan import scan
from tests.scanner.scanning import ASSETS, NOW, demo_store, scanned
from tests.support.packages import Deb, Wheel, dpkg_files, os_release, python_files
from tests.support.tools import lacking

SITE = "usr/lib/python3/dist-packages"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A report with everything that a document can say."""
    debs = [
        Deb(name="git", version="1:2.47.2-0.1", licence="GPL-2 and Tcl-BSDish"),
        Deb(name="python3-six", version="1.17-1", files=python_files(Wheel(name="six", version="1.17.0"), site=SITE)),
    ]
    base = {**os_release(), **dpkg_files(debs)}
    twice = Wheel(name="salt", version="3000.1")
    layer = {**python_files(twice), **python_files(twice, site="srv/site-packages")}
    layer |= python_files(Wheel(name="Django", version="3.2", licence=""))
    inventory = scanned(base, layer).inventory
    with demo_store(tmp_path_factory.mktemp("store")) as store:
        made = scan(inventory, store, now=NOW)
    purl = made.inventory.components[0].purl
    more = (
        Finding(kind="advisory", id="X-1", purl=purl, layer=0, severity=Severity.HIGH, fix_state=FixState.WONT_FIX),
        Finding(kind="advisory", id="X-2", purl=purl, layer=0, suppressed="the reason", aliases=("Y-1",)),
    )
    unknown = Unknown(code="unreadable-record", subject="p\udcffth", detail="bytes that are no text", layer=7)
    return replace(made, findings=made.findings + more, unknowns=(*made.unknowns, unknown))


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(name="registry.example/app:1", digest=Digest.of(b"m"), diff_ids=(Digest.of(b"0"), Digest.of(b"1")))


def encoded(form: Format, report: Report, subject: Subject) -> dict[str, JsonValue]:
    document: dict[str, JsonValue] = json.loads(form.encode(report, subject, created=NOW))
    return document


def test_cyclonedx_is_valid_by_its_official_schema(report: Report, subject: Subject) -> None:
    schemas = {path.name: json.loads(path.read_text()) for path in (ASSETS / "schemas").glob("*.schema.json")}
    registry: Registry[bool | Mapping[str, Any]] = Registry().with_resources(
        (f"http://cyclonedx.org/schema/{name}", Resource.from_contents(schema, default_specification=DRAFT7))
        for name, schema in schemas.items()
    )
    validator = Draft7Validator(schemas["bom-1.6.SNAPSHOT.schema.json"], registry=registry)
    errors = [
        f"{list(error.path)}: {error.message[:200]}"
        for error in validator.iter_errors(encoded(CycloneDx(), report, subject))
    ]
    assert errors == []


def test_cyclonedx_says_what_was_found(report: Report, subject: Subject) -> None:
    document = json.dumps(encoded(CycloneDx(), report, subject))
    members = json.loads(document)
    by_name = {item["name"]: item for item in members["components"]}
    assert by_name["debian"]["type"] == "operating-system"
    assert by_name["git"]["licenses"] == [{"expression": "GPL-2.0-only AND LicenseRef-Tcl-BSDish"}]
    assert {"name": "pratique:layer:diffId", "value": str(Digest.of(b"1"))} in by_name["salt"]["properties"]
    assert any(item["name"] == "pratique:end-of-life" for item in by_name["django"]["properties"])
    found = {item["id"]: item for item in members["vulnerabilities"]}
    assert {"name": "pratique:exploited", "value": "true"} in found["PYSEC-2020-102"]["properties"]
    assert found["PYSEC-2020-102"]["recommendation"] == "Upgrade to 3000.2 or later."
    assert len(found["PYSEC-2020-102"]["affects"]) == 2
    assert found["X-1"]["analysis"] == {"state": "exploitable", "response": ["will_not_fix"]}
    assert found["X-2"]["analysis"] == {"state": "not_affected", "detail": "the reason"}
    assert any("EOL" in identifier for identifier in found) is False
    assert members["properties"][-1]["value"] == "p?th: bytes that are no text (layer 7)"


def test_references_are_unique(report: Report, subject: Subject) -> None:
    components = encoded(CycloneDx(), report, subject)["components"]
    assert isinstance(components, list)
    references = [item["bom-ref"] for item in components if isinstance(item, dict)]
    assert len(references) == len({str(reference) for reference in references})


# What SPDX 2.3 asks of a document in JSON (its clauses 6 to 11): member, and whether it may be empty.
PACKAGE_MEMBERS = {
    "SPDXID",
    "name",
    "downloadLocation",
    "filesAnalyzed",
    "licenseConcluded",
    "licenseDeclared",
    "copyrightText",
}
PURPOSES = {"CONTAINER", "LIBRARY", "OPERATING_SYSTEM"}


def test_spdx_has_what_its_specification_asks_for(report: Report, subject: Subject) -> None:
    document = json.loads(json.dumps(encoded(Spdx(), report, subject)))
    assert (document["spdxVersion"], document["dataLicense"], document["SPDXID"]) == (
        "SPDX-2.3",
        "CC0-1.0",
        "SPDXRef-DOCUMENT",
    )
    assert document["creationInfo"] == {"created": "2026-11-24T12:00:00Z", "creators": ["Tool: pratique"]}
    assert document["documentNamespace"].startswith("urn:uuid:")
    identifiers = [package["SPDXID"] for package in document["packages"]]
    assert len(identifiers) == len(set(identifiers)) == len(report.inventory.components) + 2
    for package in document["packages"]:
        assert package.keys() >= PACKAGE_MEMBERS
        assert package["primaryPackagePurpose"] in PURPOSES
    declared = {item["licenseId"] for item in document["hasExtractedLicensingInfos"]}
    assert declared == {"LicenseRef-Tcl-BSDish"}
    known = {*identifiers, "SPDXRef-DOCUMENT"}
    for relation in document["relationships"]:
        assert {relation["spdxElementId"], relation["relatedSpdxElement"]} <= known
    owned = [
        relation for relation in document["relationships"] if relation["spdxElementId"].startswith("SPDXRef-Package")
    ]
    assert len(owned) == 1


@pytest.mark.parametrize("form", [CycloneDx(), Spdx()])
def test_another_tool_reads_the_document(form: Format, report: Report, subject: Subject, tmp_path: Path) -> None:
    syft = Path(sys.executable).with_name("syft")
    if not syft.exists():
        lacking("syft")
    path = tmp_path / "document.json"
    path.write_bytes(form.encode(report, subject, created=NOW))
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "SYFT_CHECK_FOR_APP_UPDATE": "false"}
    run = subprocess.run(
        [syft, "convert", str(path), "-o", "json"], capture_output=True, check=True, env=environment, timeout=60
    )
    read = {artifact["purl"] for artifact in json.loads(run.stdout)["artifacts"]}
    assert read >= {component.purl for component in report.inventory.components}


@pytest.mark.parametrize("form", [CycloneDx(), Spdx()])
def test_the_same_report_gives_the_same_bytes(form: Format, report: Report, subject: Subject) -> None:
    first = form.encode(report, subject, created=NOW)
    assert form.encode(report, subject, created=NOW) == first
    assert form.encode(
        replace(report, unknowns=(), findings=()), subject, created=NOW
    ) != first or form.media_type.startswith("application/spdx")
    assert "json" in form.media_type


@pytest.mark.parametrize("form", [CycloneDx(), Spdx()])
def test_an_image_without_a_system_or_a_component(form: Format, subject: Subject, report: Report) -> None:
    empty = scanned({"app": b"x"}).inventory
    assert form.encode(replace(report, inventory=empty, findings=()), subject, created=NOW)
