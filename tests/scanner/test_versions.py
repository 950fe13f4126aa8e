"""Version orders against the real tools: `dpkg --compare-versions` and `packaging`."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.version import Version

from scanner.versions.dpkg import DpkgOrder
from scanner.versions.interface import VersionError, VersionOrder
from scanner.versions.pep440 import Pep440Order
from scanner.versions.semver import SemverOrder
from tests.support.tools import need

DPKG = DpkgOrder()
PEP440 = Pep440Order()
SEMVER = SemverOrder()

# Each pair (older, newer); made with dpkg --compare-versions 1.22.22 and checked against it below.
DPKG_GOLDEN = [
    ("1.0~rc1", "1.0"),
    ("1.0~~", "1.0~~a"),
    ("1.0~~a", "1.0~"),
    ("1.0~", "1.0"),
    ("1.0", "1.0a"),
    ("1.0a", "1.0+"),
    ("1.0+b1", "1.0.1"),
    ("1.0-1", "1.0-1+b1"),
    ("1.0-1+b1", "1.0-1+deb13u1"),
    ("1.0-1", "1.0-1.1"),
    ("1.0-1~bpo12+1", "1.0-1"),
    ("2.36-9+deb12u4", "2.36-9+deb12u10"),
    ("3.0.11-1~deb12u2", "3.0.11-1"),
    ("9.9-9", "1:0.1-1"),
    ("1:9", "2:0"),
    ("1.2-3-4", "1.2-4-3"),
    ("0~", "0"),
    ("1.2.3", "1.2.3-0.1"),
    ("1.09", "1.10"),
    ("5.10.0-8", "5.10.38-1"),
    ("1:2.47.2-0.1", "1:2.47.3-0+deb13u1"),
    ("1.10.11rc1", "1.10.11rc2"),
    ("20160916~dfsg1", "20160916+dfsg1"),
]
DPKG_EQUAL = [("1.0", "1.0-0"), ("1.0", "0:1.0"), ("1.0", "1.00"), ("1.a", "1.a0"), ("1.001", "1.1")]


@pytest.mark.parametrize(("older", "newer"), DPKG_GOLDEN)
def test_dpkg_golden_table(older: str, newer: str) -> None:
    assert DPKG.key(older) < DPKG.key(newer)
    assert not DPKG.key(newer) < DPKG.key(older)


@pytest.mark.parametrize(("one", "other"), DPKG_EQUAL)
def test_dpkg_equal_versions(one: str, other: str) -> None:
    assert DPKG.key(one) == DPKG.key(other)


def test_dpkg_golden_table_is_what_dpkg_says() -> None:
    dpkg = need("dpkg")
    for older, newer in DPKG_GOLDEN:
        assert compare(dpkg, older, "lt", newer), (older, newer)
    for one, other in DPKG_EQUAL:
        assert compare(dpkg, one, "eq", other), (one, other)


# Characters of deb-version(7), weighted towards those that scanners get wrong.
upstream = st.text(alphabet="0019~~+.-abzZ:", max_size=7).map(lambda tail: f"1{tail}")
revision = st.text(alphabet="0129~~+.abz", min_size=1, max_size=5)
deb_versions = st.builds(
    lambda epoch, up, rev: f"{epoch}{up if epoch else up.replace(':', '.')}{rev}",
    st.sampled_from(["", "0:", "1:", "2:"]),
    upstream,
    st.one_of(st.just(""), revision.map(lambda text: f"-{text}")),
)


@given(st.lists(st.tuples(deb_versions, deb_versions), min_size=25, max_size=25))
@settings(max_examples=12, deadline=None)
def test_dpkg_order_agrees_with_dpkg(pairs: list[tuple[str, str]]) -> None:
    need("dpkg")
    readable = [pair for pair in pairs if all(map(is_dpkg_version, pair))]
    script = "\n".join(f"dpkg --compare-versions '{a}' lt '{b}' && echo lt || echo ge" for a, b in readable)
    environment = {"PATH": os.environ["PATH"]}
    run = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert run.stderr == ""
    said = [word == "lt" for word in run.stdout.split()]
    assert said == [DPKG.key(a) < DPKG.key(b) for a, b in readable]


@given(deb_versions)
@settings(max_examples=40, deadline=None)
def test_what_dpkg_accepts_as_a_version_is_read(version: str) -> None:
    dpkg = need("dpkg")
    run = subprocess.run([dpkg, "--validate-version", version], capture_output=True, check=False)
    assert is_dpkg_version(version) == (run.returncode == 0)


pep440_versions = st.from_regex(
    r"\A(1!)?[0-9]{1,2}(\.[0-9]{1,2}){0,3}((a|b|rc)[0-9])?(\.post[0-9])?(\.dev[0-9])?(\+[a-z0-9]{1,3}(\.[0-9])?)?\Z"
)


@given(pep440_versions, pep440_versions)
def test_pep440_order_agrees_with_packaging(one: str, other: str) -> None:
    assert (PEP440.key(one) < PEP440.key(other)) == (Version(one) < Version(other))


PEP440_GOLDEN = ["1.0.dev1", "1.0a1", "1.0b2", "1.0rc1", "1.0", "1.0+local", "1.0.post1", "1.1.dev0", "1.10", "1!0.1"]


def test_pep440_golden_order() -> None:
    keys = [PEP440.key(version) for version in PEP440_GOLDEN]
    assert all(older < newer for older, newer in pairwise(keys))
    assert PEP440.key("1.0") == PEP440.key("1.0.0") == PEP440.key("v1.0")


# semver.org 2.0.0, section 11.4.4, and the boundaries that records hold.
SEMVER_GOLDEN = [
    "0",
    "1.0.0-0",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.1",
    "1.10",
    "2",
]


def test_semver_golden_order() -> None:
    keys = [SEMVER.key(version) for version in SEMVER_GOLDEN]
    assert all(older < newer for older, newer in pairwise(keys))
    assert SEMVER.key("1.0.0+build") == SEMVER.key("1.0.0+other") == SEMVER.key("1")


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (DPKG, ""),
        (DPKG, "a1.0"),
        (DPKG, "1.0-"),
        (DPKG, ":1.0"),
        (DPKG, "x:1.0"),
        (DPKG, "2147483648:1"),
        (DPKG, "1 0"),
        (DPKG, "1.0_1"),
        (DPKG, "1.0\n"),
        (DPKG, "\u0661.0"),  # an Arabic digit, which str.isdigit would take
        (DPKG, "1" * 256),
        (PEP440, "1.0-final-r12"),
        (PEP440, "unknown"),
        (PEP440, ""),
        (PEP440, "9" * 300),
        (SEMVER, "v1.0.0"),
        (SEMVER, "1.0.0.0"),
        (SEMVER, "01.0.0"),
        (SEMVER, "1.0.0-"),
    ],
)
def test_a_text_that_is_no_version_is_refused(order: VersionOrder, text: str) -> None:
    with pytest.raises(VersionError):
        order.key(text)


def is_dpkg_version(text: str) -> bool:
    try:
        DPKG.key(text)
    except VersionError:
        return False
    return True


def compare(dpkg: str, one: str, relation: str, other: str) -> bool:
    run = subprocess.run([dpkg, "--compare-versions", one, relation, other], capture_output=True, check=False)
    return run.returncode == 0
