"""Advisories by severity, with a grace period that runs from the day on which a fix could be had."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from policy.model import Verdict
from policy.rules.interface import Kind, View, act, deny, with_grace
from policy.settings import Action, Check
from policy.shape import Duration, Member, Record, Word
from scanner.model import Finding, FixState, Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """What to do about one kind of finding, and for how long a denial waits."""

    action: Action
    grace: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class BySeverity:
    """The responses for one severity; `wont_fix` None is as `without_fix`."""

    with_fix: Response
    without_fix: Response
    wont_fix: Response | None

    def response(self, finding: Finding) -> Response:
        """What to do about `finding`."""
        if finding.fixed_in:
            return self.with_fix
        if finding.fix_state is FixState.WONT_FIX and self.wont_fix is not None:
            return self.wont_fix
        return self.without_fix


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The responses by severity."""

    by_severity: Mapping[Severity, BySeverity]

    @classmethod
    def of(
        cls, *, critical: BySeverity, high: BySeverity, medium: BySeverity, low: BySeverity, none: BySeverity
    ) -> Settings:
        """The settings as a policy names them."""
        return cls(
            by_severity={
                Severity.CRITICAL: critical,
                Severity.HIGH: high,
                Severity.MEDIUM: medium,
                Severity.LOW: low,
                Severity.NONE: none,
            }
        )


def compile_rule(settings: Settings, rule: str) -> Check:
    """The rule's closure."""

    def check(view: View) -> Iterable[Verdict]:
        for finding in findings_of(view, "advisory"):
            response = settings.by_severity[finding.severity].response(finding)
            if response.action is Action.ALLOW:
                continue
            refusal = deny(
                rule,
                "vulnerable-package",
                finding.purl,
                advisory_message(finding),
                layer=finding.layer,
                fix=fix_of(finding),
                ids=(finding.id, *finding.aliases),
            )
            if response.action is Action.DENY:
                since, clock = clock_of(finding)
                yield with_grace(refusal, since, response.grace, view.evidence.now, clock)
            else:
                yield from act(response.action, refusal)

    return check


def findings_of(view: View, kind: str) -> Iterator[Finding]:
    """The findings of one kind that count: a suppressed one carries its own reason and is none."""
    return (finding for finding in view.evidence.findings if finding.kind == kind and not finding.suppressed)


def advisory_message(finding: Finding) -> str:
    """One sentence: which advisory meets which package."""
    rating = f", {finding.severity}" if finding.severity is not Severity.NONE else ""
    summary = f": {finding.summary}" if finding.summary else ""
    return f"{finding.purl} is affected by {finding.id}{rating}{summary}"


def fix_of(finding: Finding) -> str:
    """What mends a finding."""
    if finding.fixed_in:
        return f"update to {finding.fixed_in}"
    return "its source will not fix it" if finding.fix_state is FixState.WONT_FIX else "no fix is known yet"


def clock_of(finding: Finding) -> tuple[str, str]:
    """The day from which grace runs, and what happened on it: the fix, if its day is known, else the publication."""
    if finding.fixed_in and finding.fixed_since:
        return finding.fixed_since, "the fix became available"
    return finding.published, "the advisory was published"


_RESPONSE = Record(
    Response,
    {
        "action": Member(shape=Word(Action), about="`allow`, `warn` or `deny`."),
        "grace": Member(
            shape=Duration(),
            about="How long a denial waits after the fix became available, or after the advisory was published where "
            "there is no fix or its day is not known.",
            default="0d",
        ),
    },
    "an action with its grace",
)


def _severity(about: str, action: str, grace: str, without: str) -> Member:
    members = {
        "with_fix": Member(
            shape=_RESPONSE,
            about="What to do where a fixed version exists.",
            default={"action": action, "grace": grace},
        ),
        "without_fix": Member(
            shape=_RESPONSE, about="What to do where there is no fix yet.", default={"action": without}
        ),
        "wont_fix": Member(
            shape=_RESPONSE, about="What to do where its source says that there will be none.", default=None
        ),
    }
    return Member(shape=Record(BySeverity, members, "responses"), about=about, default={})


def idle(settings: Settings) -> str:
    """Why the rule can never fire, "" if it can."""
    responses = [
        response
        for severity in settings.by_severity.values()
        for response in (severity.with_fix, severity.without_fix, severity.wont_fix)
    ]
    loud = any(response is not None and response.action is not Action.ALLOW for response in responses)
    return "" if loud else "every action is allow"


KIND = Kind(
    name="vulnerabilities",
    about="What to do about advisories, by severity and by whether there is a fix.",
    reasons={
        "vulnerable-package": "an advisory affects the component's version",
        "grace-not-measurable": "there is a grace period, but no date that it begins with",
    },
    members={
        "critical": _severity("Critical advisories.", "deny", "7d", "warn"),
        "high": _severity("High ones.", "deny", "30d", "warn"),
        "medium": _severity("Medium ones.", "deny", "90d", "allow"),
        "low": _severity("Low ones.", "allow", "0d", "allow"),
        "none": _severity("Those that their source does not rate.", "deny", "30d", "allow"),
    },
    settings=Settings.of,
    compile=compile_rule,
    idle=idle,
)
