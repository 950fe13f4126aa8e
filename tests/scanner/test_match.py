"""The matching cases that scanners get wrong, each with its concrete versions (numbers as in the design's list)."""

from __future__ import annotations

import pytest

from ocispec.strictjson import JsonValue
from scanner.advisories.records import BrokenRecord
from scanner.match import match
from scanner.model import Component, Finding, FixState, OperatingSystem, Severity, Unknown
from tests.scanner.records import Record, Records, record

DEBIAN_13 = OperatingSystem(id="debian", version_id="13", codename="trixie")
DEBIAN_12 = OperatingSystem(id="debian", version_id="12")


def deb(name: str, version: str, *, source: str = "", source_version: str = "") -> Component:
    """A component as the dpkg cataloger makes it."""
    return Component(
        purl=f"pkg:deb/debian/{name}@{version}",
        type="deb",
        name=name,
        version=version,
        source=source or name,
        source_version=source_version or version,
    )


def wheel(name: str, version: str, *, owner: str = "") -> Component:
    """A component as the Python cataloger makes it."""
    return Component(purl=f"pkg:pypi/{name}@{version}", type="pypi", name=name, version=version, owner=owner)


def found(
    component: Component, records: Records, system: OperatingSystem | None = DEBIAN_13
) -> tuple[list[Finding], list[Unknown]]:
    """What matching says of one component, without what it says of a lack of data."""
    findings, unknowns = match([component], system, records)
    return list(findings), [item for item in unknowns if item.code != "unsupported-ecosystem"]


def affected_of(document: Record) -> JsonValue:
    """What a record of one package says of it."""
    items = document["affected"]
    assert isinstance(items, list)
    return items[0]


AFFECTED, FIXED = True, False

ORDER_CASES = [
    # 3: a tilde sorts before everything, the end included.
    ("3 tilde, its own fix", deb("p", "3.0.11-1~deb12u2"), ["introduced 0", "fixed 3.0.11-1~deb12u2"], FIXED),
    ("3 tilde, unstable's fix", deb("p", "3.0.11-1~deb12u2"), ["introduced 0", "fixed 3.0.11-1"], AFFECTED),
    # 4: numbers are compared as numbers.
    ("4 numeric suffix", deb("glibc", "2.36-9+deb12u4"), ["introduced 0", "fixed 2.36-9+deb12u10"], AFFECTED),
    # 5: the source package's version counts, not the binary's.
    (
        "5 binary version looks fixed",
        deb("dmsetup", "2:1.02.205-2", source="lvm2", source_version="2.03.31-2"),
        ["introduced 0", "fixed 2.03.31-2+deb13u1"],
        AFFECTED,
    ),
    (
        "5 binNMU",
        deb("libcap2", "1:2.75-10+deb13u1+b3", source="libcap2", source_version="1:2.75-10+deb13u1"),
        ["introduced 0", "fixed 1:2.75-10+deb13u1"],
        FIXED,
    ),
    (
        "5 liblzma5 of xz-utils",
        deb("liblzma5", "5.2.5-2", source="xz-utils"),
        ["introduced 0", "fixed 5.2.5-2.1~deb11u1"],
        AFFECTED,
    ),
    ("epoch decides", deb("p", "1:1.0-1"), ["introduced 0", "fixed 9.0-1"], FIXED),
    ("introduced later", deb("p", "1.0-1"), ["introduced 2.0-1", "fixed 2.0-3"], FIXED),
    ("at the introduction", deb("p", "2.0-1"), ["introduced 2.0-1", "fixed 2.0-3"], AFFECTED),
    ("never fixed", deb("p", "9.0-1"), ["introduced 0"], AFFECTED),
    ("last affected, itself", deb("p", "1.0-1"), ["introduced 0", "last_affected 1.0-1"], AFFECTED),
    ("last affected, the next", deb("p", "1.0-2"), ["introduced 0", "last_affected 1.0-1"], FIXED),
    ("only one version", deb("p", "1.0-2"), ["introduced 1.0-1", "last_affected 1.0-1"], FIXED),
    ("beyond the limit", deb("p", "2.0-1"), ["introduced 0", "limit 2.0-1"], FIXED),
    ("below a limit", deb("p", "1.9-1"), ["introduced 0", "limit 2.0-1"], AFFECTED),
    ("no limit", deb("p", "1.9-1"), ["introduced 0", "limit *"], AFFECTED),
    ("second branch", deb("p", "3.1-1"), ["introduced 0", "fixed 2.4-1", "introduced 3.0-1", "fixed 3.2-1"], AFFECTED),
    ("between branches", deb("p", "2.5-1"), ["introduced 0", "fixed 2.4-1", "introduced 3.0-1", "fixed 3.2-1"], FIXED),
    # Records list events in any order, and fix and introduce in one version: then it is affected.
    ("unsorted", deb("p", "3.1-1"), ["fixed 3.2-1", "introduced 3.0-1", "fixed 2.4-1", "introduced 0"], AFFECTED),
    (
        "fixed and introduced at once",
        deb("p", "2-1"),
        ["introduced 0", "fixed 2-1", "introduced 2-1", "fixed 3-1"],
        AFFECTED,
    ),
]


