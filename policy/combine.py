"""Running rules: each one guarded, all of them, or one of several; nothing said is never a pass by itself.

A rule that raises is `Unknown` with its error as the reason, never skipped. An empty set of rules refuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from policy.model import Outcome, Verdict

V = TypeVar("V")

MAX_VERDICTS = 20_000
"""Verdicts of one rule; beyond them the rule is a refusal by itself."""


def run(name: str, check: Callable[[V], Iterable[Verdict]], view: V, subject: str) -> tuple[Verdict, ...]:
    """What rule `name` says of `view`, in a fixed order; one Allow about `subject` if it says nothing.

    Never raises for what a rule does: a crash, or more than MAX_VERDICTS, is a verdict.
    """
    found: list[Verdict] = []
    try:
        for verdict in check(view):
            found.append(verdict)
            if len(found) > MAX_VERDICTS:
                found.append(_failed(name, subject, f"more than {MAX_VERDICTS} verdicts"))
                break
    except Exception as error:  # whatever a rule does wrong is a refusal, and none may be skipped
        found.append(_failed(name, subject, f"{type(error).__name__}: {str(error)[:300]}"))
    if not found:
        message = f"{name}: nothing against it"
        return (Verdict(rule=name, outcome=Outcome.ALLOW, reason="passed", subject=subject, message=message),)
    return tuple(sorted(set(found), key=_order))


def all_of(rules: Sequence[tuple[str, Callable[[V], Iterable[Verdict]]]], view: V, subject: str) -> tuple[Verdict, ...]:
    """What every rule says, rule by rule; a refusal if there is no rule at all."""
    if not rules:
        return (_empty("policy", subject),)
    return tuple(verdict for name, check in rules for verdict in run(name, check, view, subject))


def any_of(
    name: str, rules: Sequence[tuple[str, Callable[[V], Iterable[Verdict]]]]
) -> Callable[[V], Iterable[Verdict]]:
    """One rule made of several: it has nothing against what one of them has nothing against.

    If all of them refuse, so does it, with the reasons of each. Its verdicts carry its own name, so that a waiver
    names the whole.
    """

    def check(view: V) -> Iterable[Verdict]:
        if not rules:
            return [_empty(name, "")]
        refused: list[Verdict] = []
        for child, part in rules:
            verdicts = run(child, part, view, "")
            if all(verdict.outcome is Outcome.ALLOW for verdict in verdicts):
                return [replace(verdict, rule=name) for verdict in verdicts if verdict.reason != "passed"]
            refused += [
                replace(verdict, rule=name, message=f"{child}: {verdict.message}")
                for verdict in verdicts
                if verdict.outcome is not Outcome.ALLOW
            ]
        return refused

    return check


def _empty(name: str, subject: str) -> Verdict:
    message = "there are no rules here, so nothing says that this is allowed"
    return Verdict(rule=name, outcome=Outcome.DENY, reason="empty-policy", subject=subject, message=message)


def _failed(name: str, subject: str, what: str) -> Verdict:
    return Verdict(
        rule=name,
        outcome=Outcome.UNKNOWN,
        reason="rule-failed",
        subject=subject,
        message=f"rule {name} could not be decided: {what}",
    )


def _order(verdict: Verdict) -> tuple[int, int, str, str, str, tuple[str, ...]]:
    """Refusals first, then by layer, subject and reason: the same whatever order the evidence came in."""
    layer = -1 if verdict.layer is None else verdict.layer
    refusal = 1 if verdict.outcome is Outcome.ALLOW else 0
    return (refusal, layer, verdict.subject, verdict.reason, verdict.message, verdict.ids)
