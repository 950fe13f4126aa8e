"""What a benchmark writes into docs/: the text between two marks, so that no figure there is written by hand."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"


def write_between(path: Path, name: str, text: str) -> None:
    """Replace what stands between `<!-- begin NAME -->` and `<!-- end NAME -->`.

    Raises:
        ValueError: the file has no such marks.
    """
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    before, found, rest = path.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not found or not closed:
        raise ValueError(f"{path}: no marks {begin.strip()} and {end}")
    path.write_text(f"{before}{begin}{text.rstrip()}\n{end}{after}")


def where() -> str:
    """The machine that figures were taken on, and what else it did: one line."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} CPUs, kernel {platform.release()}, Python {platform.python_version()}, "
        f"{datetime.now(UTC):%Y-%m-%d}; load average at the start {load:.1f}"
    )


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' ---: |' * (len(heads) - 1)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])
