"""One live registry for all tests of the API; each test uses repositories of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.registry.conftest import DATABASES
from tests.support.postgres import Postgres
from tests.support.registry import LiveRegistry, web_registry

_numbers = itertools.count(1)


@pytest.fixture(scope="session", params=DATABASES)
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A running registry (web processes only), on each kind of database."""
    on: dict[str, Any] = {}
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("server")
        on["catalogue"] = server.database()
    with web_registry(tmp_path_factory.mktemp("registry"), **on) as running:
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
