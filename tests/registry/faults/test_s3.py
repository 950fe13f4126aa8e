"""As test_files.py, at every request to an S3 engine (moto's server) and every transaction of the catalogue.

Every point has one kind of fault; with `PRATIQUE_FAULTS=all` it has all of them. A seventh of the points is tried each
day.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from registry.store.s3_engine import BotoEngine
from tests.registry.faults.scenarios import PART, SCENARIOS, Step, try_all
from tests.registry.faults.world import Ground, ground
from tests.support.s3 import bucket, s3_server

EVERY = os.environ.get("PRATIQUE_FAULTS") == "all"


@pytest.fixture(scope="module")
def where(memory: Path) -> Iterator[Ground]:
    """What worlds are made on."""
    with s3_server(memory, smallest_part=PART) as endpoint:
        settings = bucket(endpoint, "faults", part_size=PART)
        yield ground(memory, settings, BotoEngine(settings))


@pytest.mark.parametrize(("before", "step"), SCENARIOS, ids=lambda step: step.__name__)
def test_whatever_fails_nothing_acknowledged_is_lost(
    where: Ground, before: Step, step: Step, record_property: Callable[[str, object], None]
) -> None:
    record_property("faults", f"S3, {try_all(where, before, step, every=EVERY)}")
