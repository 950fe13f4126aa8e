"""Conditional requests: RFC 9110 section 13, on entity tags that are digests.

A client that writes a list under a tag (the referrers fallback index) says what it read before, so that two of them
do not undo each other; one that looks whether a tag has moved is not sent what it has.
"""

from __future__ import annotations

from flask import request

from ocispec.digest import Digest
from registry.errors import PreconditionError


def entity_tag(digest: Digest) -> str:
    """The strong validator of what has that digest."""
    return f'"{digest}"'


def require_condition(current: Digest | None, what: str) -> None:
    """Check If-Match and If-None-Match before `what`, which is `current` now, is written or removed.

    Raises:
        PreconditionError: it is not as the client expects.
    """
    _require_match(current, what)
    if request.if_none_match and current is not None and request.if_none_match.contains_weak(str(current)):
        raise PreconditionError(f"{what}: is there already, and If-None-Match names it")


def is_unchanged(current: Digest, what: str) -> bool:
    """True if the client of a GET or HEAD has `current` already (304).

    Raises:
        PreconditionError: If-Match names another content.
    """
    _require_match(current, what)
    return bool(request.if_none_match) and request.if_none_match.contains_weak(str(current))


def is_range_valid(current: Digest) -> bool:
    """False if If-Range says that the client's part is of another content, so that it needs all of it."""
    wanted = request.headers.get("If-Range")
    return wanted is None or wanted.strip() == entity_tag(current)


def _require_match(current: Digest | None, what: str) -> None:
    if request.if_match and (current is None or not request.if_match.contains(str(current))):
        # What it is instead is not said: whoever may write here may perhaps not read.
        raise PreconditionError(f"{what}: {'is not there' if current is None else 'is not what If-Match names'}")
