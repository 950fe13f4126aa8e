"""Every call of the store and the catalogue fails once, or is the last that a process does; clients try again.

For each scenario, each point and each kind of fault (tests/support/faults.py), a seventh of them a day: what clients
were told before is still so, also after a restart; what was never verified is not served; who tries again succeeds;
and nothing stays behind.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.registry.faults.scenarios import SCENARIOS, Step, try_all
from tests.registry.faults.world import Ground, ground


@pytest.fixture(scope="module")
def where(memory: Path) -> Ground:
    """What worlds are made on."""
    return ground(memory)


@pytest.mark.parametrize(("before", "step"), SCENARIOS, ids=lambda step: step.__name__)
def test_whatever_fails_nothing_acknowledged_is_lost(
    where: Ground, before: Step, step: Step, record_property: Callable[[str, object], None]
) -> None:
    record_property("faults", f"files, {try_all(where, before, step)}")
