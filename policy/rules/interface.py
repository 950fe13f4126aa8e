"""What a rule is: settings of one shape, compiled to one closure over one image's evidence.

A rule says nothing about what it has nothing against; `evaluate` adds one Allow for it. It never decides what a
refusal leads to: that is the same for all of them. A rule that raises is a refusal, with its own reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar

from policy.hierarchy import Standing
from policy.model import Evidence, Note, Outcome, Verdict
from policy.settings import Action, Check, Rule
from policy.shape import Member, Record
from scanner.model import Component

S = TypeVar("S")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A component with its purl cut into what globs are matched with: without qualifiers, and without version."""

    component: Component
    purl: str
    unversioned: str


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a rule sees: the evidence, the place in the hierarchy that is judged, and the packages made ready."""

    evidence: Evidence
    standing: Standing
    packages: tuple[Package, ...]

    @classmethod
    def of(cls, evidence: Evidence, standing: Standing) -> View:
        """The view of `evidence` in the place `standing`."""
        return cls(evidence=evidence, standing=standing, packages=tuple(map(package_of, evidence.components)))

    def at(self, standing: Standing) -> View:
        """The same evidence in another place."""
        return View(evidence=self.evidence, standing=standing, packages=self.packages)

    @property
    def level(self) -> str:
        """The name of the level that is judged, "" if there is none."""
        return self.standing.level.name if self.standing.level is not None else ""

    def is_own(self, layer: int) -> bool:
        """True for a layer above the parent."""
        return layer >= self.standing.own_from


def package_of(component: Component) -> Package:
    """Cut a component's purl (package URL specification: qualifiers after `?`, version after the last `@`)."""
    purl, unversioned = split_purl(component.purl)
    return Package(component=component, purl=purl, unversioned=unversioned)


def split_purl(purl: str) -> tuple[str, str]:
    """A purl without qualifiers and subpath, and that without its version."""
    bare = purl.partition("#")[0].partition("?")[0]
    # A scoped npm name is `%40scope/name`, so the last `@` after the last slash is the version's.
    head, slash, name = bare.rpartition("/")
    return bare, f"{head}{slash}{name.partition('@')[0]}"


def _nothing(_settings: object) -> Iterable[str]:
    return ()


def _never_idle(_settings: object) -> str:
    return ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind(Generic[S]):
    """A kind of rule: its name in policies, its settings, the reasons that it gives, and its compiler.

    `compile` gets the settings and the name of the rule in the policy, which its verdicts carry. `audit` says what
    is wrong with settings beyond their shape, `idle` why a rule with them can never fire ("" if it can); both are
    asked when a policy is written, not when one is used.
    """

    name: str
    about: str
    reasons: Mapping[str, str]
    members: Mapping[str, Member]
    settings: Callable[..., S]
    compile: Callable[[S, str], Check]
    audit: Callable[[S], Iterable[str]] = _nothing
    idle: Callable[[S], str] = _never_idle

    def shape(self, common: Mapping[str, Member]) -> Record[Draft[S]]:
        """The shape of a rule of this kind in a policy: its own settings, and those that all rules have."""
        return Record(self._draft, {**common, **self.members}, f"a rule `{self.name}`")

    def _draft(self, *, rule: str, name: str | None, levels: tuple[str, ...], **settings: Any) -> Draft[S]:
        # `Record` parsed each setting by its Member's shape, so the values are of the fields' types.
        return Draft(kind=self, name=name or rule, levels=levels, settings=self.settings(**settings))


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft(Generic[S]):
    """A rule as it was read, before it is compiled."""

    kind: Kind[S]
    name: str
    levels: tuple[str, ...]
    settings: S

    def problems(self) -> Iterable[str]:
        """What is wrong with the settings, beyond their shape."""
        return self.kind.audit(self.settings)

    def compiled(self) -> Rule:
        """The rule as a closure."""
        check = self.kind.compile(self.settings, self.name)
        return Rule(name=self.name, kind=self.kind.name, levels=frozenset(self.levels), check=check)


def deny(
    rule: str,
    reason: str,
    subject: str,
    message: str,
    *,
    layer: int | None = None,
    fix: str = "",
    ids: tuple[str, ...] = (),
) -> Verdict:
    """A refusal."""
    return Verdict(
        rule=rule,
        outcome=Outcome.DENY,
        reason=reason,
        subject=subject,
        message=message,
        layer=layer,
        fix=fix,
        ids=ids,
    )


def unknown(
    rule: str,
    reason: str,
    subject: str,
    message: str,
    *,
    layer: int | None = None,
    fix: str = "",
    ids: tuple[str, ...] = (),
) -> Verdict:
    """Something that cannot be told, and so is not allowed."""
    return Verdict(
        rule=rule,
        outcome=Outcome.UNKNOWN,
        reason=reason,
        subject=subject,
        message=message,
        layer=layer,
        fix=fix,
        ids=ids,
    )


def softened(verdict: Verdict, note: Note, until: datetime | None = None) -> Verdict:
    """A refusal turned into an Allow with a note."""
    return Verdict(
        rule=verdict.rule,
        outcome=Outcome.ALLOW,
        reason=verdict.reason,
        subject=verdict.subject,
        message=verdict.message,
        layer=verdict.layer,
        fix=verdict.fix,
        until=until,
        note=note,
        ids=verdict.ids,
    )


def act(action: Action, refusal: Verdict) -> Iterable[Verdict]:
    """What an action makes of a refusal: itself, a warning, or nothing."""
    if action is Action.DENY:
        return (refusal,)
    return (softened(refusal, Note.WARNING),) if action is Action.WARN else ()


def with_grace(refusal: Verdict, since: str, grace: timedelta, now: datetime, clock: str) -> Verdict:
    """The refusal, or an Allow in grace that ends `grace` after the day `since` (YYYY-MM-DD).

    Without a day, or with one in the future, there is nothing to measure from: Unknown. `clock` says in words
    what happened on that day.
    """
    if not grace:
        return refusal
    start = parse_day(since)
    if start is None or start > now:
        return unknown(
            refusal.rule,
            "grace-not-measurable",
            refusal.subject,
            f"{refusal.message}; the day on which {clock} is {since or 'not known'}, so no grace can be measured",
            layer=refusal.layer,
            fix=refusal.fix,
            ids=refusal.ids,
        )
    end = start + grace
    return refusal if now >= end else softened(refusal, Note.GRACE, end)


def parse_day(text: str) -> datetime | None:
    """Midnight UTC of a day YYYY-MM-DD, or of an RFC 3339 time's day; None if the text is neither."""
    try:
        return datetime.fromisoformat(text[:10] + "T00:00:00+00:00") if len(text) >= 10 else None
    except ValueError:
        return None
