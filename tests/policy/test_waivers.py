"""Waivers: an exception that fits, counts and lasts; attack S9: one expiry on every path."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policy.evaluate import evaluate
from policy.explain import explain_lines
from policy.load import default_document, load
from policy.model import Decision, Note, Signed, Signer, State
from policy.statements import Role, Waiver
from tests.support.evidence import (
    DAY,
    NOW,
    REGISTRY,
    advisory,
    case,
    change,
    officer,
    revocations,
    signed,
    team,
    waive,
    withdraw,
)
from tests.support.policies import policy, with_rules

POLICY = load(default_document())


def decide(*waivers: Signed[Waiver], under: Any = POLICY, **members: Any) -> Decision:
    """The Decision on an image that only an advisory, mended for two months, stands against."""
    return evaluate(under, case().evidence(waivers=waivers, **({"findings": (advisory(),)} | members)))


def _unread(**members: str) -> Signed[Waiver]:
    """A waiver that `wire` would not read; that it cannot come does not mean that it would count."""
    plain = waive()
    return replace(plain, statement=replace(plain.statement, **members))  # type: ignore[arg-type]  # texts only


def notes(decision: Decision) -> list[str]:
    """Why waivers did not count."""
    return [verdict.reason for verdict in decision.verdicts if verdict.rule == "waivers"]


def test_a_waived_refusal_is_an_allow_that_says_so() -> None:
    exception = waive(advisory="CVE-2026-1")
    decision = decide(exception)
    assert decision.state is State.CLEARED
    (verdict,) = [one for one in decision.verdicts if one.note is Note.WAIVED]
    assert (verdict.reason, verdict.waived_by, verdict.until) == (
        "vulnerable-package",
        str(exception.digest),
        NOW + 10 * DAY,
    )
    assert verdict.message.endswith("waived by alice until 2026-12-04: not reachable here, SEC-1")
    assert exception.digest in decision.rests_on
    assert decision.valid_until == NOW + 10 * DAY


@pytest.mark.parametrize(
    ("members", "fits"),
    [
        ({"advisory": "GHSA-1"}, True),
        ({"advisory": "CVE-2026-1"}, True),
        ({"advisory": "CVE-2026-2"}, False),
        ({"component": "pkg:pypi/flask"}, True),
        ({"component": "pkg:pypi/flask@3.1.0"}, True),
        ({"component": "pkg:pypi/*@3.*"}, True),
        ({"component": "pkg:pypi/django"}, False),
        ({"rule": "*", "component": "pkg:pypi/flask"}, True),
        ({"rule": "licences", "component": "pkg:pypi/flask"}, False),
        ({"scope": f"{REGISTRY}/team/app"}, True),
        ({"scope": f"{REGISTRY}/team/*"}, True),
        ({"scope": f"{REGISTRY}/*"}, False),
        ({"scope": "other/**"}, False),
    ],
)
def test_a_waiver_fits_by_rule_advisory_component_and_scope(members: dict[str, str], fits: bool) -> None:
    assert decide(waive(**members)).allowed is fits  # type: ignore[arg-type]  # texts by name


@pytest.mark.parametrize(
    ("when", "allowed"),
    [
        ({"expires": NOW}, False),
        ({"expires": NOW - timedelta(seconds=1)}, False),
        ({"expires": NOW + timedelta(seconds=1)}, True),
        ({"issued": NOW + timedelta(minutes=6), "expires": NOW + DAY}, False),
    ],
)
def test_s9_a_waiver_ends_when_it_says(when: dict[str, Any], allowed: bool) -> None:
    decision = decide(waive(**when))
    assert decision.allowed is allowed
    assert notes(decision) == (
        [] if allowed else ["waiver-expired" if "issued" not in when else "waiver-not-yet-valid"]
    )


def test_s9_the_same_evidence_later_is_denied_on_every_path() -> None:
    """Push, rescan, command line and report evaluate the same evidence with their own time, by this one function."""
    found = case().evidence(waivers=(waive(expires=NOW + DAY),), findings=(advisory(),))
    assert evaluate(POLICY, found).allowed
    later = evaluate(POLICY, replace(found, now=NOW + DAY))
    assert not later.allowed
    # The report says why the exception does not count any more.
    assert any("expired 2026-11-25 08:00 UTC" in line for line in explain_lines(later))


@pytest.mark.parametrize(
    ("waiver", "code"),
    [
        (waive(issued=NOW - DAY, expires=NOW + 90 * DAY), "waiver-too-long"),
        (waive(team()), "waiver-wrong-role"),
        (waive(officer("alice", "base")), "waiver-wrong-level"),
        (waive(Signer(key="r", role=Role.REGISTRY, owner="r", levels=("application",))), "waiver-wrong-role"),
        (_unread(rule="*"), "waiver-too-wide"),
        (_unread(component="a***"), "waiver-unreadable"),
        (_unread(scope="a***"), "waiver-unreadable"),
    ],
)
def test_a_waiver_that_fits_and_does_not_count_is_told_with_its_reason(waiver: Signed[Waiver], code: str) -> None:
    decision = decide(waiver)
    if waiver.statement.component:
        # Its glob is none, so it is about nothing but a subject of exactly that name.
        assert (decision.allowed, notes(decision)) == (False, [])
    else:
        assert (decision.allowed, notes(decision)) == (False, [code])


def test_an_unsigned_waiver_does_not_count() -> None:
    assert notes(decide(signed(waive().statement))) == ["waiver-unsigned"]


def test_a_withdrawn_waiver_and_one_of_a_revoked_key_do_not_count() -> None:
    exception = waive()
    assert notes(decide(exception, withdrawals=(withdraw(exception),))) == ["waiver-withdrawn"]
    assert notes(decide(exception, revocations=revocations(keys=(officer("alice").key,)))) == ["waiver-revoked-key"]
    assert notes(decide(exception, revocations=revocations(digests=(exception.digest,)))) == ["waiver-revoked"]


def test_two_people_may_sign_one_waiver_in_two_envelopes() -> None:
    exploited = {"findings": (advisory(exploited=True),)}
    other = waive(rule="vulnerabilities")
    alone = decide(other, waive(rule="exploited"), **exploited)
    assert (alone.allowed, notes(alone)) == (False, ["waiver-quorum-not-met"])
    together = decide(
        other,
        waive(officer("alice"), rule="exploited"),
        waive(officer("bob"), rule="exploited"),
        **exploited,
    )
    assert together.allowed


def test_the_waiver_that_lasts_longest_is_the_one_that_is_rested_on() -> None:
    short, long = waive(expires=NOW + DAY), waive(expires=NOW + 20 * DAY)
    decision = decide(short, long)
    assert decision.valid_until == NOW + 20 * DAY
    assert short.digest not in decision.rests_on


def test_what_the_policy_lets_nobody_waive_stays_refused() -> None:
    decision = decide(waive(rule="hierarchy"), image_approvals=(), findings=())
    assert decision.state is State.DENIED
    assert notes(decision) == ["waiver-not-possible"]
    assert {verdict.waivable_by for verdict in decision.refusals} == {""}


def test_the_trust_of_an_image_is_waived_only_where_a_policy_says_so() -> None:
    terms = [{"rules": ["hierarchy"], "by": [{"officer": 1}], "max_duration": "20d"}]
    decision = decide(waive(rule="hierarchy"), under=policy(waivers=terms), image_approvals=(), findings=())
    assert decision.allowed


@pytest.mark.parametrize(
    ("members", "rule"),
    [
        ({"revocations": revocations(digests=(case().app.manifest,))}, "revocation"),
        ({"errors": ("crashed",)}, "scan"),
    ],
)
def test_revocation_and_a_failed_scan_are_waived_by_nobody(members: dict[str, Any], rule: str) -> None:
    decision = decide(waive(rule=rule), waive(rule="*", component="**"), findings=(), **members)
    assert not decision.allowed
    assert decision.refusals[0].waivable_by == ""


def test_a_waiver_at_one_level_is_none_at_another() -> None:
    terms = [{"rules": ["exploited"], "levels": ["base"], "by": [{"officer": 1}], "max_duration": "20d"}]
    under = with_rules({"rule": "exploited"}, waivers=terms)
    decision = decide(waive(rule="exploited"), under=under, findings=(advisory(exploited=True),))
    assert notes(decision) == ["waiver-not-possible"]


def test_a_path_can_be_waived_by_its_glob() -> None:
    shadowing = {"findings": (), "changes": (change("usr/bin/openssl"), change("usr/bin/curl"))}
    one = decide(waive(rule="shadowing", component="/usr/bin/openssl"), **shadowing)
    assert [verdict.subject for verdict in one.refusals] == ["/usr/bin/curl"]
    assert decide(waive(rule="shadowing", component="/usr/bin/*"), **shadowing).allowed


def test_a_refusal_says_who_can_waive_it() -> None:
    (verdict,) = decide().refusals
    assert verdict.waivable_by == "1 officer, for 90 days at most"


def test_a_waiver_that_fits_nothing_is_not_shown() -> None:
    decision = decide(waive(advisory="CVE-1999-1"), findings=())
    assert decision.state is State.CLEARED
    assert notes(decision) == []
