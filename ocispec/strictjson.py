"""JSON as hostile input: parsed once, strictly, from the very bytes that were hashed.

RFC 8259 leaves duplicate names, huge numbers and depth to the implementation, and two parsers that
choose differently see two documents under one digest (CVE-2021-41190 is of that family). So what is
ambiguous is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import NoReturn, TypeAlias

from ocispec.errors import LimitError, SpecError

JsonValue: TypeAlias = "str | int | float | bool | list[JsonValue] | dict[str, JsonValue] | None"

MAX_BYTES = 4 * 1024 * 1024
"""The largest document read: the distribution specification asks registries for at least 4 MiB."""

MAX_DEPTH = 64
"""Brackets within brackets; the deepest real document (an SPDX SBOM) stays under 20."""

MAX_SAFE_INTEGER = 2**53 - 1
"""RFC 8259 section 6: beyond it, parsers that use doubles disagree with those that do not."""


MAX_NUMBER = 64
"""Characters of a number with a fraction or exponent; 17 digits already tell all doubles apart."""

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


def parse(raw: bytes, *, what: str, max_bytes: int = MAX_BYTES) -> JsonValue:
    """Return the value of the JSON document `raw`; `what` names it in errors.

    Raises:
        LimitError: more than `max_bytes` bytes or more than MAX_DEPTH levels.
        SpecError: not UTF-8, not JSON, a duplicate name, NaN or Infinity, an integer beyond 2^53,
            or a lone surrogate.
    """
    if len(raw) > max_bytes:
        raise LimitError(f"{what}: got {len(raw)} bytes, expected at most {max_bytes}")
    _check_depth(raw, what)
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{what}: not UTF-8 at byte {error.start}") from None

    def refuse_constant(name: str) -> NoReturn:
        raise SpecError(f"{what}: got the number {name}, which JSON does not have")

    def integer(literal: str) -> int:
        if len(literal) > 17 or abs(int(literal)) > MAX_SAFE_INTEGER:
            raise SpecError(f"{what}: integer {literal[:24]} is beyond 2^53-1")
        return int(literal)

    def number(literal: str) -> float:
        if len(literal) > MAX_NUMBER or not math.isfinite(value := float(literal)):
            raise SpecError(f"{what}: number {literal[:24]} is too long, or not finite as a double")
        return value

    def unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
        members = dict(pairs)
        if len(members) != len(pairs):
            seen: set[str] = set()
            twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]  # set.add returns None on purpose here
            raise SpecError(f"{what}: duplicate name {twice[:80]!r}")
        return members

    try:
        value: JsonValue = json.loads(
            text, object_pairs_hook=unique, parse_constant=refuse_constant, parse_int=integer, parse_float=number
        )
    except json.JSONDecodeError as error:
        raise SpecError(f"{what}: not JSON: {error.msg} at character {error.pos}") from None
    if "\\u" in text and _has_surrogate(value):
        raise SpecError(f"{what}: a lone surrogate stands in a string")
    return value


def parse_object(raw: bytes, *, what: str, max_bytes: int = MAX_BYTES) -> dict[str, JsonValue]:
    """Like `parse`, and the document must be an object."""
    value = parse(raw, what=what, max_bytes=max_bytes)
    if not isinstance(value, dict):
        raise SpecError(f"{what}: got {type_name(value)}, expected an object")
    return value


def type_name(value: object) -> str:
    """The JSON word for the type of `value`, for messages."""
    names: Mapping[type, str] = {
        dict: "an object",
        list: "an array",
        str: "a string",
        bool: "a boolean",
        int: "a number",
        float: "a number",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _check_depth(raw: bytes, what: str) -> None:
    # The C scanner recurses before any hook can count, so brackets are counted first, outside strings.
    if raw.count(b"[") + raw.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for byte in _STRING.sub(b"", raw).translate(None, _NOT_BRACKETS):
        depth += 1 if byte in b"[{" else -1
        if depth > MAX_DEPTH:
            raise LimitError(f"{what}: nested deeper than {MAX_DEPTH} levels")


def _has_surrogate(value: JsonValue) -> bool:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return True
        return False
    if isinstance(value, list):
        return any(_has_surrogate(item) for item in value)
    if isinstance(value, dict):
        return any(_has_surrogate(name) or _has_surrogate(item) for name, item in value.items())
    return False
