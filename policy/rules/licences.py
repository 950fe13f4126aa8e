"""Licences: SPDX expressions against lists of what is permitted. A licence that is not known is not permitted."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache

from policy.errors import PolicyError
from policy.globs import Glob, any_of
from policy.model import Verdict
from policy.rules.interface import Kind, View, act, deny, unknown
from policy.settings import Action, Check
from policy.shape import GLOB, ListOf, Member, Text, Word
from policy.spdx import Expression, LicenceList, canonical_item, licences_of, parse_expression


class Scope(StrEnum):
    """Which components a rule looks at: all, or those of the layers above the parent."""

    ALL = "all"
    OWN = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The lists, what to do about unknown licences, and which components are looked at."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]
    unknown: Action
    components: Scope
    ignore: tuple[Glob, ...]


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure; the lists are read when the first image is judged, not on a host that only starts some."""
    ignored = any_of(settings.ignore)

    @cache
    def permits() -> object:
        return LicenceList(settings.allow, settings.deny).permits()

    @lru_cache(maxsize=4096)
    def judge(text: str) -> tuple[Expression | None, bool]:
        expression = parse_expression(text)
        decide = permits()
        return expression, expression is not None and callable(decide) and bool(decide(expression))

    def check(view: View) -> Iterable[Verdict]:
        for package in view.packages:
            component = package.component
            if settings.components is Scope.OWN and not view.is_own(component.layer):
                continue
            expression, permitted = judge(component.licences)
            if permitted or ignored(package.purl) or ignored(package.unversioned):
                continue
            yield from _refuse(rule, settings, component.purl, component.layer, component.licences, expression)

    return check


def _refuse(
    rule: str, settings: Settings, purl: str, layer: int, text: str, expression: Expression | None
) -> Iterable[Verdict]:
    if expression is None:
        shown = f"{text[:80]!r}, which is no SPDX expression of known licences" if text else "not known"
        message = f"the licence of {purl} is {shown}"
        return act(settings.unknown, unknown(rule, "licence-unknown", purl, message, layer=layer))
    names = ", ".join(str(licence) for licence in licences_of(expression))
    message = f"{purl} is under {text[:200]}, which the policy does not allow"
    fix = f"replace it; the lists were asked for {names}"
    return (deny(rule, "licence-not-allowed", purl, message, layer=layer, fix=fix),)


def audit(settings: Settings) -> Iterable[str]:
    """What is wrong with the lists: ids that SPDX does not have."""
    for name, items in (("allow", settings.allow), ("deny", settings.deny)):
        for item in items:
            try:
                canonical_item(item)
            except PolicyError as error:
                yield f"{name}: {error}"


_ITEM = Text(200, "", "one SPDX licence id, `id WITH exception`, or a glob over ids", short="licence")


def idle(settings: Settings) -> str:
    """Why the rule can never fire, "" if it can."""
    silent = not settings.allow and not settings.deny and settings.unknown is Action.ALLOW
    return "both lists are empty and unknown licences are allowed" if silent else ""


KIND = Kind(
    name="licences",
    about="Which licences components may have.",
    reasons={
        "licence-not-allowed": "no choice that the expression offers is permitted",
        "licence-unknown": "the component's licence is not known, or is no SPDX expression",
    },
    members={
        "allow": Member(
            shape=ListOf(_ITEM),
            about="Licences that are permitted; if the list is empty, all that are not denied.",
            default=(),
        ),
        "deny": Member(shape=ListOf(_ITEM), about="Licences that are not, even if `allow` fits them.", default=()),
        "unknown": Member(shape=Word(Action), about="What to do about unknown licences.", default="deny"),
        "components": Member(
            shape=Word(Scope),
            about="Whether all components are looked at, or those of the layers above the parent.",
            default="all",
        ),
        "ignore": Member(shape=ListOf(GLOB), about="Components, by purl, that are not looked at.", default=()),
    },
    settings=Settings,
    compile=compile_rule,
    idle=idle,
    audit=audit,
)
