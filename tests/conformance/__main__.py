"""Run the suite, say what it counted, and why what it left out was left out.

    python -m tests.conformance BINARY [--peer]

Ends with 1 if anything failed on this registry, if something was left out that nobody explained, or if
docs/conformance.md has other figures of the same suite; with 2 if the suite could not be run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.conformance.explained import EXPLAINED
from tests.conformance.figures import Figure, differences, published
from tests.conformance.suite import VERSIONS, Outcome, SuiteError, Target, digest_of, run
from tests.conformance.targets import ours, peer


def main() -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.partition("\n")[0])
    parser.add_argument("binary", type=Path, help="the suite, built from opencontainers/distribution-spec/conformance")
    parser.add_argument("--peer", action="store_true", help="run it on Debian's docker-registry too")
    options = parser.parse_args()
    if not options.binary.is_file():
        print(f"conformance: {options.binary} is no file; expected the suite's binary", file=sys.stderr)
        return 2
    print(f"suite: {options.binary}, sha256 {digest_of(options.binary)}")
    try:
        with ours() as target:
            outcomes = _run(options.binary, target)
        if options.peer:
            with peer() as target:
                _run(options.binary, target)
    except SuiteError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 2
    return 1 if _judge(outcomes) else 0


def _run(binary: Path, target: Target) -> tuple[Outcome, ...]:
    """Run all versions on one registry, and print a line for each."""
    found = []
    for version in VERSIONS:
        outcome = run(binary, target, version)
        print(
            f"{target.name:<26} {version:<4} {outcome.passed:>5} passed {outcome.failed + outcome.errors:>4} failed "
            f"{outcome.skipped:>4} skipped {outcome.disabled:>4} disabled {outcome.total:>5} in all "
            f"{outcome.seconds:>6.1f} s, of commit {outcome.commit}",
            flush=True,
        )
        found.append(outcome)
    return tuple(found)


def _judge(outcomes: tuple[Outcome, ...]) -> int:
    """Print what is wrong and what was left out; returns how much is wrong."""
    wrong = 0
    for outcome in outcomes:
        reasons = EXPLAINED[outcome.version]
        for name in outcome.failures:
            print(f"{outcome.version}: FAILED {name}")
        for name in outcome.left_out:
            print(f"{outcome.version}: not tested: {name}: {reasons.get(name, 'NOT EXPLAINED')}")
        wrong += outcome.failed + outcome.errors + sum(name not in reasons for name in outcome.left_out)
    for line in differences(tuple(map(Figure.of, outcomes)), published()):
        print(f"docs/conformance.md: {line}")
        wrong += 1
    return wrong


if __name__ == "__main__":
    sys.exit(main())
