"""End of life: components whose makers mend nothing any more. No advisory will ever say so of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from policy.model import Note, Verdict
from policy.rules.interface import Kind, View, deny, parse_day, softened
from policy.rules.vulnerabilities import findings_of
from policy.settings import Check
from policy.shape import Duration, Member


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How long before the end there is a warning, and how long after it a denial waits."""

    warn_before: timedelta
    grace: timedelta


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure."""

    def check(view: View) -> Iterable[Verdict]:
        now = view.evidence.now
        for finding in findings_of(view, "end-of-life"):
            end = parse_day(finding.ended)
            when = f"on {finding.ended}" if end is not None else "on a day that is not known"
            ended = end is None or end <= now
            refusal = deny(
                rule,
                "end-of-life",
                finding.purl,
                f"{finding.purl}: support {'ended' if ended else 'ends'} {when}"
                + (f": {finding.summary}" if finding.summary else ""),
                layer=finding.layer,
                fix=f"move to {finding.fixed_in}" if finding.fixed_in else "move to a release that is maintained",
                ids=(finding.id, *finding.aliases),
            )
            if end is None or end + settings.grace <= now:
                yield refusal
            elif end <= now:
                yield softened(refusal, Note.GRACE, end + settings.grace)
            elif end - settings.warn_before <= now:
                yield softened(refusal, Note.WARNING, end)

    return check


KIND = Kind(
    name="end-of-life",
    about="What to do about components that are no longer maintained.",
    reasons={"end-of-life": "the component's release is past the end of its support, or will be soon"},
    members={
        "warn_before": Member(shape=Duration(), about="How long before the end there is a warning.", default="90d"),
        "grace": Member(shape=Duration(), about="How long after the end a denial waits.", default="0d"),
    },
    settings=Settings,
    compile=compile_rule,
)
