"""One live registry for all tests of the API; each test uses repositories of its own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from tests.registry.conftest import DATABASES
from tests.support.postgres import Postgres
from tests.support.registry import LiveRegistry, web_registry

_numbers = itertools.count(1)


ON_SQLITE: Final = frozenset({"test_any_request", "test_framing", "test_openapi", "test_schemathesis"})
"""Modules whose tests are about requests, not about what is kept of them; all others run on each kind of database."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have each test of the other modules run on each kind of database."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "live" in metafunc.fixturenames and module not in ON_SQLITE:
        metafunc.parametrize("live", DATABASES, indirect=True, scope="session")


@pytest.fixture(scope="session")
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A running registry (web processes only)."""
    on: dict[str, Any] = {}
    if getattr(request, "param", "sqlite") == "postgresql":
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell tests apart that schemathesis makes of one function: each has its name, all one id, and xdist runs one."""
    for item in items:
        _, bracket, label = item.name.partition("[")
        if bracket and item.id.params is None:
            item._id = replace(item.id, params=label.removesuffix("]"))
