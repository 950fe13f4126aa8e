"""The Decision: what clears, the six images of the demonstration, and that nothing unknown passes."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from ocispec.config import chain_ids
from ocispec.digest import Digest
from policy.codec import evidence_digest
from policy.evaluate import evaluate
from policy.load import default_document, load
from policy.model import Decision, Evidence, Outcome, RejectedStatement, State
from policy.statements import ConfigFacts
from scanner.model import DataSource, Severity
from tests.support.evidence import (
    DAY,
    NOW,
    advisory,
    approve,
    approve_layer,
    base,
    case,
    change,
    component,
    data,
    day,
    digest,
    end_of_life,
    evidence,
    image,
    officer,
    revocations,
    team,
    unknown,
)
from tests.support.policies import policy, with_rules

POLICY = load(default_document())


def decide(found: Evidence) -> Decision:
    """The Decision under the default policy."""
    return evaluate(POLICY, found)


def reasons(decision: Decision) -> list[str]:
    """The reasons against it."""
    return [verdict.reason for verdict in decision.refusals]


# What clears.


def test_an_application_on_an_approved_base_is_cleared() -> None:
    the = case(by_layer=True)
    found = the.evidence()
    decision = decide(found)
    assert (decision.state, decision.level, decision.parent) == (State.CLEARED, "application", the.base.manifest)
    assert decision.allowed
    assert decision.refusals == ()
    assert decision.image == the.app.manifest
    assert (decision.policy_name, decision.policy_version, decision.policy) == ("default", 1, POLICY.digest)
    assert decision.evidence == evidence_digest(found)
    assert decision.taken == NOW
    assert set(decision.rests_on) == {signed.digest for signed in (*the.base_approvals, *the.layer_approvals)}


def test_every_rule_has_a_verdict_and_one_that_passed_has_one_only() -> None:
    decision = decide(case().evidence())
    names = [verdict.rule for verdict in decision.verdicts]
    assert names == [
        *("revocation", "hierarchy", "config", "scan", "unknowns", "freshness"),
        *(rule.name for rule in POLICY.rules),
    ]
    assert {verdict.outcome for verdict in decision.verdicts} == {Outcome.ALLOW}


def test_a_base_is_cleared_by_two_officers_as_root() -> None:
    decision = decide(evidence(base(), image_approvals=case().base_approvals))
    assert (decision.state, decision.level, decision.parent) == (State.CLEARED, "base", None)


# The six images of the demonstration, each for its own reason (issue 2, point 6).


def _on_nothing() -> Evidence:
    app = image("another base", "app")
    return evidence(
        app,
        image_approvals=(*case().base_approvals, approve(app, "application", team())),
    )


def _other_config() -> Evidence:
    the = case(by_layer=True)
    config = replace(the.app.config_facts, entrypoint=("/bin/sh",), env=("PATH=/usr/bin", "LD_PRELOAD=/app/x.so"))
    app = image(config=config)
    layers = (approve_layer(app, 1, "application", team()),)
    return evidence(app, image_approvals=the.base_approvals, layer_approvals=layers)


@pytest.mark.parametrize(
    ("found", "rule", "reason", "subject", "layer", "told"),
    [
        (
            case().evidence(findings=(advisory(severity=Severity.NONE, exploited=True, fixed_since=day(-5)),)),
            "exploited",
            "known-exploited",
            "pkg:pypi/flask@3.1.0",
            1,
            "update to 3.1.1",
        ),
        (
            case().evidence(components=(component(licences="AGPL-3.0-only"),)),
            "licences",
            "licence-not-allowed",
            "pkg:pypi/flask@3.1.0",
            1,
            "replace it; the lists were asked for AGPL-3.0-only",
        ),
        (
            case().evidence(findings=(end_of_life("pkg:pypi/django@3.2.25", fixed_in="4.2"),)),
            "end-of-life",
            "end-of-life",
            "pkg:pypi/django@3.2.25",
            0,
            "move to 4.2",
        ),
        (
            _on_nothing(),
            "hierarchy",
            "no-approved-parent",
            str(image("another base", "app").manifest),
            None,
            "build it on an approved image of level base or middleware, or have it approved for base by 2 officers",
        ),
        (
            case().evidence(changes=(change("usr/lib/x86_64-linux-gnu/libssl.so.3"),)),
            "shadowing",
            "replaces-parent-file",
            "/usr/lib/x86_64-linux-gnu/libssl.so.3",
            1,
            "leave the parent's files alone, or build on a parent that has the wanted ones",
        ),
        (_other_config(), "config", "config-not-approved", "config entrypoint", None, "leave it as it is, or have the"),
    ],
)
def test_each_of_six_images_is_denied_for_its_own_reason(  # the columns of a table
    found: Evidence, rule: str, reason: str, subject: str, layer: int | None, told: str
) -> None:
    decision = decide(found)
    assert decision.state is State.DENIED
    verdict = next(one for one in decision.refusals if one.subject == subject)
    assert (verdict.rule, verdict.reason, verdict.layer) == (rule, reason, layer)
    assert verdict.fix.startswith(told)
    assert {one.rule for one in decision.refusals} == {rule}


# Nothing unknown passes.


@pytest.mark.parametrize(
    ("members", "rule", "reason"),
    [
        ({"errors": ("the cataloger for deb crashed",)}, "scan", "scan-failed"),
        ({"unknowns": (unknown("database-contradicts-files"),)}, "unknowns", "database-contradicts-files"),
        ({"unknowns": (unknown("unreadable-version"),)}, "unknowns", "unreadable-version"),
        ({"unknowns": (unknown("no-operating-system"),)}, "unknowns", "no-operating-system"),
        ({"unknowns": (unknown("a code of a later scanner"),)}, "unknowns", "a code of a later scanner"),
        ({"data": ()}, "freshness", "data-missing"),
        ({"data": data()[:3]}, "freshness", "data-missing"),
        ({"data": data(8 * DAY)}, "freshness", "data-stale"),
        ({"data": data(-DAY)}, "freshness", "data-from-future"),
        (
            {"data": (*data()[1:], DataSource(name="osv Debian:13", digest="", date="yesterday", records=1))},
            "freshness",
            "data-undated",
        ),
        ({"revocations": None}, "revocation", "no-revocation-list"),
    ],
)
def test_what_cannot_be_told_is_not_allowed(members: dict[str, Any], rule: str, reason: str) -> None:
    decision = decide(case().evidence(**members))
    assert not decision.allowed
    verdict = decision.refusals[0]
    assert (verdict.rule, verdict.outcome, verdict.reason) == (rule, Outcome.UNKNOWN, reason)


def test_unknowns_are_answered_by_code_level_and_subject() -> None:
    terms = [
        {"code": "unowned-executable", "action": "allow", "levels": ["application"], "subjects": ["opt/**"]},
        {"code": "unowned-executable", "action": "warn", "levels": ["application"]},
    ]
    under = policy(scan={"unknowns": terms})
    found = case().evidence(unknowns=(unknown("unowned-executable", "opt/x/y"),))
    assert evaluate(under, found).state is State.CLEARED
    found = case().evidence(unknowns=(unknown("unowned-executable", "usr/bin/x"),))
    assert evaluate(under, found).state is State.WARNING
    the = case()
    found = evidence(the.base, image_approvals=the.base_approvals, unknowns=(unknown("unowned-executable", "opt/x/y"),))
    assert evaluate(under, found).state is State.DENIED


def test_a_policy_may_do_without_a_revocation_list_at_the_registry() -> None:
    found = case().evidence(revocations=None)
    assert evaluate(policy(revocation={"required": False}), found).allowed


def test_an_empty_rule_set_denies() -> None:
    decision = evaluate(with_rules(), case().evidence())
    assert decision.state is State.DENIED
    assert reasons(decision) == ["empty-policy"]
    assert decision.refusals[0].waivable_by == ""


def test_a_rule_that_crashes_is_a_refusal_and_the_others_still_speak() -> None:
    def crash(_view: object) -> Any:
        raise ZeroDivisionError("by design")

    rules = (replace(POLICY.rules[0], check=crash), *POLICY.rules[1:])
    found = case().evidence(findings=(end_of_life(),))
    decision = evaluate(replace(POLICY, rules=rules), found)
    assert [(verdict.reason, verdict.outcome) for verdict in decision.refusals] == [
        ("rule-failed", Outcome.UNKNOWN),
        ("end-of-life", Outcome.DENY),
    ]
    assert "ZeroDivisionError: by design" in decision.refusals[0].message


# States.


@pytest.mark.parametrize(
    ("findings", "state"),
    [
        ((), State.CLEARED),
        ((advisory(fixed_in=""),), State.WARNING),
        ((advisory(fixed_since=day(-1)),), State.GRACE),
        ((advisory(fixed_since=day(-1)), advisory(id="GHSA-2", fixed_in="")), State.GRACE),
        ((advisory(),), State.DENIED),
    ],
)
def test_the_state_is_that_of_the_heaviest_verdict(findings: tuple[Any, ...], state: State) -> None:
    assert decide(case().evidence(findings=findings)).state is state


def test_a_decision_ends_with_the_grace_that_it_rests_on() -> None:
    decision = decide(case().evidence(findings=(advisory(fixed_since=day(-5)),)))
    assert decision.valid_until == NOW.replace(hour=0) + 2 * DAY


# Revocation.


@pytest.mark.parametrize(
    "what",
    [
        {"digests": (case().app.manifest,)},
        {"digests": (case().app.config,)},
        {"digests": (case().app.root_index,)},
        {"digests": (case().base.manifest,)},
        {"digests": (case().base.config,)},
        {"layers": (digest("debian"),)},
        {"layers": (digest("app"),)},
        {"layers": (case().app.layers[1].chain_id,)},
        {"digests": (case().app.layers[1].chain_id,)},
        {"components": ("pkg:pypi/flask",)},
        {"components": ("pkg:pypi/flask@3.1.0",)},
        {"components": ("pkg:pypi/*@3.*",)},
        {"components": ("pkg:deb/debian/openssl",)},
    ],
)
def test_what_is_revoked_is_revoked_with_all_that_stands_on_it(what: dict[str, Any]) -> None:
    decision = decide(case().evidence(revocations=revocations(**what)))
    assert decision.state is State.REVOKED
    assert decision.refusals[0].rule == "revocation"
    assert "revocation list 7: found hostile" in decision.refusals[0].message


def test_a_revoked_base_takes_with_it_what_could_stand_on_another() -> None:
    """Both layers of the middleware are approved by themselves; who revoked the image meant what is on it."""
    app = image("debian", "python", "app", config=case(by_layer=True).app.config_facts)
    middle = base("debian", "python", name="middle")
    found = evidence(
        app,
        image_approvals=(*case().base_approvals, approve(middle, "middleware", officer("alice"))),
        layer_approvals=(
            approve_layer(app, 1, "application", team()),
            approve_layer(app, 2, "application", team()),
        ),
    )
    assert decide(found).state is State.CLEARED
    decision = decide(replace(found, revocations=revocations(digests=(middle.manifest,))))
    assert decision.state is State.REVOKED


@pytest.mark.parametrize(
    "what",
    [
        {"digests": (digest("something else"),)},
        {"components": ("pkg:pypi/flask@3.0.*", "pkg:npm/**")},
        {"keys": (str(digest("key of nobody")),)},
    ],
)
def test_what_is_not_named_is_not_revoked(what: dict[str, Any]) -> None:
    assert decide(case().evidence(revocations=revocations(**what))).allowed


def test_a_list_that_cannot_be_read_revokes_everything() -> None:
    listed = revocations()
    broken = replace(listed, statement=replace(listed.statement, components=("a***",)))
    decision = decide(case().evidence(revocations=broken))
    assert reasons(decision) == ["revocation-unreadable"]


# Attack S5.


def test_s5_labels_and_annotations_are_no_evidence() -> None:
    """Whatever a publisher writes about its image has no place in evidence: nothing of it can be believed."""
    names = {name for kind in (Evidence, type(image()), ConfigFacts) for name in kind.__dataclass_fields__}
    assert not {"labels", "annotations", "history", "author", "verified"} & names


# Places in the hierarchy.


def test_an_image_is_judged_by_the_first_place_that_nothing_stands_against() -> None:
    """The layer replaces a file of the middleware; on the base alone, with its layers approved, it replaces its own."""
    config = case(by_layer=True).app.config_facts
    app = image("debian", "python", "app", config=config)
    layers = (approve_layer(app, 1, "application", team()), approve_layer(app, 2, "application", team()))
    shadow = replace(change("usr/bin/python3"), layer=2, lower_layer=1)
    middle = approve(base("debian", "python", name="middle"), "middleware", officer("alice"))
    on_base = evidence(app, image_approvals=case().base_approvals, layer_approvals=layers, changes=(shadow,))
    assert decide(on_base).state is State.CLEARED
    on_both = replace(on_base, image_approvals=(*on_base.image_approvals, middle))
    assert decide(on_both).parent == case().base.manifest
    on_middle = replace(on_both, layer_approvals=layers[1:])
    decision = decide(on_middle)
    assert decision.parent == middle.statement.manifest
    assert reasons(decision) == ["replaces-parent-file"]


def test_a_place_that_was_not_reached_is_no_level() -> None:
    decision = decide(evidence(image(), image_approvals=case().base_approvals))
    assert (decision.state, decision.level) == (State.DENIED, "")


def test_statements_that_were_not_believed_are_shown_and_count_for_nothing() -> None:
    rejected = RejectedStatement(digest=digest("forged"), code="unknown-key", detail="signed by nobody we know")
    decision = decide(case().evidence(rejected=(rejected,)))
    assert decision.state is State.CLEARED
    verdict = decision.verdicts[-1]
    assert (verdict.rule, verdict.reason, verdict.subject) == ("statements", "unknown-key", str(digest("forged")))


def test_chain_ids_of_the_builders_are_the_specification_s() -> None:
    facts = image("a", "b", "c")
    assert tuple(layer.chain_id for layer in facts.layers) == chain_ids([layer.diff_id for layer in facts.layers])
    assert facts.layers[0].chain_id == Digest.of(b"a")


def test_a_decision_later_than_its_approvals_denies() -> None:
    found = replace(case().evidence(data=data(-30 * DAY)), now=NOW + 30 * DAY + timedelta(hours=1))
    assert "parent-not-approved" in reasons(decide(found))
