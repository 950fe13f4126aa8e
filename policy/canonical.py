"""Canonical JSON: RFC 8785 without floats, so that one value has one spelling and one digest.

Floats are left out because two languages may print one double differently, and nothing that is signed
here needs them.
"""

from __future__ import annotations

import json
from typing import TypeAlias

import rfc8785

from ocispec.digest import Digest
from ocispec.strictjson import JsonValue
from policy.errors import PolicyError

Canonical: TypeAlias = JsonValue
"""What can be written: any JSON value but floats, which `encode` refuses."""


def encode(value: Canonical) -> bytes:
    """The RFC 8785 form of `value`.

    Raises:
        PolicyError: a float, an integer beyond 2^53-1, a lone surrogate, or another type.
    """
    _refuse_floats(value)
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise PolicyError(f"canonical JSON: {error}") from error


def digest(value: Canonical) -> Digest:
    """The sha256 of the canonical form of `value`."""
    return Digest.of(encode(value))


def spells(raw: bytes, value: Canonical) -> bool:
    """True if `raw` is the canonical form of `value`, whose names must be ASCII and which holds no float.

    For reading, where it costs a fifth of `encode`: with ASCII names, sorting by code point (json) and by
    UTF-16 unit (RFC 8785 section 3.2.3) agree, and both escape the same characters the same way.
    """
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass") == raw


def _refuse_floats(value: Canonical) -> None:
    if isinstance(value, float):
        raise PolicyError(f"canonical JSON: {value!r} is a float, expected whole numbers only")
    if isinstance(value, dict):
        for member in value.values():
            _refuse_floats(member)
    elif isinstance(value, list):
        for member in value:
            _refuse_floats(member)
