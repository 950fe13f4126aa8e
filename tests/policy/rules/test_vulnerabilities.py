"""Advisories: severity, fixes, grace measured from what happened, and known exploitation."""

from __future__ import annotations

from typing import Any

import pytest

from scanner.model import FixState, Severity
from tests.support.evidence import DAY, NOW, advisory, case, day
from tests.support.policies import reasons_of, verdicts_of

DENY_ALL: dict[str, Any] = {
    "rule": "vulnerabilities",
    **{
        name: {"with_fix": {"action": "deny", "grace": "10d"}, "without_fix": {"action": "deny", "grace": "20d"}}
        for name in ("critical", "high", "medium", "low", "none")
    },
}


@pytest.mark.parametrize("severity", list(Severity))
def test_each_severity_has_its_own_answer(severity: Severity) -> None:
    found = case().evidence(findings=(advisory(severity=severity),))
    quiet = DENY_ALL | {str(severity): {"with_fix": {"action": "allow"}}}
    loud = DENY_ALL | {str(severity): {"with_fix": {"action": "warn"}}}
    assert reasons_of(DENY_ALL, found) == ["deny vulnerable-package"]
    assert reasons_of(quiet, found) == []
    assert reasons_of(loud, found) == ["warning vulnerable-package"]


def test_grace_runs_from_the_day_of_the_fix() -> None:
    # Published long ago, but the fix could be had for nine days only.
    found = case().evidence(findings=(advisory(published=day(-400), fixed_since=day(-9)),))
    (verdict,) = verdicts_of(DENY_ALL, found)
    assert verdict.note == "grace"
    assert verdict.until is not None
    assert f"{verdict.until:%Y-%m-%d}" == day(1)


def test_grace_ends_on_its_last_moment() -> None:
    finding = advisory(fixed_since=day(-9))
    midnight = NOW.replace(hour=0) + DAY
    assert reasons_of(DENY_ALL, case().evidence(findings=(finding,), now=midnight - DAY)) == [
        "grace vulnerable-package"
    ]
    assert reasons_of(DENY_ALL, case().evidence(findings=(finding,), now=midnight)) == ["deny vulnerable-package"]


def test_without_a_fix_grace_runs_from_publication() -> None:
    young, old = advisory(fixed_in="", published=day(-19)), advisory(fixed_in="", published=day(-21))
    assert reasons_of(DENY_ALL, case().evidence(findings=(young,))) == ["grace vulnerable-package"]
    assert reasons_of(DENY_ALL, case().evidence(findings=(old,))) == ["deny vulnerable-package"]


def test_where_the_day_of_the_fix_is_not_known_that_of_publication_counts() -> None:
    found = case().evidence(findings=(advisory(fixed_since="", published=day(-9)),))
    assert reasons_of(DENY_ALL, found) == ["grace vulnerable-package"]


@pytest.mark.parametrize("since", ["", "soon", "in a few days", day(2)])
def test_a_grace_that_cannot_be_measured_is_unknown(since: str) -> None:
    found = case().evidence(findings=(advisory(fixed_since="", published=since),))
    (verdict,) = verdicts_of(DENY_ALL, found)
    assert (verdict.outcome, verdict.reason) == ("unknown", "grace-not-measurable")
    assert verdict.ids == ("GHSA-1", "CVE-2026-1")


def test_without_grace_no_day_is_needed() -> None:
    rule = DENY_ALL | {"critical": {"with_fix": {"action": "deny"}}}
    assert reasons_of(rule, case().evidence(findings=(advisory(fixed_since="", published=""),))) == [
        "deny vulnerable-package"
    ]


def test_what_will_never_be_fixed_has_an_answer_of_its_own() -> None:
    found = case().evidence(findings=(advisory(fixed_in="", state=FixState.WONT_FIX),))
    rule = DENY_ALL | {"critical": {"wont_fix": {"action": "deny"}, "without_fix": {"action": "allow"}}}
    (verdict,) = verdicts_of(rule, found)
    assert verdict.fix == "its source will not fix it"
    assert reasons_of(DENY_ALL | {"critical": {"without_fix": {"action": "allow"}}}, found) == []


def test_a_suppressed_finding_is_none() -> None:
    found = case().evidence(findings=(advisory(suppressed="the distribution's data decide"),))
    assert reasons_of(DENY_ALL, found) == []
    assert (
        reasons_of({"rule": "exploited"}, case().evidence(findings=(advisory(exploited=True, suppressed="so"),))) == []
    )


def test_a_refusal_names_package_layer_and_fix() -> None:
    (verdict,) = verdicts_of(DENY_ALL, case().evidence(findings=(advisory(),)))
    assert verdict.subject == "pkg:pypi/flask@3.1.0"
    assert (verdict.layer, verdict.fix) == (1, "update to 3.1.1")
    assert verdict.message == "pkg:pypi/flask@3.1.0 is affected by GHSA-1, critical: a hole"


def test_known_exploited_with_a_fix_is_denied_at_once() -> None:
    found = case().evidence(findings=(advisory(severity=Severity.LOW, exploited=True, fixed_since=day(0)),))
    (verdict,) = verdicts_of({"rule": "exploited"}, found)
    assert (verdict.outcome, verdict.reason, verdict.fix) == ("deny", "known-exploited", "update to 3.1.1")


def test_known_exploited_may_have_a_grace() -> None:
    rule = {"rule": "exploited", "grace": "3d"}
    young, old = advisory(exploited=True, fixed_since=day(-2)), advisory(exploited=True, fixed_since=day(-4))
    assert reasons_of(rule, case().evidence(findings=(young,))) == ["grace known-exploited"]
    assert reasons_of(rule, case().evidence(findings=(old,))) == ["deny known-exploited"]


def test_known_exploited_without_a_fix_and_softer_answers() -> None:
    unfixed = case().evidence(findings=(advisory(exploited=True, fixed_in=""),))
    assert reasons_of({"rule": "exploited"}, unfixed) == ["warning known-exploited"]
    assert reasons_of({"rule": "exploited", "without_fix": "deny"}, unfixed) == ["deny known-exploited"]
    fixed = case().evidence(findings=(advisory(exploited=True),))
    assert reasons_of({"rule": "exploited", "with_fix": "warn"}, fixed) == ["warning known-exploited"]


def test_what_is_not_exploited_is_not_this_rule_s() -> None:
    assert reasons_of({"rule": "exploited"}, case().evidence(findings=(advisory(),))) == []
