"""Python's version order: the version specifiers specification (PEP 440), as `packaging` implements it.

Versions from before PEP 440 (`1.0-final-r12`) have no order any more: they are refused, hence Unknown.
"""

from __future__ import annotations

from functools import lru_cache

from packaging.version import InvalidVersion, Version

from scanner.versions.interface import VersionError, check_length


class Pep440Order:
    """The order of versions on PyPI."""

    name = "pep440"

    def key(self, version: str) -> Version:
        """The sort key of a PEP 440 version.

        Raises:
            VersionError: PEP 440 does not allow this text.
        """
        return _key(version)


@lru_cache(maxsize=65_536)
def _key(version: str) -> Version:
    check_length(version, "pep440")
    try:
        return Version(version)
    except InvalidVersion:
        raise VersionError(f"pep440 version {version!r}: not a version in the sense of PEP 440") from None
