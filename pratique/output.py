"""How verbs print: tables and lines for people, JSON for programs, progress on stderr.

Text that comes from an image or a registry may hold control characters that would steer a terminal, so
every cell and line is cleaned before it is printed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

from ocispec.strictjson import JsonValue


def clean(text: str) -> str:
    """`text` with control characters (terminal escapes among them) and lone surrogates shown as escapes."""
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() or char == " " else char.encode("unicode_escape").decode() for char in text
    )


def line(text: str = "", *, to: TextIO | None = None) -> None:
    """Print one line, cleaned."""
    if to is not None:
        sys.stdout.flush()  # into a pipe, what was said before would else come after
    print(clean(text), file=to or sys.stdout)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under a header, columns aligned, two spaces between them; the last column is not padded."""
    cells = [list(header)] + [[clean(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for row in cells:
        padded = [cell.ljust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True)]
        print("  ".join([*padded, row[-1]]).rstrip())


def as_json(value: JsonValue) -> None:
    """Print `value` as indented JSON with sorted names."""
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=True))


def size(count: int) -> str:
    """`count` bytes for people, in powers of 1000."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    raise AssertionError("unreachable")
