"""One live registry for all tests of the API; each test uses repositories of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.registry import LiveRegistry, web_registry

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A running registry (web processes only)."""
    with web_registry(tmp_path_factory.mktemp("registry")) as running:
        yield running
    log = (running.folder / "web.log").read_text()
    assert "Traceback" not in log, log


@pytest.fixture
def repository() -> str:
    """The name of a repository that nothing else uses."""
    return f"team/app-{next(_numbers)}"


@pytest.fixture
def small(tmp_path: Path) -> Iterator[LiveRegistry]:
    """A running registry of its own, with small limits."""
    limits = {"referrers": 3, "blob_bytes": 100_000}
    with web_registry(tmp_path / "registry", limits=limits, http={"bodies_per_account": 1}) as running:
        yield running
