"""Version ranges of the component lists: `<1.2`, `>=2, <2.3`. One text is all of its bounds, a list is any of them.

The order is the component's own (dpkg, PEP 440, …). What cannot be ordered is not guessed: `contains` says None.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from policy.errors import PolicyError
from scanner.ecosystems import ORDERS
from scanner.versions.interface import VersionError

_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
}
MAX_BOUNDS: Final = 8


@dataclass(frozen=True, slots=True)
class Range:
    """Bounds, all of which a version must keep: pairs of an operator and a version."""

    bounds: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Range:
        """Return the range that `text` spells: bounds with commas between them.

        Raises:
            PolicyError: no bound, more than MAX_BOUNDS, an unknown operator, or no version after it.
        """
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > MAX_BOUNDS:
            raise PolicyError(f"version range {text[:60]!r}: got {len(parts)} bounds, expected at most {MAX_BOUNDS}")
        return cls(tuple(_bound(part, text) for part in parts))

    def contains(self, kind: str, version: str) -> bool | None:
        """True or false in the order of component type `kind`; None if a version cannot be read in it."""
        order = ORDERS.get(kind)
        if order is None:
            return None
        try:
            key = order.key(version)
            return all(_COMPARE[sign](key, order.key(bound)) for sign, bound in self.bounds)
        except VersionError:
            return None

    def __str__(self) -> str:
        return ", ".join(f"{sign}{version}" for sign, version in self.bounds)


def _bound(part: str, text: str) -> tuple[str, str]:
    for sign in ("<=", ">=", "<", ">", "="):
        if part.startswith(sign):
            version = part.removeprefix(sign).strip()
            if version and version[0] not in "<>=":
                return sign, version
    raise PolicyError(f"version range {text[:60]!r}: got {part[:40]!r}, expected <, <=, =, >= or > and a version")
