"""Rules that admins set for repositories while the registry runs: what kinds there are, and what each says. Pure.

A rule is a glob over repositories (for a quota also `account:<name>`), a kind, and a value; there is one of each kind
for a pattern. A repository is under every rule whose pattern matches it: a rule for fewer repositories never takes
away from one for more. Rules bind people, robots and builds, never the registry's own judge and signer.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Final, Protocol

from ocispec.errors import SpecError
from ocispec.fields import JsonObject, integer, texts
from ocispec.strictjson import parse_object
from policy import canonical
from registry.access import is_glob, matching
from registry.collect.retention import Retention
from registry.errors import RuleError

MAX_VALUE: Final = 16 * 1024
MAX_PATTERNS: Final = 100
MAX_NUMBER: Final = 2**53 - 1
"""Beyond it JSON's numbers are not exact (R11)."""

OF_ACCOUNT: Final = "account:"
"""How the pattern of a rule for what one account brings begins."""

_TAGS: Final = re.compile(r"[A-Za-z0-9_*?.-]{1,128}", re.ASCII)
_ACCOUNT: Final = re.compile(r"[!-~]{1,200}", re.ASCII)


class Kind(StrEnum):
    """What a rule is about."""

    IMMUTABLE = "immutable"
    QUOTA = "quota"
    RETENTION = "retention"