@pytest.mark.parametrize(
    ("component", "events", "affected"),
    [pytest.param(*case[1:], id=case[0]) for case in ORDER_CASES],
)
def test_ranges(component: Component, events: list[str], affected: bool) -> None:
    findings, unknowns = found(component, Records(record("DEBIAN-CVE-2026-1", component.source, *events)))
    assert bool(findings) == affected
    assert unknowns == []


def test_1_upstream_ranges_are_not_applied_to_deb_versions() -> None:
    upstream = record("CVE-2021-1", "vim", "introduced 0", "fixed 8.4.0", ecosystem="OSS-Fuzz")
    findings, _ = found(deb("vim", "2:9.0.0"), Records(upstream, record("D-1", "other", "introduced 0")))
    assert findings == []


def test_1_a_vendors_epoch_does_not_hide_a_hit_silently() -> None:
    component = deb("chromium", "1:149.0.7827.114-1~deb13u1+rpt1")
    findings, unknowns = found(
        component, Records(record("D-1", "chromium", "introduced 0", "fixed 149.0.7827.200-1~deb13u1"))
    )
    assert findings == []
    assert [(item.code, item.subject) for item in unknowns] == [("foreign-origin", component.purl)]
    assert "Raspberry Pi OS" in unknowns[0].detail


@pytest.mark.parametrize(
    ("version", "system", "foreign"),
    [
        ("1.0-1ubuntu2", DEBIAN_13, True),
        ("1.0-1ubuntu2", OperatingSystem(id="ubuntu", version_id="24.04"), False),
        ("1.0-1+esm1", OperatingSystem(id="ubuntu", version_id="16.04"), False),
        ("17.2-1.pgdg13+1", DEBIAN_13, True),
        ("1.0-1~bpo12+1", DEBIAN_12, False),
        ("1.0-1+deb13u1", DEBIAN_13, False),
    ],
)
def test_1_foreign_origin_is_told_by_the_version(version: str, system: OperatingSystem, foreign: bool) -> None:
    _, unknowns = found(deb("p", version), Records(record("D-1", "q", "introduced 0")), system)
    assert [item.code for item in unknowns] == (["foreign-origin"] if foreign else [])


def test_3_the_fix_of_the_images_own_suite_counts() -> None:
    records = Records(
        record("DEBIAN-CVE-2026-1", "p", "introduced 0", "fixed 1.0-1~deb12u1", ecosystem="Debian:12"),
        record("DEBIAN-CVE-2026-2", "p", "introduced 0", "fixed 1.0-2", ecosystem="Debian:13"),
    )
    component = deb("p", "1.0-1~deb12u1")
    assert found(component, records, DEBIAN_12)[0] == []
    assert [item.id for item in found(component, records, DEBIAN_13)[0]] == ["DEBIAN-CVE-2026-2"]


def test_7_fix_states_are_told_apart_and_nothing_vanishes() -> None:
    records = Records(
        record("D-1", "p", "introduced 0"),
        record("D-2", "p", "introduced 0", ecosystem_specific={"urgency": "end-of-life"}),
        record("D-3", "p", "introduced 0", "fixed 2.0-1"),
        record("D-4", "p", "introduced 0", ecosystem_specific={"urgency": "unimportant"}),
    )
    findings, _ = found(deb("p", "1.0-1"), records)
    assert {item.id: (item.fix_state, item.fixed_in) for item in findings} == {
        "D-1": (FixState.NOT_FIXED, ""),
        "D-2": (FixState.WONT_FIX, ""),
        "D-3": (FixState.FIXED, "2.0-1"),
        "D-4": (FixState.NOT_FIXED, ""),
    }
    assert findings[3].severity is Severity.LOW


def test_11_a_language_package_that_a_distribution_owns_is_decided_by_the_distributions_data() -> None:
    owner = "pkg:deb/debian/python3-werkzeug@1.0.1-2"
    pypi = record("GHSA-xg9f-g7g7-2323", "werkzeug", "introduced 0", "fixed 2.2.3", ecosystem="PyPI")
    owned = wheel("werkzeug", "1.0.1", owner=owner)
    findings, _ = found(owned, Records(pypi, record("D-1", "q", "introduced 0")))
    assert [(item.id, bool(item.suppressed)) for item in findings] == [("GHSA-xg9f-g7g7-2323", True)]
    assert owner in findings[0].suppressed
    # Where the distribution has no data at all, the match stands.
    assert [item.suppressed for item in found(owned, Records(pypi))[0]] == [""]
    assert [item.suppressed for item in found(wheel("werkzeug", "1.0.1"), Records(pypi))[0]] == [""]


