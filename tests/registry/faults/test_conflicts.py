"""A transaction that is undone because of another one is done anew: no client is told, and nothing is done twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.registry.faults import scenarios
from tests.registry.faults.scenarios import Step
from tests.registry.faults.world import Ground, World, ground
from tests.support.faults import COMMIT, Fault, Plan

STEPS: list[tuple[Step, Step]] = [
    (scenarios.nothing, scenarios.push_a_blob),
    (scenarios.nothing, scenarios.push_chunks),
    (scenarios.with_an_image, scenarios.mount),
    (scenarios.with_blobs_of_two, scenarios.move_a_tag),
    (scenarios.with_an_image, scenarios.push_an_image),
    (scenarios.with_an_image, scenarios.delete_all),
]


@pytest.fixture(scope="module")
def where(memory: Path) -> Ground:
    """What worlds are made on."""
    return ground(memory)


@pytest.mark.parametrize(("before", "step"), STEPS, ids=lambda step: step.__name__)
def test_a_conflict_is_not_told(where: Ground, before: Step, step: Step) -> None:
    smooth = Plan()
    _run(where, before, step, smooth)
    commits = [at for at, name in enumerate(smooth.names, start=1) if name == COMMIT]
    assert commits
    for at in commits:
        plan = Plan(at, Fault.CONFLICT)
        _run(where, before, step, plan)
        assert plan.names[at - 1] == COMMIT
        assert plan.names.count(COMMIT) == smooth.names.count(COMMIT) + 1


def _run(where: Ground, before: Step, step: Step, plan: Plan) -> None:
    """Nothing is refused: `step` raises if something is."""
    world = World(ground=where, folder=where.folder / f"conflict-{next(scenarios.NUMBERS)}")
    try:
        before(world)
        world.restart(plan)
        step(world)
        world.restart()
        world.check()
        world.check_rest()
    finally:
        world.remove()
