"""One run of the suite: what it is told, and what it says at its end."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import yaml

VERSIONS: Final = ("1.1", "dev")
"""The versions of the specification, as the suite calls them."""

OPTIONAL: Final = {
    "OCI_API_BLOBS_UPLOAD_CANCEL": "true",
    "OCI_API_BLOBS_DIGEST_HEADER": "true",
    "OCI_API_MANIFESTS_DIGEST_HEADER": "true",
}
"""What the suite leaves out of 1.1 unless it is asked for; in `dev` it is in anyway."""

SECONDS: Final = 600
"""How long one run may take."""

_LEFT_OUT: Final = {"Skip", "Disabled"}


class SuiteError(Exception):
    """The suite did not run to its end; what it said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A registry that runs on loopback without TLS; without a user, to everybody."""

    name: str
    address: str
    user: str = ""
    password: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the suite counted, the names of the tests that failed, and which parts it skipped or did not run."""

    version: str
    commit: str
    passed: int
    failed: int
    errors: int
    skipped: int
    disabled: int
    seconds: float
    failures: tuple[str, ...]
    left_out: tuple[str, ...]

    @property
    def total(self) -> int:
        """All that it counted."""
        return self.passed + self.failed + self.errors + self.skipped + self.disabled


def digest_of(binary: Path) -> str:
    """The SHA-256 of the suite's binary, in hex."""
    with binary.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def run(binary: Path, target: Target, version: str) -> Outcome:
    """Run the suite in a folder of its own.

    Raises:
        SuiteError: it left no results, or none that add up.
    """
    with tempfile.TemporaryDirectory(prefix="pratique-conformance-") as folder:
        results = Path(folder) / "results"
        ended = subprocess.run(
            [binary.absolute()],
            cwd=folder,
            env=_environment(target, version, results),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
        try:
            outcome = read(results, version)
        except (OSError, ValueError, KeyError, ElementTree.ParseError, yaml.YAMLError) as error:
            said = (ended.stdout + ended.stderr)[-2000:].decode(errors="replace")
            raise SuiteError(f"{binary} left no results ({type(error).__name__}: {error}); it said:\n{said}") from error
    if (ended.returncode != 0) != bool(outcome.failed or outcome.errors):
        raise SuiteError(f"{binary} ended with {ended.returncode}, but counts {outcome.failed} failures")
    return outcome


def read(results: Path, version: str) -> Outcome:
    """What stands in the suite's folder of results.

    Raises:
        OSError, ValueError, KeyError, ParseError, YAMLError: it is not there, or not what the suite writes.
    """
    said = yaml.safe_load((results / "results.yaml").read_bytes())
    if said["config"]["version"] not in {version, f"1.1+{version}"}:
        raise ValueError(f"results of version {said['config']['version']}, expected {version}")
    # Written by the program that we have just run; ElementTree reads no external entities.
    top = ElementTree.parse(results / "junit.xml").getroot()  # noqa: S314
    suite = top[0]
    counts = {name: int(suite.get(name, "0")) for name in ("tests", "failures", "errors", "skipped", "disabled")}
    passed = counts["tests"] - sum(count for name, count in counts.items() if name != "tests")
    if passed <= 0:
        raise ValueError(f"nothing passed: {counts}")
    cases = suite.iter("testcase")
    return Outcome(
        version=version,
        commit=said["config"]["commit"],
        passed=passed,
        failed=counts["failures"],
        errors=counts["errors"],
        skipped=counts["skipped"],
        disabled=counts["disabled"],
        seconds=float(suite.get("time", "0")),
        failures=tuple(case.get("name", "") for case in cases if case.get("status") not in {"passed", "skipped"}),
        left_out=_left_out(said["apis"]) + _left_out(said["data"]),
    )


def _environment(target: Target, version: str, results: Path) -> dict[str, str]:
    settings = {
        "OCI_REGISTRY": target.address,
        "OCI_TLS": "disabled",
        "OCI_VERSION": version,
        "OCI_RESULTS_DIR": str(results),
        **OPTIONAL,
    }
    if target.user:
        settings |= {"OCI_USERNAME": target.user, "OCI_PASSWORD": target.password}
    # Nothing of the caller's: a variable OCI_… of it would change what is tested, a proxy would be asked.
    return {"PATH": os.environ["PATH"], "HOME": str(results.parent)} | settings


def _left_out(statuses: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(name for name, status in statuses.items() if status in _LEFT_OUT))