def test_14_a_withdrawn_record_finds_nothing() -> None:
    gone = record("GHSA-p5wg-g6qr-c7cg", "p", "introduced 0", ecosystem="PyPI", withdrawn="2026-02-01T00:00:00Z")
    assert found(wheel("p", "1.0"), Records(gone)) == ([], [])


def test_14_aliases_are_one_finding_and_a_waiver_for_one_id_covers_all() -> None:
    records = Records(
        record(
            "PYSEC-2026-1",
            "p",
            "introduced 0",
            "fixed 1.1",
            ecosystem="PyPI",
            aliases=["CVE-2026-1"],
            published="2026-03-01T00:00:00Z",
        ),
        record(
            "GHSA-aaaa-bbbb-cccc",
            "p",
            "introduced 0",
            "fixed 1.2",
            ecosystem="PyPI",
            aliases=["CVE-2026-1"],
            published="2026-02-01T00:00:00Z",
            summary="what happens",
            database_specific={"severity": "HIGH"},
        ),
        record("PYSEC-2026-2", "p", "introduced 0", "fixed 1.1", ecosystem="PyPI", related=["CVE-2026-1"]),
    )
    first, second = found(wheel("p", "1.0"), records)[0]
    assert {first.id, *first.aliases} == {"PYSEC-2026-1", "GHSA-aaaa-bbbb-cccc", "CVE-2026-1"}
    # Of several fixes the newest, of several dates the first, of several severities the worst.
    assert (first.fixed_in, first.published, first.severity) == ("1.2", "2026-02-01", Severity.HIGH)
    assert first.summary == "what happens"
    assert second.id == "PYSEC-2026-2"


def test_14_a_notice_that_bundles_several_is_no_alias_of_any() -> None:
    notice = record("DSA-1-1", "p", "introduced 0", "fixed 2-1", upstream=["CVE-2026-1", "CVE-2026-2"])
    one = record("DEBIAN-CVE-2026-1", "p", "introduced 0", "fixed 2-1", upstream=["CVE-2026-1"])
    two = record("DEBIAN-CVE-2026-2", "p", "introduced 0", "fixed 2-1", upstream=["CVE-2026-2"])
    findings, _ = found(deb("p", "1-1"), Records(notice, one, two))
    assert [(item.id, bool(item.suppressed)) for item in findings] == [
        ("DEBIAN-CVE-2026-1", False),
        ("DEBIAN-CVE-2026-2", False),
        ("DSA-1-1", True),
    ]
    # The tracker's own id carries the CVE's name; the notice's does not, and counts where it is alone.
    assert findings[0].aliases == ("CVE-2026-1",)
    alone = found(deb("p", "1-1"), Records(notice))[0]
    assert [(item.aliases, item.upstream, item.suppressed) for item in alone] == [
        ((), ("CVE-2026-1", "CVE-2026-2"), "")
    ]


def test_one_cve_of_two_packages_is_a_finding_of_each() -> None:
    both: dict[str, JsonValue] = {
        "id": "DEBIAN-CVE-2026-1",
        "modified": "2026-01-01T00:00:00Z",
        "affected": [
            affected_of(record("x", "p", "introduced 0", "fixed 2-1")),
            affected_of(record("x", "q", "introduced 0", "fixed 3-1")),
        ],
    }
    findings, _ = match([deb("p", "1-1"), deb("q", "2-1")], DEBIAN_13, Records(both))
    assert [(item.purl, item.fixed_in) for item in findings] == [
        ("pkg:deb/debian/p@1-1", "2-1"),
        ("pkg:deb/debian/q@2-1", "3-1"),
    ]


@pytest.mark.parametrize(
    "members",
    [{"aliases": ["CVE-2026-1"]}, {"upstream": ["CVE-2026-1"]}, {"upstream": ["CVE-2026-1", "CVE-2026-2"]}],
)
def test_exploited_is_told_by_any_cve_that_the_record_names_but_not_by_related(members: dict[str, list[str]]) -> None:
    records = Records(record("X-1", "p", "introduced 0", **members), exploited=["CVE-2026-1"])  # type: ignore[arg-type]  # lists of strings are JSON
    assert [item.exploited for item in found(deb("p", "1-1"), records)[0]] == [True]
    related = Records(record("X-1", "p", "introduced 0", related=["CVE-2026-1"]), exploited=["CVE-2026-1"])
    assert [item.exploited for item in found(deb("p", "1-1"), related)[0]] == [False]


