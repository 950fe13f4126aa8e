"""pytest, and what failed in it once more, alone: one chance failure does not cost a whole run.

    code = main(["-m", "not data", "--numprocesses", "3", "tests"])

`scripts/run-tests` is this for the shell. A second run has the same arguments, no workers beside it, and only the tests
that failed. It happens after 1 to 8 failures of a run that came to its end; any other run is left as it ended.
"""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Collection, Sequence
from typing import Final

import pytest

MOST: Final = 8
"""So many failures may be chance; more have one cause, which a second run would only hide."""

_AGAIN: Final = "--once-more="
"""Begins the first argument of a second run: a JSON list of the tests to run follows."""


class Watch:
    """What a run collected and what became of it; a plugin of the process that reports, not of its workers."""

    def __init__(self) -> None:
        """Before the run."""
        self.collected: set[str] = set()
        self.reported: set[str] = set()
        self.passed: set[str] = set()
        self.failed: dict[str, None] = {}
        self.unread = False

    @property
    def chance(self) -> bool:
        """Whether what failed may have failed by chance: little of it, and all else was run."""
        return not self.unread and self.collected <= self.reported and 1 <= len(self.failed) <= MOST

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What is going to be run, without workers."""
        self.collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        """What is going to be run, by workers."""
        self.collected.update(ids)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file that cannot be read has tests that nobody knows."""
        self.unread = self.unread or report.failed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test's preparation, call or end; or the worker died in it, and xdist reports that as a failure of it."""
        self.reported.add(report.nodeid)
        if report.failed:
            self.failed[report.nodeid] = None
        elif report.passed and report.when == "call":
            self.passed.add(report.nodeid)


class Only:
    """Leaves these tests of what is collected; a plugin of the second run."""

    def __init__(self, tests: Collection[str]) -> None:
        """By their node ids."""
        self._tests = frozenset(tests)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Raises pytest.UsageError: one of them is not there."""
        lost = self._tests - {item.nodeid for item in items}
        if lost:
            raise pytest.UsageError(f"second run: not collected again: {', '.join(sorted(lost))}")
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in self._tests])
        items[:] = [item for item in items if item.nodeid in self._tests]


def main(arguments: Sequence[str]) -> int:
    """Run pytest with these arguments, perhaps twice; returns 0 if each test passed in one of the runs."""
    if arguments and arguments[0].startswith(_AGAIN):
        return _second(json.loads(arguments[0].removeprefix(_AGAIN)), arguments[1:])
    watch = Watch()
    try:
        code = int(pytest.main(list(arguments), plugins=[watch]))
    except Exception:
        # What a failed test did not close is raised when all is over, and is no failure of its own.
        if not watch.failed:
            raise
        traceback.print_exc()
        code = int(pytest.ExitCode.TESTS_FAILED)
    if code != pytest.ExitCode.TESTS_FAILED or not watch.chance:
        return code
    _say(f"\nOnce more, alone: {len(watch.failed)} of {len(watch.collected)} tests\n")
    # A process of its own: nothing of the first run is in its memory.
    again = [sys.executable, sys.argv[0], _AGAIN + json.dumps(list(watch.failed)), *arguments]
    with subprocess.Popen(again) as child:
        while True:
            try:
                return child.wait()
            except KeyboardInterrupt:
                continue  # the terminal has sent it to the child too


def _second(tests: Sequence[str], arguments: Sequence[str]) -> int:
    """Run these tests, without workers; returns 0 if all of them passed, and says at the end which did."""
    watch = Watch()
    alone = [*arguments, "--numprocesses", "0"]
    if any(argument.startswith("--cov") for argument in arguments):
        alone.append("--cov-append")
    code = int(pytest.main(alone, plugins=[watch, Only(tests)]))
    passed = [test for test in tests if test in watch.passed and test not in watch.failed]
    _say("\nOf what failed at first, when run once more, alone:")
    for test in tests:
        _say(f"{'FLAKY ' if test in passed else 'FAILED'}  {test}")
    return code or int(len(passed) < len(tests))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
