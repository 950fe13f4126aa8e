"""Several versions of one tool: the first thing that an auditor asks about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from policy.globs import Glob, any_of
from policy.model import Verdict
from policy.rules.interface import Kind, View, act, deny
from policy.settings import Action, Check
from policy.shape import GLOB, Integer, ListOf, Member, Word
from scanner.model import Component


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many versions of one component there may be, and what to do about more."""

    most: int
    action: Action
    ignore: tuple[Glob, ...]


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure."""
    ignored = any_of(settings.ignore)

    def check(view: View) -> Iterable[Verdict]:
        found: dict[str, dict[str, Component]] = {}
        for package in view.packages:
            versions = found.setdefault(package.unversioned, {})
            known = versions.get(package.component.version)
            if known is None or package.component.layer < known.layer:
                versions[package.component.version] = package.component
        for purl, versions in sorted(found.items()):
            if len(versions) <= settings.most or ignored(purl):
                continue
            where = ", ".join(f"{version} (layer {versions[version].layer})" for version in sorted(versions))
            message = f"{len(versions)} versions of {purl}: {where}"
            layer = max(component.layer for component in versions.values())
            yield from act(
                settings.action,
                deny(rule, "several-versions", purl, message, layer=layer, fix="keep one of them"),
            )

    return check


def idle(settings: Settings) -> str:
    """Why the rule can never fire, "" if it can."""
    return "its action is allow" if settings.action is Action.ALLOW else ""


KIND = Kind(
    name="several-versions",
    about="How many versions of one component an image may hold.",
    reasons={"several-versions": "more than `most` versions of one component"},
    members={
        "most": Member(shape=Integer(1, 100), about="How many versions there may be.", default=1),
        "action": Member(shape=Word(Action), about="What to do about more.", default="warn"),
        "ignore": Member(
            shape=ListOf(GLOB), about="Components, by purl without version, that may have any number.", default=()
        ),
    },
    settings=Settings,
    compile=compile_rule,
    idle=idle,
)
