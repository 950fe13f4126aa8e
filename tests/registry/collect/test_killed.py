"""A collector that is killed at any point: the run is taken up, and finished (see killing.py)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

POINTS = 30
"""There are more points than that; else nothing much was tried."""

EVERY = 3


@pytest.mark.parametrize("first", range(1, EVERY + 1))
def test_killed_at_each_point(tmp_path: Path, first: int) -> None:
    command = [sys.executable, "-m", "tests.registry.collect.killing", str(tmp_path), str(first), str(EVERY)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert int(done.stdout) > POINTS
