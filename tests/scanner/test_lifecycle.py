"""End of life: of the operating system, and of components that the data name by purl."""

from __future__ import annotations

from datetime import date

import pytest

from scanner.advisories.records import Cycle
from scanner.lifecycle import ends
from scanner.model import Component, OperatingSystem
from tests.scanner.records import Records

TODAY = date(2026, 11, 24)
DJANGO = [
    Cycle(product="django", name="6.0", eol="2027-04-30"),
    Cycle(product="django", name="5.2", eol="2028-04-30"),
    Cycle(product="django", name="4.2", eol="2026-04-07"),
    Cycle(product="django", name="3.2", eol="2024-04-01"),
]
DEBIAN = [
    Cycle(product="debian", name="13", eol="2028-08-09"),
    Cycle(product="debian", name="12", eol="2026-07-11"),
    Cycle(product="debian", name="11", eol="2024-08-14"),
]
NGINX = [Cycle(product="nginx", name="1.28"), Cycle(product="nginx", name="1.26", ended=True)]
RECORDS = Records(
    products={"debian": DEBIAN, "django": DJANGO, "nginx": NGINX, "alpine-linux": [Cycle(product="a", name="3.20")]},
    purls={"pkg:pypi/django": "django", "pkg:deb/debian/nginx": "nginx"},
)
DEBIAN_13 = OperatingSystem(id="debian", version_id="13")


def pypi(version: str, owner: str = "") -> Component:
    return Component(purl=f"pkg:pypi/django@{version}", type="pypi", name="django", version=version, owner=owner)


def nginx(version: str) -> Component:
    purl = f"pkg:deb/debian/nginx-core@{version}"
    return Component(purl=purl, type="deb", name="nginx-core", version=version, source="nginx", source_version=version)


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("3.2.25", ("EOL-django-3.2", "2024-04-01", "5.2")),
        ("4.2", ("EOL-django-4.2", "2026-04-07", "5.2")),
        # Within a year: told, so that a policy can warn.
        ("6.0.8", ("EOL-django-6.0", "2027-04-30", "")),
        ("5.2.17", None),
        ("9.9", None),
        ("main", None),
        ("3.20", None),
    ],
)
def test_a_component_is_told_by_the_cycle_that_its_version_begins_with(
    version: str, told: tuple[str, str, str] | None
) -> None:
    findings, unknowns = ends([pypi(version)], None, RECORDS, TODAY)
    assert unknowns == ()
    assert [(item.id, item.ended, item.fixed_in) for item in findings] == ([told] if told else [])


def test_the_day_of_the_end_is_the_first_without_support() -> None:
    assert "reaches" in ends([pypi("4.2")], None, RECORDS, date(2026, 4, 6))[0][0].summary
    assert "reached" in ends([pypi("4.2")], None, RECORDS, date(2026, 4, 7))[0][0].summary


def test_the_operating_system() -> None:
    system = OperatingSystem(id="debian", version_id="11", layer=2)
    findings, unknowns = ends([], system, RECORDS, TODAY)
    assert [(item.id, item.purl, item.layer, item.ended, item.fixed_in) for item in findings] == [
        ("EOL-debian-11", "pkg:generic/debian@11", 2, "2024-08-14", "13")
    ]
    assert unknowns == ()
    assert ends([], DEBIAN_13, RECORDS, TODAY) == ((), ())


@pytest.mark.parametrize(
    "system",
    [
        OperatingSystem(id="debian"),
        OperatingSystem(id="debian", version_id="99"),
        OperatingSystem(id="new", version_id="1"),
    ],
)
def test_a_system_whose_end_nobody_knows_is_unknown(system: OperatingSystem) -> None:
    assert [item.code for item in ends([], system, RECORDS, TODAY)[1]] == ["no-end-of-life-date"]


def test_products_go_by_other_names_than_os_release() -> None:
    assert ends([], OperatingSystem(id="alpine", version_id="3.20.3"), RECORDS, TODAY) == ((), ())


def test_a_distributions_package_lives_as_long_as_its_release() -> None:
    debs = [nginx("1:1.26.3-3+deb13u1")]
    assert [bool(item.suppressed) for item in ends(debs, DEBIAN_13, RECORDS, TODAY)[0]] == [True]
    old = OperatingSystem(id="debian", version_id="11")
    assert [bool(item.suppressed) for item in ends(debs, old, RECORDS, TODAY)[0]] == [False, False]
    assert [bool(item.suppressed) for item in ends([pypi("3.2", owner="pkg:deb/x")], DEBIAN_13, RECORDS, TODAY)[0]] == [
        True
    ]
    assert ends([nginx("1.28.0-1")], DEBIAN_13, RECORDS, TODAY)[0] == ()


def test_a_cycle_without_a_date_has_ended_if_the_source_says_so() -> None:
    finding = ends([nginx("1.26.3-3")], None, RECORDS, TODAY)[0]
    assert finding == ()  # no distribution, so no purl that the data know
    finding = ends([nginx("1.26.3-3")], OperatingSystem(id="debian", version_id="12"), RECORDS, TODAY)[0]
    assert [(item.id, item.ended) for item in finding] == [("EOL-debian-12", "2026-07-11"), ("EOL-nginx-1.26", "")]
