"""What a version order is: a way to turn a version's text into a key that Python compares.

A text that the scheme does not allow raises; its caller reports `Unknown` and never guesses an order
(claircore's Alpine matcher calls an unreadable version "not vulnerable": the opposite of what is wanted).
"""

from __future__ import annotations

from typing import Any, Protocol

from scanner.errors import ScanError

MAX_VERSION = 255
"""Characters of a version that we read: longer ones are no versions, and number parsing is quadratic."""


class VersionError(ScanError):
    """A text is not a version of its scheme."""


class Key(Protocol):
    """A value with a total order among the keys of one scheme."""

    def __lt__(self, other: Any, /) -> bool:
        """True if this version is the older one."""

    def __le__(self, other: Any, /) -> bool:
        """True if this version is not the newer one."""


class VersionOrder(Protocol):
    """The order of one scheme of versions."""

    @property
    def name(self) -> str:
        """The scheme, as in messages: `dpkg`, `pep440`, `semver`."""

    def key(self, version: str) -> Key:
        """The sort key of `version`.

        Raises:
            VersionError: the scheme does not allow this text.
        """


def check_length(version: str, scheme: str) -> None:
    """Refuse a text that is too long to be a version, or empty.

    Raises:
        VersionError: it is.
    """
    if not version or len(version) > MAX_VERSION:
        raise VersionError(
            f"{scheme} version {version[:40]!r}: got {len(version)} characters, expected 1 to {MAX_VERSION}"
        )
