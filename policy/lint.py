"""What is wrong with a policy document, and what is allowed but rarely meant.

Errors are what `load` refuses. Warnings are rules that can never fire, exceptions without an end, people who cannot
exist, and doors left open; a policy with warnings works.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Final

from policy.document import read_document
from policy.errors import PolicyError
from policy.load import contradictions, parse, rule_problems
from policy.schema import schema_problems
from policy.settings import Action, spell_duration
from policy.statements import Role
from policy.vocabulary import BUILT_IN, NEVER_WAIVED, Document

MAX_WAIVER: Final = timedelta(days=366)
"""A waiver that lasts longer is a change of the policy."""

MAX_LIST: Final = timedelta(days=7)
MAX_CLEARANCE: Final = timedelta(days=90)
"""What a host lets a dated list and a clearance hold, whatever a policy says (`revocation.py`, `clearance.py`)."""

_EXPECTED: Final = ("exploited", "vulnerabilities", "licences", "end-of-life", "shadowing", "account")
_NEVER_IGNORED: Final = ("database-contradicts-files", "unreadable-record", "unreadable-version")


class Weight(StrEnum):
    """Whether a problem keeps a policy from being loaded."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing that is wrong, or rarely meant; `text` says where, got and expected."""

    weight: Weight
    text: str

    def __str__(self) -> str:
        return f"{self.weight}: {self.text}"


def lint(document: bytes) -> list[Problem]:
    """Every problem of `document`, errors first; an empty list means that there is nothing to say. Never raises."""
    try:
        value = read_document(document)
        errors = list(schema_problems(value))
        parsed = None if errors else parse(value)
    except PolicyError as error:
        return [Problem(weight=Weight.ERROR, text=str(error))]
    if parsed is None:
        return [Problem(weight=Weight.ERROR, text=text) for text in errors]
    errors += [*contradictions(parsed), *rule_problems(parsed)]
    found = [Problem(weight=Weight.ERROR, text=text) for text in errors]
    return found + [Problem(weight=Weight.WARNING, text=f"policy: {text}") for text in _warnings(parsed)]


def _warnings(document: Document) -> Iterator[str]:
    yield from _levels(document)
    yield from _rules(document)
    yield from _waivers(document)
    yield from _scan(document)
    yield from _lifetimes(document)


def _levels(document: Document) -> Iterator[str]:
    reachable: set[str] = set()
    for index, level in enumerate(document.levels):
        where = f"levels[{index}]"
        if level.needs_parent and not reachable & set(level.stands_on):
            yield f"{where}: no image can ever reach level {level.name}: nothing that it stands on can be reached"
        else:
            reachable.add(level.name)
        if level.approval.max_age is None:
            yield f"{where}.approval.max_age: not said, so approvals for {level.name} may have any end, or hardly one"
        if not level.config.env_deny:
            yield f"{where}.config.env_deny: empty, so LD_PRELOAD and its like may differ if env may"
        if document.rules and not any(not rule.levels or level.name in rule.levels for rule in document.rules):
            yield f"rules: none applies at level {level.name}, so every image of it is denied"


def _rules(document: Document) -> Iterator[str]:
    if not document.rules:
        yield "rules: empty, so everything is denied"
        return
    roots = {level.name for level in document.levels if not level.stands_on}
    for index, rule in enumerate(document.rules):
        idle = rule.kind.idle(rule.settings)
        if not idle and rule.kind.name == "shadowing" and rule.levels and set(rule.levels) <= roots:
            idle = "its levels have no parent"
        if idle:
            yield f"rules[{index}]: rule {rule.name} can never fire: {idle}"
    missing = [kind for kind in _EXPECTED if kind not in {rule.kind.name for rule in document.rules}]
    if missing:
        yield f"rules: there is none of the kind {', '.join(missing)}"


def _waivers(document: Document) -> Iterator[str]:
    names = [rule.name for rule in document.rules] + [name for name in BUILT_IN if name not in NEVER_WAIVED]
    whole: set[str] = set()
    for index, terms in enumerate(document.waivers):
        where = f"waivers[{index}]"
        if all(any(role is Role.TEAM for role, _ in quorum.counts) for quorum in terms.by):
            yield f"{where}.by: nobody can meet it: trust.json lets only officers sign waivers"
        if terms.max_duration > MAX_WAIVER:
            yield f"{where}.max_duration: {spell_duration(terms.max_duration)} is hardly an end"
        if terms.max_duration <= timedelta(0):
            yield f"{where}.max_duration: no waiver is that short"
        covered = [name for name in terms.rules if name in whole]
        if covered:
            yield f"{where}.rules: an earlier entry decides about {', '.join(covered)} already"
        for name in set(terms.rules) & {"hierarchy", "config"}:
            yield f"{where}.rules: a waiver of {name} puts one signature above all approvals"
        whole |= set(terms.rules) if not terms.levels else set()
    named = {name for terms in document.waivers for name in terms.rules}
    unwaivable = [name for name in names if name not in named and name not in {"hierarchy", "config", "freshness"}]
    if unwaivable:
        yield f"waivers: nobody can waive {', '.join(unwaivable)}"


def _scan(document: Document) -> Iterator[str]:
    if not document.scan.data:
        yield "scan.data: empty, so the age of advisory records is not looked at"
    for index, unknown in enumerate(document.scan.unknowns):
        if unknown.code in _NEVER_IGNORED and unknown.action is not Action.DENY and not unknown.subjects:
            yield f"scan.unknowns[{index}]: {unknown.code} is let pass everywhere: forged evidence shows as that"


def _lifetimes(document: Document) -> Iterator[str]:
    if document.clearance.lifetime > MAX_CLEARANCE:
        yield f"clearance.lifetime: hosts refuse more than {spell_duration(MAX_CLEARANCE)}"
    if document.clearance.lifetime > document.start.max_clearance_age:
        yield "clearance.lifetime: longer than start.max_clearance_age, so hosts stop believing before it ends"
    if document.revocation.lifetime > MAX_LIST:
        yield f"revocation.lifetime: hosts refuse more than {spell_duration(MAX_LIST)}"
