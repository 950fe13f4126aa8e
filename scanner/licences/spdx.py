"""SPDX licence ids and expressions: what is a valid id, and how terms are joined in one order."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache, lru_cache
from typing import NamedTuple

from license_expression import ExpressionError, Licensing, get_spdx_licensing

MAX_EXPRESSION = 2_000
"""Characters of an expression that we parse; the expression parser is not made for hostile input."""

_REFERENCE = re.compile(r"LicenseRef-[A-Za-z0-9.-]+", re.ASCII)
_NOT_IN_REF = re.compile(r"[^A-Za-z0-9.-]+", re.ASCII)


@cache
def _licensing() -> Licensing:
    return get_spdx_licensing()


@cache
def ids() -> Mapping[str, str]:
    """SPDX's licence ids by their lower-case form, deprecated ones by their successors."""
    symbols = _licensing().known_symbols
    known = {key.lower(): key for key, symbol in symbols.items() if not _is_reference(key) and not symbol.is_exception}
    aliases = {
        alias.lower(): key
        for key, symbol in symbols.items()
        if not _is_reference(key) and not symbol.is_exception
        for alias in symbol.aliases
        if re.fullmatch(r"[A-Za-z0-9.+-]+", alias) and not _is_reference(alias)
    }
    return {**aliases, **known}


@lru_cache(maxsize=4096)
def valid_expression(text: str) -> str:
    """`text` as a valid expression of SPDX ids in their canonical spelling, or "" if it is none.

    `LicenseRef-…` is valid, as in SPDX: it names a licence that is in no list.
    """
    if not text or len(text) > MAX_EXPRESSION:
        return ""
    licensing = _licensing()
    try:
        parsed = licensing.parse(text, validate=False, strict=True)
        unknown = licensing.unknown_license_keys(parsed)
    except (ExpressionError, RecursionError, ValueError, AttributeError, TypeError):
        # The parser lets its own errors out on some malformed input.
        return ""
    rendered = str(parsed) if parsed is not None else ""
    if "LicenseRef-scancode" in rendered or not all(map(_REFERENCE.fullmatch, unknown)):
        return ""
    return rendered


def reference(name: str) -> str:
    """The `LicenseRef-…` of a licence that has a name, but no SPDX id."""
    return f"LicenseRef-{_NOT_IN_REF.sub('-', name).strip('-.')[:80] or 'unnamed'}"


class Joined(NamedTuple):
    """Licences that all hold ("AND"), or of which one may be chosen ("OR")."""

    operator: str
    operands: frozenset[str | Joined]


Expression = str | Joined
"""A licence (an id, or an id WITH an exception), several joined, or "" for none."""


def both(terms: Iterable[Expression]) -> Expression:
    """All of `terms` hold."""
    return _join("AND", terms)


def either(terms: Iterable[Expression]) -> Expression:
    """One of `terms` may be chosen."""
    return _join("OR", terms)


def render(expression: Expression) -> str:
    """The expression as text: operands sorted, each once."""
    if isinstance(expression, str):
        return expression
    shown = sorted(
        f"({render(operand)})" if isinstance(operand, Joined) else operand for operand in expression.operands
    )
    return f" {expression.operator} ".join(shown)


def _join(operator: str, terms: Iterable[Expression]) -> Expression:
    operands: set[Expression] = set()
    for term in terms:
        if isinstance(term, Joined) and term.operator == operator:
            operands |= term.operands
        elif term:
            operands.add(term)
    if len(operands) > 1:
        return Joined(operator, frozenset(operands))
    return next(iter(operands), "")


def _is_reference(key: str) -> bool:
    return key.startswith("LicenseRef-")