class Value(Protocol):
    """What a rule of one kind says."""

    def to_json(self) -> dict[str, canonical.Canonical]:
        """The value as its kind's `from_json` reads it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Immutable:
    """Tags that are made once: whoever may create them can neither move nor delete them, with whatever rights.

    `tags` and `exceptions` are globs over tags. What such a tag points to, or is served from, cannot be deleted
    either. Only an admin lifts it, by changing the rule, and that is recorded.
    """

    tags: tuple[str, ...]
    exceptions: tuple[str, ...] = ()

    def holds(self, tag: str) -> bool:
        """True if `tag` is one of them."""
        return any(fnmatch.fnmatchcase(tag, glob) for glob in self.tags) and not any(
            fnmatch.fnmatchcase(tag, glob) for glob in self.exceptions
        )

    def to_json(self) -> dict[str, canonical.Canonical]:
        """See `Value`."""
        return {"tags": list(self.tags), "except": list(self.exceptions)}

    @classmethod
    def from_json(cls, members: JsonObject, *, what: str) -> Immutable:
        """The value that `to_json` wrote.

        Raises:
            SpecError, RuleError: it is none.
        """
        _refuse_others(members, {"tags", "except"}, what)
        found = cls(tags=_tag_globs(members, "tags", what), exceptions=_tag_globs(members, "except", what))
        if not found.tags:
            raise RuleError(f"{what}: tags is empty, expected globs over tags")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """An amount of each thing that quotas count.

    `bytes` are those of blobs and manifests, once for each repository that holds them: nobody can tell from what is
    left whether a repository that they may not read has a blob too (R4).
    """

    bytes: int = 0
    repositories: int = 0
    manifests: int = 0
    tags: int = 0

    def __neg__(self) -> Amount:
        """As much less."""
        return Amount(**{name: -getattr(self, name) for name in COUNTED})

    def __add__(self, other: Amount) -> Amount:
        """Both."""
        return Amount(**{name: getattr(self, name) + getattr(other, name) for name in COUNTED})


COUNTED: Final = tuple(field.name for field in fields(Amount))


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """The most that there may be of each; None is no limit. What is too much already stays, and can be deleted."""

    bytes: int | None = None
    repositories: int | None = None
    manifests: int | None = None
    tags: int | None = None

    def exceeded(self, used: Amount, more: Amount) -> str | None:
        """What there is too much of among that which `more` brought to `used`, or None."""
        for name in COUNTED:
            limit, got = getattr(self, name), getattr(used, name)
            if limit is not None and getattr(more, name) > 0 and got > limit:
                return name
        return None

    def to_json(self) -> dict[str, canonical.Canonical]:
        """See `Value`."""
        return {name: getattr(self, name) for name in COUNTED if getattr(self, name) is not None}

    @classmethod
    def from_json(cls, members: JsonObject, *, what: str) -> Quota:
        """The value that `to_json` wrote.

        Raises:
            SpecError, RuleError: it is none.
        """
        _refuse_others(members, set(COUNTED), what)
        limits = {name: integer(members, name, what=what) for name in COUNTED if members.get(name) is not None}
        for name, limit in limits.items():
            if limit > MAX_NUMBER:
                raise RuleError(f"{what}: {name} is {limit}, expected at most {MAX_NUMBER}")
        if not limits:
            raise RuleError(f"{what}: expected a limit of at least one of {', '.join(COUNTED)}")
        return cls(**limits)


KINDS: Final[Mapping[Kind, Callable[..., Value]]] = {
    Kind.IMMUTABLE: Immutable.from_json,
    Kind.QUOTA: Quota.from_json,
    Kind.RETENTION: Retention.from_json,
}
"""How the value of each kind is read: called with the members and `what`."""

FOR_ACCOUNTS: Final = frozenset({Kind.QUOTA})
"""The kinds that there are for what one account brings, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, and who set it."""

    pattern: str
    kind: Kind
    value: Value
    changed: datetime
    changed_by: str

    def __str__(self) -> str:
        """How refusals and the audit name it."""
        return f"{self.kind} {self.pattern}"


def check_pattern(kind: Kind, pattern: str) -> str:
    """The pattern, if a rule of this kind can have it.

    Raises:
        RuleError: it cannot.
    """
    if pattern.startswith(OF_ACCOUNT):
        name = pattern.removeprefix(OF_ACCOUNT)
        if kind not in FOR_ACCOUNTS or _ACCOUNT.fullmatch(name) is None:
            raise RuleError(f"rule {kind} {pattern[:80]!r}: expected a glob over repositories")
        return pattern
    if not is_glob(pattern):
        raise RuleError(f"rule {kind}: {pattern[:80]!r} is not a glob over repository names")
    return pattern


def read_value(kind: Kind, members: JsonObject, *, what: str) -> Value:
    """What a rule of this kind says.

    Raises:
        RuleError: a member is unknown, missing or malformed.
    """
    try:
        return KINDS[kind](members, what=what)
    except SpecError as error:
        raise RuleError(str(error)) from None


def parse_value(kind: Kind, text: str, *, what: str) -> Value:
    """`read_value` of JSON text, as the catalogue keeps it.

    Raises:
        RuleError: it is none.
    """
    try:
        return read_value(kind, parse_object(text.encode(), what=what, max_bytes=MAX_VALUE), what=what)
    except SpecError as error:
        raise RuleError(str(error)) from None


def value_text(value: Value) -> str:
    """The value as one line of JSON, for the catalogue and the audit."""
    return canonical.encode(value.to_json()).decode()


class RuleSet:
    """The rules of one moment, found by what they are about; never changed after it was made."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Take the rules; in all answers they are ordered by pattern."""
        self.rules: Final = tuple(sorted(rules, key=lambda rule: (rule.pattern, rule.kind)))
        self._by_kind = {kind: tuple(rule for rule in self.rules if rule.kind is kind) for kind in Kind}

    def of(self, kind: Kind, repository: str) -> tuple[Rule, ...]:
        """The rules of a kind that a repository is under."""
        return tuple(
            rule
            for rule in self._by_kind[kind]
            if not rule.pattern.startswith(OF_ACCOUNT) and matching((rule.pattern,))(repository) is not None
        )

    def of_account(self, kind: Kind, account: str) -> tuple[Rule, ...]:
        """The rule of a kind for what an account brings."""
        return tuple(rule for rule in self._by_kind[kind] if rule.pattern == OF_ACCOUNT + account)

    def immutable(self, repository: str, tag: str) -> Rule | None:
        """A rule by which a tag of this repository is neither moved nor deleted, or None."""
        for rule in self.of(Kind.IMMUTABLE, repository):
            if isinstance(rule.value, Immutable) and rule.value.holds(tag):
                return rule
        return None


NO_RULES: Final = RuleSet(())


def _refuse_others(members: JsonObject, known: set[str], what: str) -> None:
    for name in members:
        if name not in known:
            raise RuleError(f"{what}: unknown member {name[:80]!r}, expected some of {', '.join(sorted(known))}")


def _tag_globs(members: JsonObject, name: str, what: str) -> tuple[str, ...]:
    found = texts(members, name, what=what, limit=MAX_PATTERNS)
    for glob in found:
        if _TAGS.fullmatch(glob) is None:
            raise RuleError(f"{what}: {name}: {glob[:80]!r} is not a glob over tags")
    return found
