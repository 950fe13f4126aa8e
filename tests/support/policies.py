"""Builders of policies: the default one with sections replaced, and one rule judged alone."""

from __future__ import annotations

import json
from typing import Any

from policy.document import read_document
from policy.evaluate import evaluate
from policy.load import default_document, load
from policy.model import Evidence, Verdict
from policy.settings import Policy


def document(**members: Any) -> bytes:
    """The default policy as JSON, with these members in place of its own; None takes a member away."""
    value = read_document(default_document()) | members
    return json.dumps({key: member for key, member in value.items() if member is not None}).encode()


def policy(**members: Any) -> Policy:
    """The default policy with these members in place of its own."""
    return load(document(**members))


def with_rules(*rules: dict[str, Any], **members: Any) -> Policy:
    """A policy with just these rules, and no waivers unless `members` has some."""
    return policy(**({"waivers": [], "rules": list(rules)} | members))


def verdicts_of(rule: dict[str, Any], found: Evidence) -> list[Verdict]:
    """What one rule says of `found`, the one that it passed left out."""
    decision = evaluate(with_rules(rule), found)
    name = rule.get("name", rule["rule"])
    return [verdict for verdict in decision.verdicts if verdict.rule == name and verdict.reason != "passed"]


def reasons_of(rule: dict[str, Any], found: Evidence) -> list[str]:
    """The outcome and reason of each of those: `deny vulnerable-package`; the note of an Allow stands for it."""
    return [f"{verdict.note or verdict.outcome} {verdict.reason}" for verdict in verdicts_of(rule, found)]
