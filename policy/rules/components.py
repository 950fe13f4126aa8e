"""Lists of components: which may not be there, in which versions, and, if a policy says so, which alone may."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policy.globs import Glob, any_of
from policy.model import Verdict
from policy.ranges import Range
from policy.rules.interface import Kind, Package, View, act, deny, unknown
from policy.rules.licences import Scope
from policy.settings import Action, Check
from policy.shape import GLOB, ListOf, Member, Record, Spelled, Text, Word


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A component that may not be there: a purl glob, the versions that are meant (none: all), and why."""

    purl: Glob
    versions: tuple[Range, ...]
    action: Action
    reason: str
    fix: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The two lists, and which components are looked at."""

    deny: tuple[Denied, ...]
    allow: tuple[Glob, ...]
    components: Scope


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure."""
    allowed = any_of(settings.allow)

    def denied(entry: Denied, package: Package) -> Iterable[Verdict]:
        component = package.component
        if not (entry.purl.matches(package.purl) or entry.purl.matches(package.unversioned)):
            return ()
        inside = [found.contains(component.type, component.version) for found in entry.versions]
        if entry.versions and True not in inside:
            if None not in inside:
                return ()
            message = f"whether {component.purl} is in {' or '.join(map(str, entry.versions))} cannot be told"
            refusal = unknown(rule, "version-not-comparable", component.purl, message, layer=component.layer)
            return act(entry.action, refusal)
        message = f"{component.purl} is on the list of denied components: {entry.reason}"
        refusal = deny(rule, "component-denied", component.purl, message, layer=component.layer, fix=entry.fix)
        return act(entry.action, refusal)

    def check(view: View) -> Iterable[Verdict]:
        for package in view.packages:
            component = package.component
            if settings.components is Scope.OWN and not view.is_own(component.layer):
                continue
            for entry in settings.deny:
                yield from denied(entry, package)
            if settings.allow and not (allowed(package.purl) or allowed(package.unversioned)):
                message = f"{component.purl} is not on the list of allowed components"
                yield deny(rule, "component-not-listed", component.purl, message, layer=component.layer)

    return check


_RANGE = Spelled(Range.parse, 'a version range as ">=1.2, <2"', r"^(<|<=|=|>=|>)[^<>=]", short="version range")

_DENIED = Record(
    Denied,
    {
        "purl": Member(shape=GLOB, about="The component, with or without its version."),
        "versions": Member(
            shape=ListOf(_RANGE, most=20),
            about='Which versions are meant, e.g. `[">=1.2, <2"]`: any of the ranges; an empty list means all.',
            default=(),
        ),
        "action": Member(shape=Word(Action), about="What to do about it.", default="deny"),
        "reason": Member(shape=Text(500), about="Why, for the people who meet the refusal."),
        "fix": Member(shape=Text(500, least=0), about="What to do instead.", default=""),
    },
    "denied component",
)


def idle(settings: Settings) -> str:
    """Why the rule can never fire, "" if it can."""
    loud = settings.allow or any(entry.action is not Action.ALLOW for entry in settings.deny)
    return "" if loud else "both lists are empty, or only allow"


KIND = Kind(
    name="components",
    about="Which components may not be there, or which alone may.",
    reasons={
        "component-denied": "it is on the list `deny`, in one of the versions meant there",
        "component-not-listed": "there is a list `allow`, and it is not on it",
        "version-not-comparable": "its version cannot be compared with the ranges",
    },
    members={
        "deny": Member(shape=ListOf(_DENIED), about="Components that may not be there.", default=()),
        "allow": Member(
            shape=ListOf(GLOB),
            about="Components, by purl with or without version; if the list is not empty, no others may be there.",
            default=(),
        ),
        "components": Member(
            shape=Word(Scope),
            about="Whether all components are looked at, or those of the layers above the parent.",
            default="all",
        ),
    },
    settings=Settings,
    compile=compile_rule,
    idle=idle,
)
