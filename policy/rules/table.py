"""The table of rules: every kind that a policy may name, and the shape of a rule in a policy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from ocispec.strictjson import JsonValue
from policy.errors import PolicyError
from policy.rules import (
    account,
    age,
    any_of,
    components,
    end_of_life,
    exploited,
    licences,
    several_versions,
    shadowing,
    vulnerabilities,
)
from policy.rules.interface import Draft, Kind
from policy.shape import NAME, ListOf, Member, Schema, Text, refuse

DEFINITION: Final = "#/$defs/rule"
"""Where the schema of a rule stands, so that `any-of` can refer to it."""


@dataclass(frozen=True, slots=True)
class RuleShape:
    """A rule in a policy: `rule` names its kind, and the kind says which other settings there are."""

    def parse(self, value: JsonValue, where: str) -> Draft[Any]:
        """See Shape."""
        if not isinstance(value, dict):
            refuse(where, value, "a rule, which is a mapping with the key `rule`")
        name = value.get("rule")
        kind = kinds().get(name) if isinstance(name, str) else None
        if kind is None:
            refuse(f"{where}.rule", name, f"one of {', '.join(kinds())}")
        if where.count("].rules[") > 2:
            raise PolicyError(f"policy: {where}: any-of within any-of within any-of")
        return kind.shape(COMMON).parse(value, where)

    def schema(self) -> Schema:
        """See Shape: a reference, because rules may hold rules."""
        return {"$ref": DEFINITION}

    def name(self) -> str:
        """See Shape."""
        return "rule"


RULE: Final = RuleShape()

COMMON: Final = {
    "rule": Member(shape=Text(60), about="The kind of rule."),
    "name": Member(
        shape=NAME, about="What verdicts and waivers call it; if it is not said, its kind's name.", default=None
    ),
    "levels": Member(
        shape=ListOf(NAME, most=64), about="The levels at which it applies; if none is named, at all.", default=()
    ),
}
"""The settings that all rules have."""


@cache
def kinds() -> dict[str, Kind[Any]]:
    """Every kind by its name, in the order of the documentation."""
    table: tuple[Kind[Any], ...] = (
        shadowing.KIND,
        account.KIND,
        exploited.KIND,
        vulnerabilities.KIND,
        licences.KIND,
        end_of_life.KIND,
        age.KIND,
        components.KIND,
        several_versions.KIND,
        any_of.kind_of(RULE),
    )
    return {kind.name: kind for kind in table}


def rule_schema() -> Schema:
    """The schema of one rule: its kind chooses the rest."""
    names: list[JsonValue] = list(kinds())
    cases: list[JsonValue] = []
    for kind in kinds().values():
        then = kind.shape(COMMON).schema()
        cases.append(
            {"if": {"properties": {"rule": {"const": kind.name}}, "required": ["rule"]}, "then": then},
        )
    return {
        "type": "object",
        "properties": {"rule": {"enum": names}},
        "required": ["rule"],
        "allOf": cases,
    }
