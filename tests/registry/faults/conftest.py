"""Where the worlds of these tests are."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def memory() -> Iterator[Path]:
    """A folder in memory, where the system has one."""
    top = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="pratique-faults-", dir=top if top.is_dir() else None))
    yield folder
    shutil.rmtree(folder)
