"""Paragraphs of `Field: value` lines: deb822(5), as dpkg's status file and copyright files are written."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Final

MAX_PARAGRAPHS: Final = 50_000
"""Paragraphs of one file; the largest real systems have some 5,000 packages."""

_FIELD: Final = re.compile(r"([!-9;-~]+):[ \t]*(.*)", re.ASCII)


class Deb822Error(ValueError):
    """A text is not in this form; says the line's number."""


def paragraphs(text: str, fields: Collection[str] | None = None) -> Iterator[dict[str, str]]:
    """The paragraphs of `text`, as values by field name in lower case; only `fields`, if given.

    Continuation lines are joined by newlines, without their leading blank.

    Raises:
        Deb822Error: a line is neither a field nor a continuation, a field stands twice, or there are too many.
    """
    reader = _Reader(fields)
    for number, line in enumerate(text.split("\n"), start=1):
        if not line or line.isspace():
            if (paragraph := reader.end()) is not None:
                yield paragraph
        elif line[0] in " \t":
            reader.continuation(line, number)
        elif line[0] != "#":
            reader.field(line.rstrip(), number)
    if (paragraph := reader.end()) is not None:
        yield paragraph


class _Reader:
    """One paragraph being read."""

    def __init__(self, fields: Collection[str] | None) -> None:
        self._fields = fields
        self._count = 0
        self._current: dict[str, list[str]] | None = None
        self._name = ""

    def end(self) -> dict[str, str] | None:
        """The paragraph, if one was begun."""
        done, self._current, self._name = self._current, None, ""
        return {name: "\n".join(lines) for name, lines in done.items()} if done is not None else None

    def continuation(self, line: str, number: int) -> None:
        """A line that continues the field before it."""
        if self._current is None:
            raise Deb822Error(f"line {number}: a continuation without a field")
        if self._name:
            self._current[self._name].append(line[1:].rstrip())

    def field(self, line: str, number: int) -> None:
        """A line that begins a field."""
        match = _FIELD.fullmatch(line)
        if match is None:
            raise Deb822Error(f"line {number}: got {line[:60]!r}, expected 'Field: value'")
        if self._current is None:
            self._current = {}
            self._count += 1
            if self._count > MAX_PARAGRAPHS:
                raise Deb822Error(f"line {number}: more than {MAX_PARAGRAPHS} paragraphs")
        name = match.group(1).lower()
        if self._fields is not None and name not in self._fields:
            self._name = ""
            return
        if name in self._current:
            raise Deb822Error(f"line {number}: the field {match.group(1)} stands twice")
        self._name = name
        self._current[name] = [match.group(2)]
