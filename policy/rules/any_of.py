"""Alternatives: a rule made of several, one of which is enough."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from policy.combine import any_of
from policy.rules.interface import Draft, Kind
from policy.settings import Check
from policy.shape import ListOf, Member, Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The alternatives; their `levels` do not count, those of the whole do."""

    rules: tuple[Draft[Any], ...]


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure."""
    compiled = [draft.compiled() for draft in settings.rules]
    return any_of(rule, [(part.name, part.check) for part in compiled])


def audit(settings: Settings) -> Iterable[str]:
    """The problems of the alternatives, and settings of theirs that mean nothing here."""
    for draft in settings.rules:
        yield from (f"{draft.name}: {problem}" for problem in draft.problems())
        if draft.levels:
            yield f"{draft.name}: levels: only those of the any-of rule count"


def kind_of(rule: Shape[Draft[Any]]) -> Kind[Settings]:
    """The kind, given the shape of a rule, which this one is part of."""
    return Kind(
        name="any-of",
        about="One of several rules is enough.",
        reasons={},
        members={
            "rules": Member(
                shape=ListOf(rule, least=2, most=20),
                about="The rules, one of which must have nothing against the image; the first that has not decides.",
            ),
        },
        settings=Settings,
        compile=compile_rule,
        audit=audit,
    )
