"""Retention rules: which tags stay, and why. Pure.

A rule concerns some tags of some repositories, and keeps of them the newest by push, those pushed or pulled of late,
those that hosts are served; what it keeps none of goes. Several rules may concern a tag: it goes only if all of them
let it go. A tag that no rule concerns stays. Before any rule stand those that none lifts:

- what a host reported to run stays;
- what was pushed within the collector's grace stays: it may not even be judged yet;
- an immutable tag stays, unless every rule that concerns it says that it removes those too;
- tags `sha256-<hex>…` follow the image that they are about.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ocispec.fields import JsonObject, boolean, integer, text, texts
from policy import canonical
from registry.access import tag_subject
from registry.errors import RuleError

MAX_PATTERNS: Final = 100
MAX_NEWEST: Final = 1_000_000

_TAGS: Final = re.compile(r"[A-Za-z0-9_*?.-]{1,128}", re.ASCII)
_DURATION: Final = re.compile(r"([1-9]\d{0,4})([smhdw])", re.ASCII)
_UNITS: Final = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_KEEPS: Final = ("newest", "pushed", "pulled")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What stays. `newest`, `pushed` and `pulled` keep what they say; if none of them is given, no tag goes.

    `tags` and `exceptions` are globs over tags. `untagged` is how long a manifest stays that no tag, index or subject
    names any more; None is for ever. With `immutable`, the rule removes immutable tags too.
    """

    tags: tuple[str, ...] = ("*",)
    exceptions: tuple[str, ...] = ()
    newest: int | None = None
    pushed: timedelta | None = None
    pulled: timedelta | None = None
    served: bool = False
    untagged: timedelta | None = None
    immutable: bool = False

    def concerns(self, tag: str) -> bool:
        """True if it is for this rule to say whether `tag` stays."""
        if self.newest is None and self.pushed is None and self.pulled is None:
            return False
        return _matches(self.tags, tag) and not _matches(self.exceptions, tag)

    def keeps(self, tag: Tag, position: int, now: datetime) -> str:
        """Why the tag stays, "" if it does not; it is the `position`th newest, from 1, of those of this rule."""
        if self.newest is not None and position <= self.newest:
            return f"one of the newest {self.newest}"
        if self.pushed is not None and now - tag.pushed_at <= self.pushed:
            return f"pushed within {_shown(self.pushed)}"
        if self.pulled is not None and tag.pulled is not None and now - tag.pulled <= self.pulled:
            return f"pulled within {_shown(self.pulled)}"
        return "served to hosts" if self.served and tag.served else ""

    def to_json(self) -> dict[str, canonical.Canonical]:
        """The value as `from_json` reads it."""
        members: dict[str, canonical.Canonical] = {"tags": list(self.tags), "except": list(self.exceptions)}
        if self.newest is not None:
            members["newest"] = self.newest
        for name in ("pushed", "pulled", "untagged"):
            if (duration := getattr(self, name)) is not None:
                members[name] = _shown(duration)
        return members | {"served": self.served, "immutable": self.immutable}

    @classmethod
    def from_json(cls, members: JsonObject, *, what: str) -> Retention:
        """The value that `to_json` wrote.

        Raises:
            SpecError, RuleError: it is none, or keeps nothing that it concerns.
        """
        for name in members:
            if name not in _MEMBERS:
                raise RuleError(f"{what}: unknown member {name[:80]!r}, expected some of {', '.join(_MEMBERS)}")
        newest = integer(members, "newest", what=what, minimum=1) if members.get("newest") is not None else None
        if newest is not None and newest > MAX_NEWEST:
            raise RuleError(f"{what}: newest is {newest}, expected at most {MAX_NEWEST}")
        found = cls(
            tags=_globs(members, "tags", what) or ("*",),
            exceptions=_globs(members, "except", what),
            newest=newest,
            pushed=_duration(members, "pushed", what),
            pulled=_duration(members, "pulled", what),
            served=boolean(members, "served", what=what),
            untagged=_duration(members, "untagged", what),
            immutable=boolean(members, "immutable", what=what),
        )
        if all(getattr(found, name) is None for name in (*_KEEPS, "untagged")):
            raise RuleError(f"{what}: expected at least one of {', '.join(_KEEPS)} or untagged")
        return found


