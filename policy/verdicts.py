"""What follows from verdicts, and refusals of the hierarchy as verdicts: shared by registry and host."""

from __future__ import annotations

from collections.abc import Iterable

from policy.approvals import Refusal
from policy.model import Note, Outcome, State, Verdict
from policy.rules.interface import deny


def state_of(verdicts: Iterable[Verdict]) -> State:
    """The state that follows from all verdicts: a revocation, a refusal, a grace period, a warning, or nothing."""
    found = list(verdicts)
    refused = [verdict for verdict in found if verdict.outcome is not Outcome.ALLOW]
    if any(verdict.rule == "revocation" and verdict.reason == "revoked" for verdict in refused):
        return State.REVOKED
    if refused or not found:
        return State.DENIED
    notes = {verdict.note for verdict in found}
    if Note.GRACE in notes:
        return State.GRACE
    return State.WARNING if Note.WARNING in notes else State.CLEARED


def refusal_verdict(rule: str, refusal: Refusal) -> Verdict:
    """A refusal of the hierarchy or the config as a verdict of `rule`."""
    return deny(rule, refusal.reason, refusal.subject, refusal.message, layer=refusal.layer, fix=refusal.fix)
