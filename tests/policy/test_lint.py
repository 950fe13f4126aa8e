"""Lint: errors as `load` has them, and what is allowed but rarely meant."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from policy.document import read_document
from policy.lint import Weight, lint
from policy.load import default_document, load
from tests.support.policies import document

DEFAULT = read_document(default_document())
LEVELS: Any = DEFAULT["levels"]
RULES: Any = DEFAULT["rules"]


def said(**members: Any) -> str:
    """Everything that lint says of the default policy with these members."""
    return "\n".join(map(str, lint(document(**members))))


def level(name: str, **changes: Any) -> list[Any]:
    """The default levels, one of them changed."""
    levels = copy.deepcopy(LEVELS)
    for one in levels:
        if one["name"] == name:
            one.update(changes)
    return list(levels)


def test_the_default_policy_has_no_problem() -> None:
    assert lint(default_document()) == []


@pytest.mark.parametrize("raw", [b"", b"\xff", b"a: 1", document(version=0), document(start={"levels": ["gold"]})])
def test_what_load_refuses_is_an_error(raw: bytes) -> None:
    assert Weight.ERROR in {problem.weight for problem in lint(raw)}


def test_a_licence_id_that_spdx_has_not_is_an_error_and_the_warnings_are_told_as_well() -> None:
    found = lint(document(rules=[{"rule": "licences", "allow": ["MTI"]}], waivers=[]))
    assert [problem.weight for problem in found] == [Weight.ERROR, *[Weight.WARNING] * (len(found) - 1)]
    assert "MTI" in str(found[0])


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        ({"rule": "exploited", "with_fix": "allow", "without_fix": "allow"}, "both actions are allow"),
        (
            {"rule": "vulnerabilities"}
            | {
                name: {"with_fix": {"action": "allow"}, "without_fix": {"action": "allow"}}
                for name in ("critical", "high", "medium", "low", "none")
            },
            "every action is allow",
        ),
        ({"rule": "licences", "unknown": "allow"}, "both lists are empty"),
        ({"rule": "age"}, "it has no bound"),
        ({"rule": "components"}, "both lists are empty, or only allow"),
        ({"rule": "several-versions", "action": "allow"}, "its action is allow"),
        ({"rule": "shadowing", "levels": ["base"]}, "its levels have no parent"),
    ],
)
def test_a_rule_that_can_never_fire_is_told(rule: dict[str, Any], why: str) -> None:
    assert f"rule {rule['rule']} can never fire: {why}" in said(rules=[rule], waivers=[])


@pytest.mark.parametrize(
    ("members", "text"),
    [
        ({"rules": [], "waivers": []}, "rules: empty, so everything is denied"),
        (
            {"rules": [{"rule": "age", "most": "9d", "levels": ["base"]}], "waivers": []},
            "none applies at level application",
        ),
        ({"rules": [{"rule": "age", "most": "9d"}], "waivers": []}, "there is none of the kind exploited, vulnerab"),
        ({"waivers": []}, "waivers: nobody can waive exploited, vulnerabilities"),
        (
            {"waivers": [{"rules": ["age"], "by": [{"team": 1}], "max_duration": "9d"}]},
            "waivers[0].by: nobody can meet it: trust.json lets only officers sign waivers",
        ),
        (
            {"waivers": [{"rules": ["age"], "by": [{"officer": 1}], "max_duration": "9999d"}]},
            "waivers[0].max_duration: 9999 days is hardly an end",
        ),
        (
            {"waivers": [{"rules": ["age"], "by": [{"officer": 1}], "max_duration": "0d"}]},
            "waivers[0].max_duration: no waiver is that short",
        ),
        (
            {"waivers": [{"rules": ["age"], "by": [{"officer": 1}], "max_duration": "9d"}] * 2},
            "waivers[1].rules: an earlier entry decides about age already",
        ),
        (
            {"waivers": [{"rules": ["config"], "by": [{"officer": 1}], "max_duration": "9d"}]},
            "a waiver of config puts one signature above all approvals",
        ),
        ({"scan": {}}, "scan.data: empty"),
        (
            {"scan": {"unknowns": [{"code": "database-contradicts-files", "action": "warn"}]}},
            "database-contradicts-files is let pass everywhere",
        ),
        ({"clearance": {"lifetime": "91d"}}, "clearance.lifetime: hosts refuse more than 90 days"),
        ({"clearance": {"lifetime": "8d"}}, "longer than start.max_clearance_age"),
        ({"revocation": {"lifetime": "8d"}}, "revocation.lifetime: hosts refuse more than 7 days"),
        (
            {"levels": level("application", approval={"accepts": "image", "image": [{"team": 1}]})},
            "levels[2].approval.max_age: not said",
        ),
        ({"levels": level("application", config={"env_deny": []})}, "levels[2].config.env_deny: empty, so LD_PRELOAD"),
        (
            {"levels": level("base", needs_parent=True, stands_on=["base"])},
            "levels[0]: no image can ever reach level base",
        ),
    ],
)
def test_what_is_rarely_meant_is_told_and_loads(members: dict[str, Any], text: str) -> None:
    assert text in said(**members)
    load(document(**members))
