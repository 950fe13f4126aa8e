"""Debian's version order: deb-version(7), and the comparison that `dpkg --compare-versions` makes.

A version is `[epoch:]upstream[-revision]`. Upstream and revision are compared in turns: a run of
non-digits, in which `~` sorts before the end, the end before letters, letters before all else; then a run
of digits, as a number. The key below spells this out as a tuple, so that Python's own comparison gives
dpkg's answer: every run of non-digits ends in 0 (the end), every part ends in a lone end.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TypeAlias

from scanner.versions.interface import VersionError, check_length

_EPOCH = re.compile(r"[0-9]{1,10}", re.ASCII)
_UPSTREAM = re.compile(r"[0-9][A-Za-z0-9.+~:-]*", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9.+~]+", re.ASCII)
_RUNS = re.compile(r"([^0-9]*)([0-9]*)", re.ASCII)

MAX_EPOCH = 2**31 - 1
"""dpkg keeps the epoch in an int."""

Part: TypeAlias = "tuple[tuple[int, ...] | int, ...]"
DpkgKey: TypeAlias = "tuple[int, Part, Part]"

_END = 0


class DpkgOrder:
    """The order of Debian and Ubuntu package versions."""

    name = "dpkg"

    def key(self, version: str) -> DpkgKey:
        """The sort key of a deb version: epoch, upstream, revision.

        Raises:
            VersionError: not `[epoch:]upstream[-revision]` in the characters that deb-version(7) allows.
        """
        return _key(version)


@lru_cache(maxsize=65_536)
def _key(version: str) -> DpkgKey:
    check_length(version, "dpkg")
    epoch_text, colon, rest = version.partition(":")
    if not colon:
        epoch_text, rest = "0", version
    upstream, dash, revision = rest.rpartition("-")
    if not dash:
        upstream, revision = rest, ""
    if _EPOCH.fullmatch(epoch_text) is None or int(epoch_text) > MAX_EPOCH:
        raise VersionError(f"dpkg version {version!r}: epoch is {epoch_text!r}, expected a number up to {MAX_EPOCH}")
    if _UPSTREAM.fullmatch(upstream) is None:
        raise VersionError(f"dpkg version {version!r}: got {upstream!r}, expected a digit, then letters, digits, .+~:-")
    if dash and _REVISION.fullmatch(revision) is None:
        raise VersionError(f"dpkg version {version!r}: revision is {revision!r}, expected letters, digits, .+~")
    return int(epoch_text), _part(upstream), _part(revision)


def _part(text: str) -> Part:
    key: list[tuple[int, ...] | int] = []
    for letters, digits in _RUNS.findall(text):
        # The empty match that ends every text is the lone end; an empty text counts as "0" before it.
        key.append((*map(_rank, letters), _END))
        if letters or digits or not text:
            key.append(int(digits or "0"))
    if not text:
        key.append((_END,))
    return tuple(key)


def _rank(char: str) -> int:
    if char == "~":
        return -1
    return ord(char) if char.isalpha() else ord(char) + 256
