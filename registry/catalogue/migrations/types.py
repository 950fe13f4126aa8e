"""Column types that migrations share. What is here never changes: old migrations mean it."""

from __future__ import annotations

from sqlalchemy import String, Text


def bytewise(length: int | None = None) -> String:
    """Text of at most `length` characters, compared and sorted by its bytes on every database."""
    kind: type[String] = Text if length is None else String
    return kind(length).with_variant(kind(length, collation="C"), "postgresql")
