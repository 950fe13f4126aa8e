"""A Decision for people, and as the tree that a registry's 403 carries."""

from __future__ import annotations

from ocispec.strictjson import JsonValue
from policy.model import Decision


def explain(decision: Decision) -> dict[str, JsonValue]:
    """The Decision as a JSON tree: state, first reason, and each refusal field by field."""
    raise NotImplementedError


def explain_lines(decision: Decision) -> tuple[str, ...]:
    """The same as lines of text."""
    raise NotImplementedError


def first_reason(decision: Decision) -> str:
    """One line: the first refusal, or what the state rests on."""
    raise NotImplementedError
