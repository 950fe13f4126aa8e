"""The command around the suite: what it reads, what it takes for wrong, and that the page says what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conformance.explained import EXPLAINED
from tests.conformance.figures import PAGE, Figure, differences, published
from tests.conformance.suite import VERSIONS, Outcome, SuiteError, Target, run

TARGET = Target(name="nobody", address="127.0.0.1:1", user="pusher", password="secret")

JUNIT = """\
<testsuites tests="{tests}"><testsuite name="suite" tests="{tests}" failures="{failures}" errors="0" {more} time="1.5">
<testcase name="ping" status="passed"/><testcase name="push/blob" status="{status}"/>
</testsuite></testsuites>"""

RESULTS = """\
config: {{version: "{version}", commit: "{commit}"}}
apis: {{Ping: Pass, Blob push: {blob}}}
data: {{Image: Pass, Sparse Manifests: Disabled}}"""


def fake_suite(
    folder: Path, *, failures: int = 0, more: str = "", blob: str = "Pass", version: str = "1.1", code: int = 0
) -> Path:
    """A program that leaves results as the suite does, and keeps its environment in `folder`."""
    status = "failure" if failures else "passed"
    junit = JUNIT.format(tests=10, failures=failures, more=more, status=status)
    results = RESULTS.format(version=version, commit="c" * 40, blob=blob)
    binary = folder / "suite"
    binary.write_text(
        f'#!/bin/sh\nenv >"{folder}/env"\nmkdir "$OCI_RESULTS_DIR" && cd "$OCI_RESULTS_DIR" || exit 9\n'
        f"cat >junit.xml <<'END'\n{junit}\nEND\ncat >results.yaml <<'END'\n{results}\nEND\nexit {code}\n"
    )
    binary.chmod(0o755)
    return binary


def test_a_run_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OCI_API_PUSH", "false")
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.example")
    outcome = run(fake_suite(tmp_path, more='skipped="2" disabled="1"'), TARGET, "1.1")
    assert (outcome.passed, outcome.failed, outcome.skipped, outcome.disabled, outcome.total) == (7, 0, 2, 1, 10)
    assert (outcome.failures, outcome.left_out, outcome.seconds) == ((), ("Sparse Manifests",), 1.5)
    told = (tmp_path / "env").read_text()
    assert "OCI_VERSION=1.1\n" in told
    assert "OCI_USERNAME=pusher\n" in told
    assert "OCI_API_PUSH" not in told
    assert "HTTP_PROXY" not in told


def test_failures_are_named(tmp_path: Path) -> None:
    outcome = run(fake_suite(tmp_path, failures=1, blob="FAIL", code=1), TARGET, "1.1")
    assert (outcome.passed, outcome.failed, outcome.failures) == (9, 1, ("push/blob",))


@pytest.mark.parametrize(
    "wrong", [{"failures": 1, "code": 0}, {"failures": 0, "code": 1}, {"version": "1.0"}, {"failures": 10, "code": 1}]
)
def test_results_that_do_not_add_up_are_no_results(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(SuiteError):
        run(fake_suite(tmp_path, **wrong), TARGET, "1.1")  # type: ignore[arg-type] # as its keywords


def test_a_suite_that_leaves_nothing_did_not_pass(tmp_path: Path) -> None:
    binary = tmp_path / "suite"
    binary.write_text("#!/bin/sh\necho 'failed to load config'\n")
    binary.chmod(0o755)
    with pytest.raises(SuiteError, match="failed to load config"):
        run(binary, TARGET, "1.1")


def test_a_file_that_is_none_is_no_suite() -> None:
    command = [sys.executable, "-m", "tests.conformance", "/nonexistent/suite"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PAGE.parents[1])
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "expected the suite's binary" in ended.stderr


def test_the_page_gives_the_reasons_that_the_command_prints() -> None:
    rows = re.findall(r"^\| (1\.1|dev) \| ([^|]+) \| ([^|]+) \|$", PAGE.read_text(), re.MULTILINE)
    assert sorted(rows) == sorted(
        (version, name, reason) for version, reasons in EXPLAINED.items() for name, reason in reasons.items()
    )


def test_the_page_has_figures_of_each_version_without_a_failure() -> None:
    figures = published()
    assert tuple(figure.version for figure in figures) == VERSIONS
    assert all(figure.failed == 0 and figure.skipped == 0 and figure.passed > 800 for figure in figures)


def test_the_page_is_compared_with_a_run_of_the_same_suite() -> None:
    shown = published()
    outcome = Outcome(
        version=shown[0].version,
        commit=shown[0].commit,
        passed=shown[0].passed - 1,
        failed=0,
        errors=0,
        skipped=1,
        disabled=0,
        seconds=1.0,
        failures=(),
        left_out=(),
    )
    assert differences((shown[0],), shown) == ()
    assert len(differences((Figure.of(outcome),), shown)) == 1
    assert differences((Figure.of(outcome),), ()) == (f"no figures of version {shown[0].version}",)
