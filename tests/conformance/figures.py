"""The figures in docs/conformance.md, so that a run can say whether they still hold."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.conformance.suite import Outcome

PAGE: Final = Path(__file__).parents[2] / "docs" / "conformance.md"

_ROW: Final = re.compile(r"\| pratique \| (1\.1|dev) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|")
_COMMIT: Final = re.compile(r"commit\s+`([0-9a-f]{40})`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What one run counted, without what differs from run to run."""

    version: str
    commit: str
    passed: int
    failed: int
    skipped: int
    disabled: int
    total: int

    @classmethod
    def of(cls, outcome: Outcome) -> Figure:
        """The figures of a run."""
        return cls(
            version=outcome.version,
            commit=outcome.commit,
            passed=outcome.passed,
            failed=outcome.failed + outcome.errors,
            skipped=outcome.skipped,
            disabled=outcome.disabled,
            total=outcome.total,
        )


def published(text: str | None = None) -> tuple[Figure, ...]:
    """The figures of this registry that the page shows."""
    page = PAGE.read_text() if text is None else text
    commit = _COMMIT.search(page)
    if commit is None:
        raise ValueError(f"{PAGE.name}: names no commit of the suite")
    return tuple(
        Figure(
            version=version,
            commit=commit[1],
            **dict(zip(("passed", "failed", "skipped", "disabled", "total"), map(int, counts), strict=True)),
        )
        for version, *counts in _ROW.findall(page)
    )


def differences(found: tuple[Figure, ...], shown: tuple[Figure, ...]) -> tuple[str, ...]:
    """Where the page is wrong; of another commit of the suite it says nothing."""
    by_version = {figure.version: figure for figure in shown}
    lines = []
    for figure in found:
        there = by_version.get(figure.version)
        if there is None:
            lines.append(f"no figures of version {figure.version}")
        elif there.commit == figure.commit and there != figure:
            lines.append(f"version {figure.version}: says {there}, counted {figure}")
    return tuple(lines)
