"""Age: images that are too old to be trusted unbuilt, or too new to have been looked at by anybody.

`created` is whatever the publisher wrote (and the epoch, in reproducible builds), so ages run from the time at
which the registry first saw the image, unless a policy asks for the other as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from policy.model import Verdict
from policy.rules.interface import Kind, View, deny, parse_day, unknown
from policy.settings import Check, spell_duration
from policy.shape import Duration, Member
from policy.times import SKEW


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Bounds on the time since the registry first saw the image, and since its config says it was made."""

    most: timedelta | None
    least: timedelta
    created_most: timedelta | None


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure."""

    def check(view: View) -> Iterable[Verdict]:
        image, now = view.evidence.image, view.evidence.now
        subject = str(image.manifest)
        age = now - image.first_seen
        seen = f"first seen {image.first_seen:%Y-%m-%d}"
        if age < -SKEW:
            yield unknown(rule, "first-seen-in-future", subject, f"{seen}, which is after now")
        elif age < settings.least:
            message = f"{seen}; it must be known for {spell_duration(settings.least)}"
            yield deny(
                rule, "too-new", subject, message, fix=f"wait until {image.first_seen + settings.least:%Y-%m-%d}"
            )
        if settings.most is not None and age > settings.most:
            message = f"{seen}; it may be {spell_duration(settings.most)} old"
            yield deny(rule, "too-old", subject, message, fix="build it again")
        if settings.created_most is not None:
            yield from _created(view, settings.created_most)

    def _created(view: View, most: timedelta) -> Iterable[Verdict]:
        image = view.evidence.image
        created = parse_day(image.created)
        if created is None or created > view.evidence.now:
            message = f"its config says that it was created {image.created[:40] or 'at no time'}"
            yield unknown(rule, "created-unknown", str(image.manifest), message)
        elif view.evidence.now - created > most:
            message = f"created {image.created[:10]}; it may be {spell_duration(most)} old"
            yield deny(rule, "too-old", str(image.manifest), message, fix="build it again")

    return check


def idle(settings: Settings) -> str:
    """Why the rule can never fire, "" if it can."""
    silent = settings.most is None and settings.created_most is None and not settings.least
    return "it has no bound" if silent else ""


KIND = Kind(
    name="age",
    about="How old, and how new, an image may be.",
    reasons={
        "too-old": "more than `most` since it was first seen, or `created_most` since it was made",
        "too-new": "less than `least` since it was first seen",
        "first-seen-in-future": "the registry's record is later than now",
        "created-unknown": "the config has no creation time that could be measured from",
    },
    members={
        "most": Member(shape=Duration(), about="The most time since the registry first saw it.", default=None),
        "least": Member(shape=Duration(), about="The least time since the registry first saw it.", default="0d"),
        "created_most": Member(
            shape=Duration(), about="The most time since the creation that its config names.", default=None
        ),
    },
    settings=Settings,
    compile=compile_rule,
    idle=idle,
)
