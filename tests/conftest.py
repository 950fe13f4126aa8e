"""How tests are shared out among workers: a file stays together, so that its fixtures are made once and in order."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Final

import pytest
from xdist.remote import Producer  # type: ignore[import-untyped]  # it ships no types
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # it ships no types

from tests.support.interrupts import outlive_interrupts
from tests.support.s3 import s3_server
from tests.support.swift import Swift, swift_server
from tests.support.turns import VARIABLE, fix_turn

TOGETHER: Final = {
    "tests/chain/test_bad_registry.py": "chain",
    "tests/chain/test_chain.py": "chain",
    "tests/chain/test_leftovers.py": "chain",
}
"""Files that share what is dear, like one running registry: they stay on one worker."""


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # its base has no types
    """A worker gets whole files. (`--dist loadgroup` would do, if its marks reached the items of pytest 9.2.)"""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return TOGETHER.get(path, path)


def pytest_configure() -> None:
    """In each worker, and where there is none; workers have the turn of the process that starts them."""
    outlive_interrupts()
    fix_turn()


def pytest_report_header() -> str:
    """Which part of large grids is tried."""
    return f"turn of large grids: {fix_turn()} ({VARIABLE})"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """The scheduler, whatever `--dist` says."""
    return ByFile(config, log)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have counted, and recorded as the property `faults`: how much of what may go wrong was tried."""
    passed = terminalreporter.stats.get("passed", [])
    counts = [str(value) for report in passed for name, value in report.user_properties if name == "faults"]
    for line in counts:
        terminalreporter.write_line(f"faults: {line}")


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    """What is called in a test's own process may set the umask, as a process of its own does."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture(scope="session")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of moto's S3 server, one for each worker."""
    with s3_server(tmp_path_factory.mktemp("moto")) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """OpenStack Swift, one for each worker."""
    with swift_server(tmp_path_factory.mktemp("swift")) as running:
        yield running
