"""Semantic versions: semver.org 2.0.0, precedence as in its section 11; OSV's SEMVER ranges use it.

A leading `v` is not allowed (OSV schema, `affected[].ranges[].type`); `MAJOR` and `MAJOR.MINOR` are read
as if followed by zeros, because records hold them as boundaries.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

from scanner.versions.interface import VersionError, check_length

_NUMBER = r"(?:0|[1-9][0-9]*)"
_SEMVER = re.compile(
    rf"({_NUMBER})(?:\.({_NUMBER}))?(?:\.({_NUMBER}))?(?:-([0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*))?"
    r"(?:\+[0-9A-Za-z-]+(?:\.[0-9A-Za-z-]+)*)?",
    re.ASCII,
)

SemverKey: TypeAlias = "tuple[int, int, int, int, tuple[tuple[int, int, str], ...]]"


class SemverOrder:
    """The order of semantic versions; build metadata does not count."""

    name = "semver"

    def key(self, version: str) -> SemverKey:
        """The sort key: numbers, then 0 with a pre-release or 1 without, then its identifiers.

        Raises:
            VersionError: not a semantic version.
        """
        return _key(version)


@lru_cache(maxsize=65_536)
def _key(version: str) -> SemverKey:
    check_length(version, "semver")
    match = _SEMVER.fullmatch(version)
    if match is None:
        raise VersionError(f"semver version {version!r}: expected MAJOR.MINOR.PATCH[-pre][+build]")
    major, minor, patch, pre = match.groups()
    identifiers = tuple(map(_identifier, pre.split("."))) if pre else ()
    return int(major), int(minor or 0), int(patch or 0), 0 if pre else 1, identifiers


def _identifier(text: str) -> tuple[int, int, str]:
    # Numbers sort before words, numbers by value, words by ASCII (section 11.4).
    return (0, int(text), "") if text.isdigit() else (1, 0, text)
