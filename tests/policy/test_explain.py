"""Explanations: the first reason, every refusal field by field, and nothing that an image could do to a terminal."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from policy.evaluate import evaluate
from policy.explain import MAX_SHOWN, explain, explain_lines, first_reason
from policy.load import default_document, load
from policy.model import Decision
from scanner.model import Severity
from tests.support.evidence import advisory, case, change, component, day, revocations, waive

POLICY = load(default_document())


def decide(**members: Any) -> Decision:
    """The Decision on the application with these members of evidence."""
    return evaluate(POLICY, case().evidence(**members))


def test_a_refusal_is_told_field_by_field_in_both_forms() -> None:
    decision = decide(findings=(advisory(severity=Severity.NONE, exploited=True, fixed_since=day(-1)),))
    refusals, lines = explain(decision)["refusals"], explain_lines(decision)
    assert isinstance(refusals, list)
    assert refusals[0] == {
        "rule": "exploited",
        "outcome": "deny",
        "reason": "known-exploited",
        "subject": "pkg:pypi/flask@3.1.0",
        "message": "pkg:pypi/flask@3.1.0 is affected by GHSA-1: a hole; it is known to be exploited",
        "layer": 1,
        "fix": "update to 3.1.1",
        "waivable_by": "2 officers, for 14 days at most",
        "ids": ["GHSA-1", "CVE-2026-1"],
    }
    start = lines.index("  refused: exploited: known-exploited")
    assert lines[start + 1 : start + 7] == (
        "    pkg:pypi/flask@3.1.0 is affected by GHSA-1: a hole; it is known to be exploited",
        "    layer: 1",
        "    package: pkg:pypi/flask@3.1.0",
        "    known as: GHSA-1, CVE-2026-1",
        "    fix: update to 3.1.1",
        "    can be waived by: 2 officers, for 14 days at most",
    )
    assert lines[0] == f"denied: image {decision.image} may not start"
    assert lines[1] == "  under policy default version 1, at 2026-11-24T08:00:00Z, as application"


def test_the_tree_names_what_the_decision_rests_on() -> None:
    decision = decide()
    tree = explain(decision)
    assert (tree["state"], tree["allowed"], tree["level"]) == ("cleared", True, "application")
    assert tree["parent"] == str(case().base.manifest)
    assert tree["policy"] == {"name": "default", "version": 1, "digest": str(POLICY.digest)}
    assert tree["until"] == "2026-12-24T08:00:00Z"
    assert tree["refusals"] == []
    assert "exploited" in json.dumps(tree["passed"])
    assert "  until 2026-12-24T08:00:00Z at most" in explain_lines(decision)


def test_what_is_waived_in_grace_and_warned_about_is_told_apart() -> None:
    decision = decide(
        findings=(
            advisory(),
            advisory(id="GHSA-2", aliases=(), fixed_since=day(-1)),
            advisory(id="GHSA-3", aliases=(), fixed_in=""),
        ),
        waivers=(waive(advisory="GHSA-1"),),
    )
    tree = explain(decision)
    counts = {name: len(tree[name]) for name in ("refusals", "waived", "grace", "warnings", "notes")}  # type: ignore[arg-type]  # lists
    assert counts == {"refusals": 0, "waived": 1, "grace": 1, "warnings": 1, "notes": 1}
    text = "\n".join(explain_lines(decision))
    for words in (
        "waived: vulnerabilities",
        "in grace: vulnerabilities",
        "warning: vulnerabilities",
        "note: hierarchy",
    ):
        assert words in text
    assert "waiver: sha256:" in text
    assert "until: 2026-11-30T00:00:00Z" in text


def test_the_first_reason_is_the_heaviest() -> None:
    warned = advisory(id="GHSA-3", fixed_in="")
    young = advisory(id="GHSA-2", fixed_since=day(-1))
    assert first_reason(decide()).startswith("level application, on sha256:")
    assert "GHSA-3" in first_reason(decide(findings=(warned,)))
    assert "GHSA-2" in first_reason(decide(findings=(warned, young)))
    assert first_reason(decide(findings=(young, advisory()))).startswith("vulnerabilities: vulnerable-package: pkg:")
    revoked = decide(findings=(advisory(),), revocations=revocations(components=("pkg:pypi/**",)))
    assert first_reason(revoked).startswith("revocation: revoked: the component")
    assert "is revoked, and may not start" in explain_lines(revoked)[0]
    assert first_reason(replace(decide(), verdicts=())) == "cleared"


def test_a_flood_is_cut_and_counted() -> None:
    decision = decide(changes=tuple(change(f"usr/{number:03}") for number in range(MAX_SHOWN + 3)))
    tree = explain(decision)
    assert len(tree["refusals"]) == MAX_SHOWN  # type: ignore[arg-type]  # a list
    assert tree["refusals_not_shown"] == 3
    assert "  and 3 more refusals" in explain_lines(decision)


def test_what_cannot_be_told_is_said_to_be_that() -> None:
    decision = decide(errors=("crashed",))
    assert "  refused: scan: scan-failed (cannot be told, so not allowed)" in explain_lines(decision)
    assert "    can be waived by: nobody" in explain_lines(decision)


def test_an_image_cannot_write_to_the_terminal() -> None:
    decision = decide(components=(component("evil\x1b[2Jname\n", licences="SSPL-1.0"),))
    text = "\n".join(explain_lines(decision))
    assert "\x1b" not in text
    assert "evil\\x1b[2Jname\\x0a" in text


def test_the_tree_is_json() -> None:
    decision = decide(findings=(advisory(),))
    assert json.loads(json.dumps(explain(decision))) == explain(decision)
