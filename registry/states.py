"""The states of an image as rules without I/O: who may read what, and which change of state is allowed.

Everything that serves bytes asks `may_read`; everything that changes a state goes through `decided`,
`revoked` or `expired`. So there is one table for each question, and each answer has its reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from policy.model import Decision, State
from registry.access import Role


class Sight(StrEnum):
    """What a principal gets to see of a manifest or blob."""

    READ = "read"
    DENIED = "denied"
    """403: it may know of the image, and learns why it does not get it."""
    HIDDEN = "hidden"
    """404: as if it did not exist."""


_READS_EVERY_STATE = frozenset({Role.PUSHER, Role.SCANNER, Role.OFFICER, Role.AUDITOR})


def may_read(role: Role, state: State | None, *, in_scope: bool) -> Sight:
    """What `role` sees of an image in `state`; None is a manifest that has no state yet.

    `in_scope` is true if the principal has the right to pull there. A pusher, scanner, officer or auditor then
    reads what is there, quarantined or not (trust.md: a pusher may pull back what it pushed). A host reads what may
    start, and is told the reason otherwise. An admin keeps accounts and settings, and has no business with content.
    """
    if not in_scope:
        return Sight.HIDDEN
    if role in _READS_EVERY_STATE:
        return Sight.READ
    if role is Role.HOST:
        return Sight.READ if state is not None and state.may_start else Sight.DENIED
    return Sight.HIDDEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Where an image stands before a change; `revoked_by` is the number of the list that revoked it, or 0."""

    state: State
    taken: datetime | None = None
    revoked_by: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition:
    """One change of state, or none (`before` equals `after`), with its reason code and one sentence."""

    before: State | None
    after: State
    reason: str
    message: str

    @property
    def moved(self) -> bool:
        """True if the state is another one than before."""
        return self.before is not self.after


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A change that is not made, and why; the judgement behind it is out of date."""

    reason: str
    message: str


def pushed() -> Transition:
    """A new image: nobody has judged it."""
    return Transition(before=None, after=State.QUARANTINED, reason="not-judged", message="pushed, and not judged yet")


def decided(standing: Standing, decision: Decision, *, list_number: int) -> Transition | Refused:
    """The change that `decision` makes; `list_number` is of the revocation list in its evidence, 0 for none.

    Refused: a Decision older than the one that stands (two workers), and one that would lift a revocation
    under a list that is not newer than the one that revoked.
    """
    if standing.taken is not None and decision.taken < standing.taken:
        return Refused(
            reason="decision-out-of-date",
            message=f"decision of {decision.taken.isoformat()} is older than {standing.taken.isoformat()}",
        )
    lifts = standing.state is State.REVOKED and decision.state is not State.REVOKED
    if lifts and list_number <= standing.revoked_by:
        return Refused(
            reason="revocation-stands",
            message=f"revoked by list {standing.revoked_by}, judged under list {list_number}",
        )
    reason, message = decision_reason(decision)
    return Transition(before=standing.state, after=decision.state, reason=reason, message=message)


def obstructed(
    standing: Standing, state: State, *, reason: str, message: str, list_number: int = 0
) -> Transition | None:
    """The change where no Decision could be taken: never to a better state.

    None: nothing changes. What may start goes on until its clearance ends where the obstacle is only that nobody
    could judge now (QUARANTINED): a full disk must not stop a fleet that passed. And a revocation stands, unless
    `list_number` is of a newer list, which the caller has looked at.
    """
    if standing.state is State.REVOKED and list_number <= standing.revoked_by and state is not State.REVOKED:
        return None
    if state is State.QUARANTINED and standing.state.may_start:
        return None
    after = State.QUARANTINED if state.may_start else state
    return Transition(before=standing.state, after=after, reason=reason, message=message)


def decision_reason(decision: Decision) -> tuple[str, str]:
    """The first reason of a Decision and its sentence; for an allowed one, that its policy holds."""
    if decision.refusals and not decision.allowed:
        first = decision.refusals[0]
        return first.reason, first.message
    held = f"policy {decision.policy_name} version {decision.policy_version} holds"
    return "policy-holds" if decision.allowed else "not-allowed", held if decision.allowed else "no rule allowed it"


def revoked(standing: Standing | None, *, list_number: int, reason: str) -> Transition:
    """The change that a revocation list makes at once, before any new judgement."""
    return Transition(
        before=standing.state if standing is not None else None,
        after=State.REVOKED,
        reason="revoked",
        message=f"revoked by list {list_number}: {reason}",
    )


def expired(standing: Standing, *, expires: datetime) -> Transition:
    """The change at the end of a clearance that could not be renewed; an image that may not start stays as it is."""
    after = State.QUARANTINED if standing.state.may_start else standing.state
    return Transition(
        before=standing.state,
        after=after,
        reason="clearance-expired",
        message=f"clearance ended at {expires.isoformat()} and was not renewed",
    )
