"""A Decision for people, and as the tree that a registry's 403 carries.

Both are made of the same fields, so that what a machine reads is what a person was shown: the state, the first
reason, then each refusal with its rule, layer, package, fix and who can waive it, then what is waived, in grace or
warned about, then what passed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ocispec.strictjson import JsonValue
from policy.model import Decision, Note, Outcome, State, Verdict
from policy.times import format_time

MAX_SHOWN = 50
"""Verdicts of one kind that are listed; the rest is counted. `encode_decision` has all of them."""

_HEADS = {
    State.QUARANTINED: "not decided yet",
    State.CLEARED: "may start",
    State.WARNING: "may start, with warnings",
    State.GRACE: "may start until its grace ends",
    State.DENIED: "may not start",
    State.REVOKED: "is revoked, and may not start",
}


def explain(decision: Decision) -> dict[str, JsonValue]:
    """The Decision as a JSON tree: state, first reason, and each verdict of interest field by field."""
    tree: dict[str, JsonValue] = {
        "image": str(decision.image),
        "state": str(decision.state),
        "allowed": decision.allowed,
        "reason": first_reason(decision),
        "level": decision.level,
        "parent": str(decision.parent) if decision.parent is not None else None,
        "policy": {
            "name": decision.policy_name,
            "version": decision.policy_version,
            "digest": str(decision.policy),
        },
        "evidence": str(decision.evidence),
        "taken": format_time(decision.taken),
        "until": format_time(decision.valid_until) if decision.valid_until is not None else None,
    }
    for name, verdicts in _groups(decision):
        tree[name] = [_fields(verdict) for verdict in verdicts[:MAX_SHOWN]]
        if len(verdicts) > MAX_SHOWN:
            tree[f"{name}_not_shown"] = len(verdicts) - MAX_SHOWN
    tree["passed"] = [verdict.rule for verdict in decision.verdicts if _passed(verdict)]
    return tree


def explain_lines(decision: Decision) -> tuple[str, ...]:
    """The same as lines of text, each refusal with a line for every field that it has."""
    policy = f"policy {decision.policy_name} version {decision.policy_version}"
    lines = [
        f"{decision.state}: image {decision.image} {_HEADS[decision.state]}",
        f"  under {policy}, at {format_time(decision.taken)}" + (f", as {decision.level}" if decision.level else ""),
    ]
    if decision.parent is not None:
        lines.append(f"  on the approved image {decision.parent}")
    if decision.valid_until is not None and decision.allowed:
        lines.append(f"  until {format_time(decision.valid_until)} at most")
    for name, verdicts in _groups(decision):
        for verdict in verdicts[:MAX_SHOWN]:
            lines += ["", *_verdict_lines(name, verdict)]
        if len(verdicts) > MAX_SHOWN:
            lines += ["", f"  and {len(verdicts) - MAX_SHOWN} more {name}"]
    passed = [verdict.rule for verdict in decision.verdicts if _passed(verdict)]
    if passed:
        lines += ["", f"  passed: {', '.join(passed)}"]
    return tuple(lines)


def first_reason(decision: Decision) -> str:
    """One line: the first refusal, or what the state rests on."""
    for note in (None, Note.GRACE, Note.WARNING):
        for verdict in decision.verdicts:
            refused = verdict.outcome is not Outcome.ALLOW
            if (note is None and refused) or (note is not None and not refused and verdict.note is note):
                return f"{verdict.rule}: {verdict.reason}: {verdict.message}"
    how = next((verdict.message for verdict in decision.verdicts if verdict.reason == "approved"), "")
    return how or str(decision.state)


def _groups(decision: Decision) -> Iterable[tuple[str, Sequence[Verdict]]]:
    """The verdicts by what they mean for the reader."""
    allowed = [verdict for verdict in decision.verdicts if verdict.outcome is Outcome.ALLOW]
    return (
        ("refusals", decision.refusals),
        ("waived", [verdict for verdict in allowed if verdict.note is Note.WAIVED]),
        ("grace", [verdict for verdict in allowed if verdict.note is Note.GRACE]),
        ("warnings", [verdict for verdict in allowed if verdict.note is Note.WARNING]),
        ("notes", [verdict for verdict in allowed if verdict.note is Note.NONE and verdict.reason != "passed"]),
    )


def _passed(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.ALLOW and verdict.reason == "passed"


def _fields(verdict: Verdict) -> dict[str, JsonValue]:
    """One verdict; members that say nothing are left out."""
    members: dict[str, JsonValue] = {
        "rule": verdict.rule,
        "outcome": str(verdict.outcome),
        "reason": verdict.reason,
        "subject": verdict.subject,
        "message": verdict.message,
    }
    optional: dict[str, JsonValue] = {
        "fix": verdict.fix,
        "waivable_by": verdict.waivable_by,
        "waived_by": verdict.waived_by,
        "note": str(verdict.note),
        "ids": list(verdict.ids),
    }
    members |= {name: value for name, value in optional.items() if value}
    if verdict.layer is not None:
        members["layer"] = verdict.layer
    if verdict.until is not None:
        members["until"] = format_time(verdict.until)
    return members


_WORDS = {"refusals": "refused", "waived": "waived", "grace": "in grace", "warnings": "warning", "notes": "note"}


def _verdict_lines(group: str, verdict: Verdict) -> list[str]:
    unknown = " (cannot be told, so not allowed)" if verdict.outcome is Outcome.UNKNOWN else ""
    lines = [f"  {_WORDS[group]}: {verdict.rule}: {verdict.reason}{unknown}", f"    {_printable(verdict.message)}"]
    if verdict.layer is not None:
        lines.append(f"    layer: {verdict.layer}")
    named = "package" if verdict.subject.startswith("pkg:") else "object"
    lines.append(f"    {named}: {_printable(verdict.subject)}")
    if verdict.ids:
        lines.append(f"    known as: {', '.join(map(_printable, verdict.ids))}")
    if verdict.fix:
        lines.append(f"    fix: {_printable(verdict.fix)}")
    if group == "refusals":
        lines.append(f"    can be waived by: {verdict.waivable_by or 'nobody'}")
    if verdict.waived_by:
        lines.append(f"    waiver: {verdict.waived_by}")
    if verdict.until is not None:
        lines.append(f"    until: {format_time(verdict.until)}")
    return lines


def _printable(text: str) -> str:
    """Text that may come from an image: no control character of it reaches a terminal."""
    return "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in text)