_MEMBERS: Final = ("tags", "except", "newest", "pushed", "pulled", "served", "untagged", "immutable")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tag:
    """A tag as retention sees it."""

    name: str
    pushed_at: datetime
    pulled: datetime | None
    served: bool
    runs: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a tag stays, and why."""

    tag: str
    stays: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A retention rule with the glob over repositories that it has."""

    pattern: str
    value: Retention


def judge(
    rules: Sequence[Named],
    tags: Iterable[Tag],
    *,
    immutable: Callable[[str], object],
    now: datetime,
    grace: timedelta,
) -> Iterator[Verdict]:
    """What becomes of each tag of one repository; `tags` are all of them, the newest push first.

    `rules` are those that the repository is under; `immutable` says whether a tag is.
    """
    positions = dict.fromkeys(range(len(rules)), 0)
    for tag in tags:
        concerned: list[tuple[int, Named]] = []
        for number, rule in enumerate(rules):
            if tag_subject(tag.name) is None and rule.value.concerns(tag.name):
                positions[number] += 1
                concerned.append((positions[number], rule))
        yield _judged(tag, concerned, immutable=immutable, now=now, grace=grace)


def untagged_for(rules: Iterable[Named]) -> timedelta | None:
    """How long a manifest that nothing names stays under these rules: as long as the one says that keeps it longest."""
    said = [rule.value.untagged for rule in rules if rule.value.untagged is not None]
    return max(said, default=None)


def _judged(
    tag: Tag,
    concerned: Sequence[tuple[int, Named]],
    *,
    immutable: Callable[[str], object],
    now: datetime,
    grace: timedelta,
) -> Verdict:
    reason = _stays(tag, concerned, now, grace)
    if not reason and immutable(tag.name) and not all(rule.value.immutable for _, rule in concerned):
        reason = "immutable"
    if reason:
        return Verdict(tag=tag.name, stays=True, reason=reason)
    which = ", ".join(rule.pattern for _, rule in concerned)
    return Verdict(tag=tag.name, stays=False, reason=f"retention {which} does not keep it")


def _stays(tag: Tag, concerned: Sequence[tuple[int, Named]], now: datetime, grace: timedelta) -> str:
    if tag_subject(tag.name) is not None:
        return "follows the image that it is about"
    if not concerned:
        return "no rule concerns it"
    if tag.runs:
        return "runs on a host"
    if now - tag.pushed_at < grace:
        return f"pushed within the grace of {_shown(grace)}"
    for position, rule in concerned:
        if why := rule.value.keeps(tag, position, now):
            return f"{why} (retention {rule.pattern})"
    return ""


def _matches(globs: Iterable[str], tag: str) -> bool:
    return any(fnmatch.fnmatchcase(tag, glob) for glob in globs)


def _globs(members: JsonObject, name: str, what: str) -> tuple[str, ...]:
    found = texts(members, name, what=what, limit=MAX_PATTERNS)
    for glob in found:
        if _TAGS.fullmatch(glob) is None:
            raise RuleError(f"{what}: {name}: {glob[:80]!r} is not a glob over tags")
    return found


def _duration(members: JsonObject, name: str, what: str) -> timedelta | None:
    if members.get(name) is None:
        return None
    said = text(members, name, what=what)
    found = _DURATION.fullmatch(said)
    if found is None:
        raise RuleError(f"{what}: {name} is {said[:40]!r}, expected a number and s, m, h, d or w, as 30d")
    return timedelta(seconds=int(found[1]) * _UNITS[found[2]])


def _shown(duration: timedelta) -> str:
    seconds = int(duration.total_seconds())
    unit = next((unit for unit in ("d", "h", "m") if seconds and seconds % _UNITS[unit] == 0), "s")
    return f"{seconds // _UNITS[unit]}{unit}"
