"""The Decision over one image: every rule on all the evidence. Pure: no I/O, no clock.

1. Find every place in the hierarchy that the image has (`hierarchy.place`), preferred first.
2. In each place run the built-in rules and the policy's own; each is guarded, none is skipped.
3. Apply waivers to what was refused.
4. Take the first place in which nothing is left against the image; if there is none, the first.
5. The state follows from the verdicts: a revocation, a refusal, a grace period, a warning, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from ocispec.digest import Digest
from policy.approvals import Counting, soonest, union
from policy.codec import evidence_digest
from policy.combine import all_of, run
from policy.hierarchy import Standing, Subject, place
from policy.model import Decision, Evidence, Note, Outcome, Verdict
from policy.rules.config import config_refusals
from policy.rules.interface import View, unknown
from policy.rules.revocation import Revocable, revocation_verdicts
from policy.rules.scan_state import freshness, scan_complete, unknowns
from policy.settings import Check, Policy
from policy.verdicts import refusal_verdict, state_of
from policy.waivers import apply_waivers

MAX_PLACES = 16
"""Places in the hierarchy that are judged; more than a few means approvals of the same layers at many levels."""


def evaluate(policy: Policy, evidence: Evidence) -> Decision:
    """Return the Decision on `evidence.image` under `policy` at `evidence.now`.

    Never raises for what it judges: what a rule cannot decide is a verdict.
    """
    counting = counting_of(evidence)
    standings = place(policy.levels, subject_of(evidence), evidence.image_approvals, evidence.layer_approvals, counting)
    judged: list[_Judged] = []
    view = View.of(evidence, standings[0])
    for standing in standings[:MAX_PLACES]:
        judged.append(_judge(policy, view.at(standing), counting))
        if not judged[-1].refused:
            break
    chosen = judged[-1] if not judged[-1].refused else judged[0]
    return Decision(
        state=state_of(chosen.verdicts),
        level=_reached(chosen.standing),
        parent=chosen.standing.parent.manifest if chosen.standing.parent is not None else None,
        verdicts=chosen.verdicts,
        image=evidence.image.manifest,
        policy_name=policy.name,
        policy_version=policy.version,
        policy=policy.digest,
        evidence=evidence_digest(evidence),
        rests_on=chosen.rests_on,
        taken=evidence.now,
        valid_until=chosen.ends,
    )


def _reached(standing: Standing) -> str:
    return standing.level.name if standing.level is not None and not standing.refusals else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """The image as judged in one place."""

    standing: Standing
    verdicts: tuple[Verdict, ...]
    rests_on: tuple[Digest, ...]
    ends: datetime | None

    @property
    def refused(self) -> bool:
        return any(verdict.outcome is not Outcome.ALLOW for verdict in self.verdicts)


def _judge(policy: Policy, view: View, counting: Counting) -> _Judged:
    subject = str(view.evidence.image.manifest)
    verdicts = [verdict for name, check in _built_in(policy) for verdict in run(name, check, view, subject)]
    rules = [(rule.name, rule.check) for rule in policy.rules if rule.applies(view.level)]
    # A policy whose every rule is for other levels says as little about this image as an empty one.
    verdicts += all_of(rules, view, subject)
    waived = apply_waivers(policy, verdicts, view.evidence.waivers, view.level, counting)
    graces = (verdict.until for verdict in waived.verdicts if verdict.note is Note.GRACE)
    return _Judged(
        standing=view.standing,
        verdicts=(*waived.verdicts, *_rejected(view.evidence)),
        rests_on=union(view.standing.rests_on, waived.rests_on),
        ends=soonest((view.standing.ends, waived.ends, *graces)),
    )


def _built_in(policy: Policy) -> tuple[tuple[str, Check], ...]:
    """The rules that every policy has, in the order in which they are shown."""
    return (
        ("revocation", _revocation(required=policy.revocation.required)),
        ("hierarchy", _hierarchy),
        ("config", _config),
        ("scan", scan_complete),
        ("unknowns", unknowns(policy.scan)),
        ("freshness", freshness(policy.scan)),
    )


def _revocation(*, required: bool) -> Callable[[View], Iterable[Verdict]]:
    def check(view: View) -> Iterable[Verdict]:
        evidence = view.evidence
        image = evidence.image
        if evidence.revocations is None:
            if required:
                message = "no revocation list is known, so nobody can say that this is not revoked"
                yield unknown("revocation", "no-revocation-list", str(image.manifest), message)
            return
        revocable = Revocable(
            manifest=image.manifest,
            config=image.config,
            root_index=image.root_index,
            layers=image.layers,
            components=[component.purl for component in evidence.components],
            parents=evidence.image_approvals,
        )
        yield from revocation_verdicts(revocable, evidence.revocations.statement)

    return check


def _hierarchy(view: View) -> Iterable[Verdict]:
    standing = view.standing
    if standing.refusals:
        return [refusal_verdict("hierarchy", refusal) for refusal in standing.refusals]
    level = standing.level.name if standing.level is not None else ""
    on = f"on {standing.parent.manifest} of level {standing.parent.level.name}" if standing.parent else "on nothing"
    message = f"level {level}, {on}; {standing.how}"
    subject = str(view.evidence.image.manifest)
    return [
        Verdict(
            rule="hierarchy",
            outcome=Outcome.ALLOW,
            reason="approved",
            subject=subject,
            message=message,
            until=standing.ends,
        )
    ]


def _config(view: View) -> Iterable[Verdict]:
    image = view.evidence.image
    if view.standing.refusals and view.standing.parent is None:
        # It stands on nothing that its config could be compared with, and is refused for that.
        return []
    refusals = config_refusals(view.standing, image.config_facts, image.user, image.config)
    return [refusal_verdict("config", refusal) for refusal in refusals]


def _rejected(evidence: Evidence) -> Iterable[Verdict]:
    """Statements that were offered and not believed: they never count, and are shown."""
    return (
        Verdict(
            rule="statements",
            outcome=Outcome.ALLOW,
            reason=rejected.code,
            subject=str(rejected.digest),
            message=f"a statement was offered and does not count: {rejected.detail}",
        )
        for rejected in sorted(evidence.rejected, key=lambda rejected: (str(rejected.digest), rejected.code))
    )


def counting_of(evidence: Evidence) -> Counting:
    """What counts of the evidence's statements: withdrawals and revoked keys applied, at its time."""
    return Counting.of(
        now=evidence.now,
        repository=f"{evidence.image.registry}/{evidence.image.repository}",
        withdrawals=evidence.withdrawals,
        revocations=evidence.revocations,
    )


def subject_of(evidence: Evidence) -> Subject:
    """What the hierarchy places."""
    image = evidence.image
    return Subject(
        manifest=image.manifest,
        config=image.config,
        config_facts=image.config_facts,
        platform=image.platform,
        layers=image.layers,
        root_index=image.root_index,
        reader=image.reader,
        format=image.format,
    )
