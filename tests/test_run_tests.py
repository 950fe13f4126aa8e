"""scripts/run-tests on small folders of tests, each with a process of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

PROGRAM: Final = Path(__file__).parent.parent / "scripts" / "run-tests"

ONCE: Final = """
import os
from pathlib import Path

def first_time(name):
    marker = Path(name)
    seen = marker.exists()
    marker.touch()
    return not seen
"""
"""The beginning of tests that go wrong at first only."""


def run(folder: Path, *arguments: str, **files: str) -> tuple[int, str]:
    """Write the files `NAME.py`, and run the tests in them; returns the exit code and what was printed."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "pytest.ini").write_text("[pytest]\n")
    # Plugins of this venv that the folder needs none of cost more than all the rest.
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
    environment = {name: value for name, value in environment.items() if not name.startswith(("COV_", "PYTEST_XDIST"))}
    done = subprocess.run(
        [sys.executable, PROGRAM, "-p", "xdist", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        start_new_session=True,  # without a terminal, as in CI
        timeout=300,
    )
    return done.returncode, done.stdout


def verdicts(output: str) -> list[str]:
    """The last lines: what became of each test that was run twice."""
    _, found, last = output.partition("Of what failed at first, when run once more, alone:\n")
    return last.splitlines() if found else []


def test_what_passes_is_run_once(tmp_path: Path) -> None:
    code, output = run(tmp_path, test_one=f"{ONCE}\ndef test_it():\n    assert first_time('ran')\n")
    assert code == 0, output
    assert "Once more" not in output


def test_what_fails_by_chance_is_told_and_forgiven(tmp_path: Path) -> None:
    """Of what failed in its preparation, its call, or by the death of its worker."""
    files = {
        "test_call": f"{ONCE}\ndef test_it():\n    assert not first_time('call')\ndef test_other():\n    pass\n",
        "test_preparation": f"{ONCE}\nimport pytest\n@pytest.fixture\ndef made():\n    assert not first_time('made')\n"
        "@pytest.mark.parametrize('text', ['a::b [c]'])\ndef test_it(made, text):\n    pass\n",
        # A worker that takes the dead one's tests runs the one that killed it too.
        "test_death": f"{ONCE}\ndef test_it():\n    if first_time('death'):\n        os._exit(9)\n",
    }
    code, output = run(tmp_path, "--numprocesses", "2", **files)
    assert code == 0, output
    assert sorted(verdicts(output)) == [
        "FLAKY   test_call.py::test_it",
        "FLAKY   test_death.py::test_it",
        "FLAKY   test_preparation.py::test_it[a::b [c]]",
    ]
    assert re.search(r"3 passed, 1 deselected", output), output


def test_what_fails_twice_has_failed(tmp_path: Path) -> None:
    files = f"{ONCE}\ndef test_chance():\n    assert not first_time('x')\ndef test_bad():\n    assert False\n"
    code, output = run(tmp_path, test_one=files)
    assert code == 1, output
    assert verdicts(output) == ["FLAKY   test_one.py::test_chance", "FAILED  test_one.py::test_bad"]


def test_what_is_skipped_the_second_time_has_failed(tmp_path: Path) -> None:
    body = f"{ONCE}\nimport pytest\ndef test_it():\n    assert not first_time('x')\n    pytest.skip('no tool')\n"
    code, output = run(tmp_path, test_one=body)
    assert (code, verdicts(output)) == (1, ["FAILED  test_one.py::test_it"])


def test_many_failures_are_no_chance(tmp_path: Path) -> None:
    body = "import pytest\n@pytest.mark.parametrize('n', range(9))\ndef test_it(n):\n    assert False\n"
    code, output = run(tmp_path, test_one=body)
    assert code == 1, output
    assert "Once more" not in output


@pytest.mark.parametrize(
    ("arguments", "extra", "expected"),
    [
        (("--no-such-option",), "", 4),
        ((), "import no_such_module\n", 2),
        (("--continue-on-collection-errors",), "import no_such_module\n", 1),
        ((), "def test_stop():\n    raise KeyboardInterrupt\n", 2),
        (("--maxfail", "1"), "def test_later():\n    pass\n", 1),
    ],
    ids=["usage", "collection", "collection-ignored", "interrupted", "not-all-run"],
)
def test_a_run_that_was_no_whole_one_ends_as_it_ended(
    tmp_path: Path, arguments: tuple[str, ...], extra: str, expected: int
) -> None:
    """However few tests failed in it: what else would have failed is not known."""
    body = f"{ONCE}\ndef test_it():\n    assert not first_time('x')\n"
    code, output = run(tmp_path, *arguments, test_one=body, test_two=extra)
    assert code == expected, output
    assert "Once more" not in output


def test_coverage_is_that_of_both_runs(tmp_path: Path) -> None:
    files = {
        "code_here": "def first():\n    return 1\ndef second():\n    return 2\n",
        "test_code": f"{ONCE}\nimport code_here\ndef test_first():\n    assert code_here.first()\n"
        "def test_it():\n    assert not first_time('x')\n    assert code_here.second()\n",
    }
    code, output = run(tmp_path, "-p", "pytest_cov", "--cov=code_here", "--cov-report=", "--numprocesses", "1", **files)
    assert code == 0, output
    report = subprocess.run(
        [sys.executable, "-m", "coverage", "report", "--format=total"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert report.stdout == "100\n", report.stdout + report.stderr


def test_an_interrupt_ends_no_worker_and_is_not_kept_from_its_children(tmp_path: Path) -> None:
    child = "import signal; assert signal.getsignal(signal.SIGINT) is signal.default_int_handler"
    body = f"""
import os, signal, subprocess, sys
def test_it():
    os.kill(os.getpid(), signal.SIGINT)
    subprocess.run([sys.executable, "-c", {child!r}], check=True)
"""
    conftest = "from tests.support.interrupts import outlive_interrupts as pytest_configure\n"
    code, output = run(tmp_path, "--numprocesses", "1", test_one=body, conftest=conftest)
    assert code == 0, output
    assert "Once more" not in output
    code, output = run(tmp_path, "--numprocesses", "0", test_one=body, conftest=conftest)
    assert code == 2, output  # only workers outlive it


def test_an_error_that_pytest_lets_out_at_its_end_is_no_failure_of_its_own(tmp_path: Path) -> None:
    """So it does with what a failed test did not close, where warnings are errors."""
    files = {
        "test_one": f"{ONCE}\ndef test_it():\n    assert not first_time('x')\n",
        "conftest": f"{ONCE}\ndef pytest_unconfigure():\n    if first_time('end'):\n        raise ValueError('left')\n",
    }
    code, output = run(tmp_path, **files)
    assert "ValueError: left" in output
    assert (code, verdicts(output)) == (0, ["FLAKY   test_one.py::test_it"]), output
