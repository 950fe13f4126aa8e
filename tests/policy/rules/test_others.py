"""Shadowing, accounts, end of life, age, component lists, several versions, alternatives."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policy.evaluate import evaluate
from policy.model import ImageFacts
from tests.support.evidence import (
    DAY,
    NOW,
    advisory,
    approve,
    base,
    case,
    change,
    component,
    day,
    end_of_life,
    evidence,
    image,
    officer,
    team,
)
from tests.support.policies import reasons_of, verdicts_of, with_rules

# Shadowing.

SHADOWING: dict[str, Any] = {"rule": "shadowing"}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("replaced", "deny replaces-parent-file"),
        ("removed", "deny removes-parent-file"),
        ("metadata", "deny changes-parent-file"),
        ("something new", "deny replaces-parent-file"),
    ],
)
def test_an_owned_file_of_the_parent_is_left_alone(kind: str, reason: str) -> None:
    found = case().evidence(changes=(change("usr/lib/libssl.so.3", kind=kind),))
    assert reasons_of(SHADOWING, found) == [reason]


def test_a_shadowed_file_is_named_with_its_owner_layers_and_parent() -> None:
    the = case()
    (verdict,) = verdicts_of(SHADOWING, the.evidence(changes=(change("usr/bin/openssl"),)))
    assert (verdict.subject, verdict.layer) == ("/usr/bin/openssl", 1)
    assert verdict.message == (
        "layer 1 replaces /usr/bin/openssl, owned by pkg:deb/debian/openssl@3.5.0, "
        f"of layer 0 of the parent {the.base.manifest}"
    )


def test_what_a_policy_does_not_count_or_ignores_passes() -> None:
    found = case().evidence(changes=(change("usr/bin/openssl", kind="metadata"),))
    assert reasons_of(SHADOWING | {"changes": ["replaced", "removed"]}, found) == []
    assert reasons_of(SHADOWING | {"ignore": ["/usr/**"]}, found) == []
    assert reasons_of(SHADOWING | {"ignore": ["/usr/**"], "protect": ["/usr/bin/*"]}, found) == [
        "deny changes-parent-file"
    ]


def test_files_of_nobody_are_free_but_for_the_protected() -> None:
    found = case().evidence(changes=(change("etc/passwd", owner=""), change("/etc/ld.so.preload", owner="")))
    assert reasons_of(SHADOWING, found) == []
    assert reasons_of(SHADOWING | {"unowned": "warn"}, found) == ["warning replaces-parent-file"] * 2
    (verdict,) = verdicts_of(SHADOWING | {"protect": ["/etc/ld.so.preload"]}, found)
    assert "/etc/ld.so.preload, of no package" in verdict.message


def test_layers_of_the_parent_may_do_what_they_did_when_it_was_approved() -> None:
    below = base("debian", "tools")
    app = image("debian", "tools", "app")
    approvals = (approve(below, "base", officer("alice"), officer("bob")), approve(app, "application", team()))
    within = replace(change("usr/bin/openssl"), layer=1, lower_layer=0)
    above = replace(change("usr/bin/openssl"), layer=2, lower_layer=1)
    own = replace(change("app/x"), layer=2, lower_layer=2)
    assert reasons_of(SHADOWING, evidence(app, image_approvals=approvals, changes=(within, own))) == []
    assert reasons_of(SHADOWING, evidence(app, image_approvals=approvals, changes=(above,))) == [
        "deny replaces-parent-file"
    ]


def test_a_cut_list_of_changes_is_unknown() -> None:
    assert reasons_of(SHADOWING, case().evidence(changes_truncated=True)) == ["unknown changes-truncated"]


def test_a_base_shadows_nobody() -> None:
    the = case()
    found = evidence(
        the.base, image_approvals=the.base_approvals, changes=(change("usr/bin/x"),), changes_truncated=True
    )
    assert reasons_of(SHADOWING, found) == []


# Accounts.


@pytest.mark.parametrize(
    ("uid", "said"), [(0, ["deny protected-account"]), (1000, []), (None, ["unknown account-unknown"])]
)
def test_root_and_the_unknown_are_refused(uid: int | None, said: list[str]) -> None:
    assert reasons_of({"rule": "account"}, _run_as(uid)) == said


def test_other_accounts_may_be_named() -> None:
    assert reasons_of({"rule": "account", "uids": [1000]}, _run_as(1000)) == ["deny protected-account"]
    assert reasons_of({"rule": "account", "uids": [1000]}, _run_as(0)) == []


def _run_as(uid: int | None) -> Any:
    facts = image(uid=uid)
    return evidence(facts, image_approvals=(*case().base_approvals, approve(facts, "application", team())))


def test_a_rule_of_one_level_says_nothing_at_another() -> None:
    the = case()
    root = evidence(the.base, image_approvals=the.base_approvals)
    decision = evaluate(with_rules({"rule": "account", "levels": ["application"]}, {"rule": "age"}), root)
    assert "account" not in {verdict.rule for verdict in decision.verdicts}
    decision = evaluate(with_rules({"rule": "account", "levels": ["application"]}), root)
    assert [verdict.reason for verdict in decision.refusals] == ["empty-policy"]


# End of life.


def test_the_end_is_a_refusal_and_what_comes_is_a_warning() -> None:
    rule = {"rule": "end-of-life", "warn_before": "30d", "grace": "10d"}
    for ended, said in (
        (day(-11), ["deny end-of-life"]),
        (day(-9), ["grace end-of-life"]),
        (day(0), ["grace end-of-life"]),
        (day(29), ["warning end-of-life"]),
        (day(31), []),
        ("", ["deny end-of-life"]),
    ):
        assert reasons_of(rule, case().evidence(findings=(end_of_life(ended=ended),))) == said


def test_an_end_is_told_with_its_day_and_what_to_move_to() -> None:
    (verdict,) = verdicts_of({"rule": "end-of-life"}, case().evidence(findings=(end_of_life(fixed_in="13"),)))
    assert (verdict.message, verdict.fix) == (f"pkg:generic/debian@10: support ended on {day(-30)}", "move to 13")
    (verdict,) = verdicts_of({"rule": "end-of-life"}, case().evidence(findings=(end_of_life(ended=""),)))
    assert "on a day that is not known" in verdict.message


# Age.


def _seen(ago: timedelta, created: str = "2026-11-20T00:00:00Z") -> Any:
    the = case()
    facts: ImageFacts = replace(the.app, first_seen=NOW - ago, created=created)
    return evidence(facts, image_approvals=(*the.base_approvals, *the.app_approvals))


def test_too_old_and_too_new_run_from_when_the_registry_saw_it() -> None:
    rule = {"rule": "age", "most": "30d", "least": "2d"}
    assert reasons_of(rule, _seen(31 * DAY)) == ["deny too-old"]
    assert reasons_of(rule, _seen(10 * DAY)) == []
    (verdict,) = verdicts_of(rule, _seen(DAY))
    assert (verdict.reason, verdict.fix) == ("too-new", f"wait until {day(1)}")
    assert reasons_of(rule, _seen(-DAY)) == ["unknown first-seen-in-future"]


def test_the_publisher_s_own_time_counts_only_if_it_is_asked_for() -> None:
    rule = {"rule": "age", "created_most": "30d"}
    assert reasons_of({"rule": "age", "most": "30d"}, _seen(DAY, created="1970-01-01T00:00:00Z")) == []
    assert reasons_of(rule, _seen(DAY, created="1970-01-01T00:00:00Z")) == ["deny too-old"]
    assert reasons_of(rule, _seen(DAY, created="")) == ["unknown created-unknown"]
    assert reasons_of(rule, _seen(DAY, created="2126-01-01T00:00:00Z")) == ["unknown created-unknown"]
    assert reasons_of(rule, _seen(DAY)) == []


# Lists of components.

BACK_DOOR = {"purl": "pkg:deb/debian/xz-utils", "versions": [">=5.6.0~, <5.6.1+really5.4.5-1"], "reason": "back door"}


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("5.6.1-1", ["deny component-denied"]),
        ("5.6.0-0.2", ["deny component-denied"]),
        ("5.6.1+really5.4.5-1", []),
        ("5.4.5-0.3", []),
        ("no version", ["unknown version-not-comparable"]),
    ],
)
def test_a_component_is_denied_in_a_range_of_its_own_order(version: str, said: list[str]) -> None:
    found = case().evidence(components=(component("xz-utils", version, kind="deb"),))
    assert reasons_of({"rule": "components", "deny": [BACK_DOOR]}, found) == said


def test_a_denied_component_may_only_warn_and_ranges_are_alternatives() -> None:
    found = case().evidence(components=(component(),))
    entry = {"purl": "pkg:pypi/*", "reason": "so", "versions": ["<1", "=3.1.0"], "action": "warn", "fix": "use another"}
    (verdict,) = verdicts_of({"rule": "components", "deny": [entry]}, found)
    assert (verdict.note, verdict.fix) == ("warning", "use another")
    assert verdict.message == "pkg:pypi/flask@3.1.0 is on the list of denied components: so"


def test_a_version_of_an_ecosystem_without_an_order_cannot_be_compared() -> None:
    found = case().evidence(components=(component("left-pad", "1.0.0", kind="npm"),))
    entry = {"purl": "pkg:npm/left-pad", "versions": ["<2"], "reason": "so"}
    assert reasons_of({"rule": "components", "deny": [entry]}, found) == ["unknown version-not-comparable"]


def test_an_allow_list_names_all_there_may_be() -> None:
    found = case().evidence(components=(component(), component("django", "5.0")))
    rule = {"rule": "components", "allow": ["pkg:pypi/flask", "pkg:deb/**"]}
    (verdict,) = verdicts_of(rule, found)
    assert (verdict.reason, verdict.subject) == ("component-not-listed", "pkg:pypi/django@5.0")
    below = case().evidence(components=(component("django", "5.0", layer=0),))
    assert reasons_of(rule | {"components": "own"}, below) == []


# Several versions.


def test_several_versions_of_one_tool_are_told_once_with_their_layers() -> None:
    found = case().evidence(
        components=(component(version="2.0", layer=0), component(version="3.1.0"), component(version="3.1.0", layer=0))
    )
    (verdict,) = verdicts_of({"rule": "several-versions"}, found)
    assert verdict.note == "warning"
    assert verdict.message == "2 versions of pkg:pypi/flask: 2.0 (layer 0), 3.1.0 (layer 0)"
    assert reasons_of({"rule": "several-versions", "action": "deny"}, found) == ["deny several-versions"]
    assert reasons_of({"rule": "several-versions", "most": 2}, found) == []
    assert reasons_of({"rule": "several-versions", "ignore": ["pkg:pypi/*"]}, found) == []


def test_one_name_in_two_ecosystems_is_two_tools() -> None:
    found = case().evidence(components=(component("flask", "2", kind="deb"), component("flask", "3")))
    assert reasons_of({"rule": "several-versions"}, found) == []


# Alternatives.

EITHER: dict[str, Any] = {
    "rule": "any-of",
    "name": "young-or-unhurt",
    "rules": [
        {"rule": "age", "most": "3d"},
        {"rule": "exploited", "without_fix": "deny"},
    ],
}


def test_one_of_several_rules_is_enough() -> None:
    hurt = advisory(exploited=True)
    old_and_hurt = replace(_seen(10 * DAY), findings=(hurt,))
    assert reasons_of(EITHER, _seen(10 * DAY)) == []
    assert reasons_of(EITHER, replace(_seen(DAY), findings=(hurt,))) == []
    refused = verdicts_of(EITHER, old_and_hurt)
    assert [(verdict.rule, verdict.reason) for verdict in refused] == [
        ("young-or-unhurt", "too-old"),
        ("young-or-unhurt", "known-exploited"),
    ]
    assert refused[0].message.startswith("age: first seen")


def test_what_the_passing_alternative_warns_about_is_kept() -> None:
    rule = EITHER | {"rules": [{"rule": "exploited", "with_fix": "warn"}, {"rule": "age", "most": "3d"}]}
    found = replace(_seen(10 * DAY), findings=(advisory(exploited=True),))
    assert reasons_of(rule, found) == ["warning known-exploited"]
