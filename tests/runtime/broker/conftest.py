"""A host with a cleared image, and a broker for each test."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.broker.desk import Desk, Stocked, stocked
from tests.support.tools import need_root


@pytest.fixture(scope="session")
def stock() -> Iterator[Stocked]:
    """One for all tests: those that change what it believes have their own."""
    need_root()
    # Not /tmp, which may be a tmpfs: a root index cannot be mounted from one.
    folder = Path(tempfile.mkdtemp(prefix="pratique-broker-", dir="/var/tmp"))
    try:
        with stocked(folder / "store") as made:
            yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def idle(stock: Stocked, tmp_path: Path) -> Iterator[Desk]:
    """A host without a broker yet."""
    with Desk(tmp_path, stock) as made:
        yield made


@pytest.fixture
def desk(idle: Desk) -> Desk:
    """A host whose broker is up."""
    idle.start()
    return idle
