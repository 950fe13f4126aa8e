"""The main path, from an image's stored layers to the report, with the records that the demo has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ocispec.errors import SpecError
from scanner.advisories.store import AdvisoryStore
from scanner.codec import from_json, to_json
from scanner.model import Report
from scanner.scan import SCANNER_VERSION, scan, scan_image
from tests.scanner.scanning import NOW, demo_store, scanned
from tests.support.images import image
from tests.support.packages import Deb, Files, Wheel, dpkg_files, os_release, python_files

GIT = Deb(name="git", version="1:2.47.2-0.1", architecture="amd64", files={"usr/bin/git": b"\x7fELF git"})
NGINX = Deb(name="nginx", version="1.26.3-3", files={"usr/sbin/nginx": b"nginx"})
BASE: Files = {**os_release(), **dpkg_files([GIT, NGINX])}
APPLICATION = python_files(
    Wheel(name="salt", version="3000.1", licence="Apache-2.0"),
    Wheel(name="Django", version="3.2.25", licence="BSD-3-Clause"),
    Wheel(name="pymupdf", version="1.26.0", licence="AGPL-3.0-only"),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[AdvisoryStore]:
    with demo_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def report(store: AdvisoryStore) -> Report:
    return scan_image(image([BASE, APPLICATION]), store, now=NOW).report


def test_the_demos_findings(report: Report) -> None:
    shown = [
        (item.layer, item.purl.partition("?")[0], item.id, item.exploited, item.fixed_in)
        for item in report.findings
        if not item.suppressed
    ]
    assert shown == [
        (0, "pkg:deb/debian/git@1:2.47.2-0.1", "DEBIAN-CVE-2025-48384", True, "1:2.47.3-0+deb13u1"),
        (0, "pkg:deb/debian/git@1:2.47.2-0.1", "DEBIAN-CVE-2025-48385", False, "1:2.47.3-0+deb13u1"),
        (1, "pkg:pypi/django@3.2.25", "EOL-django-3.2", False, "5.2"),
        (1, "pkg:pypi/salt@3000.1", "PYSEC-2020-102", True, "3000.2"),
        (1, "pkg:pypi/salt@3000.1", "PYSEC-2020-103", True, "3000.2"),
    ]
    assert [item.id for item in report.findings if item.suppressed] == ["EOL-nginx-1.26"]


def test_licences_are_in_the_inventory(report: Report) -> None:
    licences = {component.name: component.licences for component in report.inventory.components}
    assert licences == {
        "git": "MIT",
        "nginx": "MIT",
        "salt": "Apache-2.0",
        "django": "BSD-3-Clause",
        "pymupdf": "AGPL-3.0-only",
    }


def test_the_report_names_its_data_and_its_maker(report: Report, store: AdvisoryStore) -> None:
    assert report.data == store.sources
    assert report.scanner_version == SCANNER_VERSION
    assert report.unknowns == ()


def test_a_report_goes_through_json(report: Report) -> None:
    assert from_json(Report, to_json(report), what="report") == report


def test_scanning_again_gives_the_same_report(report: Report, store: AdvisoryStore) -> None:
    assert scan(report.inventory, store, now=NOW) == report
    assert scan_image(image([BASE, APPLICATION], compression="zstd"), store, now=NOW).report == report


def test_a_report_holds_the_inventorys_unknowns(store: AdvisoryStore) -> None:
    found = scanned(BASE, {"usr/bin/git": b"\x7fELF other"})
    assert set(found.inventory.unknowns) <= set(scan(found.inventory, store, now=NOW).unknowns)


def test_a_layer_that_is_refused_ends_the_scan(store: AdvisoryStore) -> None:
    with pytest.raises(SpecError):
        scan_image(image([b"no tar at all, but something else" * 100]), store, now=NOW)