def test_a_version_that_cannot_be_read_is_unknown_not_unaffected() -> None:
    component = wheel("p", "1.0-final-r12")
    records = Records(record("PYSEC-1", "p", "introduced 0", "fixed 2.0", ecosystem="PyPI"))
    findings, unknowns = found(component, records)
    assert findings == []
    assert [(item.code, item.subject) for item in unknowns] == [("unreadable-version", component.purl)]


def test_a_version_that_cannot_be_read_is_still_affected_where_it_is_listed() -> None:
    records = Records(record("PYSEC-1", "p", ecosystem="PyPI", versions=["1.0-final-r12"]))
    findings, _ = found(wheel("p", "1.0-final-r12"), records)
    assert [item.id for item in findings] == ["PYSEC-1"]


def test_10_a_feeds_typing_error_is_undetermined() -> None:
    records = Records(record("D-1", "p", "introduced 0", "fixed 20.10.11_r0"))
    findings, unknowns = found(deb("p", "20.10.11-1"), records)
    assert findings == []
    assert [item.code for item in unknowns] == ["unreadable-version"]
    assert "D-1" in unknowns[0].detail


@pytest.mark.parametrize(
    ("version", "listed", "affected"),
    [("1.0", ["1.0.0"], True), ("1.0.1", ["1.0.0"], False), ("1.0+cpu", ["1.0"], True), ("1.0", ["bad one"], False)],
)
def test_listed_versions_are_compared_as_versions(version: str, listed: list[str], affected: bool) -> None:
    records = Records(record("PYSEC-1", "p", ecosystem="PyPI", versions=listed))  # type: ignore[arg-type]  # a list of strings is JSON
    assert bool(found(wheel("p", version), records)[0]) == affected


def test_a_record_that_names_a_package_but_no_version_is_unknown() -> None:
    _, unknowns = found(wheel("p", "1.0"), Records(record("PYSEC-1", "p", ecosystem="PyPI")))
    assert [item.code for item in unknowns] == ["unreadable-record"]


def test_a_broken_record_of_a_package_is_unknown_for_that_package_alone() -> None:
    broken = {("PyPI", "p"): BrokenRecord(id="PYSEC-9", detail="no events")}
    records = Records(record("PYSEC-1", "q", "introduced 5", ecosystem="PyPI"), broken=broken)
    assert [item.code for item in found(wheel("p", "1.0"), records)[1]] == ["unreadable-record"]
    assert found(wheel("q", "1.0"), records)[1] == []


@pytest.mark.parametrize(
    ("component", "system", "subject"),
    [
        (deb("p", "1-1"), DEBIAN_12, "Debian:12"),
        (deb("p", "1-1"), OperatingSystem(id="debian", codename="trixie"), "debian trixie"),
        (deb("p", "1-1"), OperatingSystem(id="kali", version_id="2026.1"), "kali 2026.1"),
        (wheel("p", "1"), DEBIAN_13, "PyPI"),
    ],
)
def test_an_ecosystem_without_records_is_unknown_not_healthy(
    component: Component, system: OperatingSystem, subject: str
) -> None:
    findings, unknowns = match([component], system, Records(record("D-1", "q", "introduced 0")))
    assert findings == ()
    assert [(item.code, item.subject) for item in unknowns] == [("unsupported-ecosystem", subject)]


def test_ecosystem_names_of_ubuntu_say_lts() -> None:
    records = Records(record("U-1", "p", "introduced 0", ecosystem="Ubuntu:24.04:LTS"))
    assert found(deb("p", "1-1"), records, OperatingSystem(id="ubuntu", version_id="24.04"))[0]
    interim = Records(record("U-1", "p", "introduced 0", ecosystem="Ubuntu:25.10"))
    assert found(deb("p", "1-1"), interim, OperatingSystem(id="ubuntu", version_id="25.10"))[0]


def test_semver_ranges_use_the_semver_order() -> None:
    document = dict(record("X-1", "p", ecosystem="PyPI"))
    document["affected"] = [
        {
            "package": {"ecosystem": "PyPI", "name": "P"},
            "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "1.0.0-rc.2"}]}],
        }
    ]
    assert found(wheel("p", "1.0.0-rc.1"), Records(document))[0][0].fixed_in == "1.0.0-rc.2"
    assert found(wheel("p", "1.0.0"), Records(document))[0] == []


def test_a_listed_version_outside_every_range_is_mended_by_the_next_fix() -> None:
    document = record("PYSEC-1", "p", "introduced 2.0", "fixed 3.0", ecosystem="PyPI", versions=["1.0"])
    assert [item.fixed_in for item in found(wheel("p", "1.0"), Records(document))[0]] == ["3.0"]
    unreadable = record("PYSEC-1", "p", "introduced 2.0", "fixed bad one", ecosystem="PyPI", versions=["1.0"])
    assert [item.fix_state for item in found(wheel("p", "1.0"), Records(unreadable))[0]] == [FixState.NOT_FIXED]
