"""The rules of states: who may read what, and which change is allowed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from policy.model import Outcome, State, Verdict
from registry.access import Role
from registry.states import (
    Refused,
    Sight,
    Standing,
    Transition,
    decided,
    expired,
    may_read,
    obstructed,
    pushed,
    revoked,
)
from tests.support.trust import NOW, decision_of, image_facts, policy_statement

DECISION = decision_of(image_facts(), policy_statement(), ())
LATER = NOW + timedelta(hours=1)


@pytest.mark.parametrize("state", [*State, None])
@pytest.mark.parametrize("in_scope", [True, False])
@pytest.mark.parametrize("role", list(Role))
def test_who_reads_what(role: Role, state: State | None, in_scope: bool) -> None:
    sight = may_read(role, state, in_scope=in_scope)
    if not in_scope or role in {Role.ADMIN, Role.REGISTRY}:
        assert sight is Sight.HIDDEN
    elif role is not Role.HOST:
        assert sight is Sight.READ
    else:
        starts = state in {State.CLEARED, State.WARNING, State.GRACE}
        assert sight is (Sight.READ if starts else Sight.DENIED)


def test_new_image_is_quarantined() -> None:
    assert pushed().after is State.QUARANTINED
    assert pushed().moved


def test_decision_moves_the_state_and_brings_its_first_reason() -> None:
    moved = decided(Standing(state=State.QUARANTINED), DECISION, list_number=1)
    assert isinstance(moved, Transition)
    assert (moved.after, moved.reason, moved.moved) == (State.CLEARED, "policy-holds", True)
    verdict = Verdict(rule="licences", outcome=Outcome.DENY, reason="licence-not-allowed", subject="x", message="no")
    denied = decided(
        Standing(state=State.CLEARED), replace(DECISION, state=State.DENIED, verdicts=(verdict,)), list_number=1
    )
    assert isinstance(denied, Transition)
    assert (denied.after, denied.reason, denied.message) == (State.DENIED, "licence-not-allowed", "no")


def test_denial_without_a_verdict_has_a_reason_too() -> None:
    denied = decided(Standing(state=State.CLEARED), replace(DECISION, state=State.DENIED), list_number=1)
    assert isinstance(denied, Transition)
    assert denied.reason == "not-allowed"


def test_older_decision_does_not_count() -> None:
    stands = Standing(state=State.DENIED, taken=LATER)
    found = decided(stands, DECISION, list_number=1)
    assert isinstance(found, Refused)
    assert found.reason == "decision-out-of-date"


def test_s6_revocation_is_lifted_by_a_newer_list_only() -> None:
    stands = Standing(state=State.REVOKED, revoked_by=7)
    for number in (0, 6, 7):
        found = decided(stands, DECISION, list_number=number)
        assert isinstance(found, Refused)
        assert found.reason == "revocation-stands"
    assert isinstance(decided(stands, DECISION, list_number=8), Transition)
    again = decided(stands, replace(DECISION, state=State.REVOKED), list_number=7)
    assert isinstance(again, Transition)


@pytest.mark.parametrize("state", list(State))
def test_obstacle_never_makes_a_state_better(state: State) -> None:
    for obstacle in State:
        found = obstructed(Standing(state=state, revoked_by=7), obstacle, reason="why", message="because")
        if found is not None:
            assert not found.after.may_start
            assert state is not State.REVOKED or found.after is State.REVOKED


def test_what_passed_goes_on_while_nobody_can_judge() -> None:
    assert obstructed(Standing(state=State.CLEARED), State.QUARANTINED, reason="r", message="m") is None
    denied = obstructed(Standing(state=State.CLEARED), State.DENIED, reason="r", message="m")
    assert denied is not None
    assert denied.after is State.DENIED
    lifted = obstructed(
        Standing(state=State.REVOKED, revoked_by=7), State.DENIED, reason="r", message="m", list_number=8
    )
    assert lifted is not None
    assert lifted.after is State.DENIED


def test_end_of_a_clearance_quarantines_what_could_start() -> None:
    assert expired(Standing(state=State.GRACE), expires=NOW).after is State.QUARANTINED
    assert expired(Standing(state=State.REVOKED), expires=NOW).after is State.REVOKED


def test_list_revokes_whatever_the_state_is() -> None:
    for standing in (None, *(Standing(state=state) for state in State)):
        assert revoked(standing, list_number=8, reason="hostile").after is State.REVOKED
