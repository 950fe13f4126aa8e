"""The large real records, where their folder is: everything is imported, what is broken is told, nothing crashes.

PRATIQUE_DATA names the folder. Times are printed, never asserted.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scanner.advisories.build import Snapshot, import_sources
from scanner.advisories.sources import sources_in
from scanner.advisories.store import AdvisoryStore
from scanner.model import Component, Inventory, OperatingSystem
from scanner.scan import scan
from tests.scanner.scanning import NOW
from tests.support.tools import lacking

pytestmark = pytest.mark.data

# Records by source, as the README of the data says.
RECORDS = {
    "osv AlmaLinux:10": 660,
    "osv AlmaLinux:9": 1783,
    "osv Debian:13": 4445,
    "osv DockerHardenedImages": 683,
    "osv Go": 4291,
    "osv PyPI": 2661,
    "kev": 1404,
    "endoflife": 464,
}
COMPONENTS = 400


def tell(line: str) -> None:
    """A line for whoever runs pytest with `-s`."""
    sys.stdout.write(f"\n{line}")


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    folder = os.environ.get("PRATIQUE_DATA", "")
    if not folder or not Path(folder).is_dir():
        lacking("the folder of real records (PRATIQUE_DATA)")
    begun = time.perf_counter()
    made = import_sources(sources_in(Path(folder)), tmp_path_factory.mktemp("data") / "advisories.db", now=NOW)
    tell(f"import: {time.perf_counter() - begun:.2f} s, {made.path.stat().st_size / 1e6:.1f} MB")
    return made


@pytest.fixture(scope="module")
def store(snapshot: Snapshot) -> Iterator[AdvisoryStore]:
    with AdvisoryStore.open(snapshot.path, digest=snapshot.digest) as opened:
        yield opened


def test_every_record_is_imported_or_told(snapshot: Snapshot) -> None:
    assert {source.name: source.records + source.broken for source in snapshot.sources} == RECORDS
    for problem in snapshot.problems:
        tell(problem.detail)
    assert len(snapshot.problems) == sum(source.broken for source in snapshot.sources)
    # Real data break their schema: ranges without a beginning, a comma in an alias, the year 1.
    assert len(snapshot.problems) <= 20


def test_a_run_over_400_components(store: AdvisoryStore) -> None:
    """The newest and the oldest version that the data name of the packages with the most records."""
    rows = store._database.execute(
        "SELECT ecosystem, name FROM affected WHERE ecosystem IN ('PyPI', 'Debian:13')"
        " GROUP BY ecosystem, name ORDER BY count(*) DESC, name LIMIT ?",
        (COMPONENTS // 2,),
    ).fetchall()
    components = [component for row in rows for component in _two(store, *row)]
    assert len(components) > COMPONENTS * 0.9
    system = OperatingSystem(id="debian", version_id="13")
    begun = time.perf_counter()
    report = scan(Inventory(operating_system=system, components=tuple(components), unknowns=()), store, now=NOW)
    tell(f"{len(components)} components: {time.perf_counter() - begun:.3f} s, {len(report.findings)} findings")
    affected = {finding.purl for finding in report.findings if finding.kind == "advisory"}
    for component in components:
        if component.version == "0" and component.type == "deb":
            assert component.purl in affected
    assert len(report.findings) > 1000
    for unknown in report.unknowns:
        tell(f"{unknown.code} {unknown.subject} {unknown.detail}")
    assert {unknown.code for unknown in report.unknowns} <= {"unreadable-record", "unreadable-version"}


def _two(store: AdvisoryStore, ecosystem: str, name: str) -> Iterator[Component]:
    versions = sorted(
        {
            event.version
            for advisory in store.advisories(ecosystem, name)
            for affected in advisory.affected
            for item in affected.ranges
            for event in item.events
        }
    )
    kind = "pypi" if ecosystem == "PyPI" else "deb"
    for version in dict.fromkeys((versions[0], versions[-1])):
        yield Component(purl=f"pkg:{kind}/{name}@{version}", type=kind, name=name, version=version)


def test_known_exploited_advisories_are_joined(store: AdvisoryStore) -> None:
    salt = Component(purl="pkg:pypi/salt@3000.1", type="pypi", name="salt", version="3000.1")
    git = Component(purl="pkg:deb/debian/git@1:2.47.2-0.1", type="deb", name="git", version="1:2.47.2-0.1")
    system = OperatingSystem(id="debian", version_id="13")
    report = scan(Inventory(operating_system=system, components=(salt, git), unknowns=()), store, now=NOW)
    exploited = {(finding.purl, finding.id) for finding in report.findings if finding.exploited}
    assert (salt.purl, "PYSEC-2020-102") in exploited
    assert (git.purl, "DEBIAN-CVE-2025-48384") in exploited
    assert all(finding.fixed_in for finding in report.findings if finding.exploited)
