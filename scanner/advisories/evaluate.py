"""Is a version affected: the evaluation algorithm of the OSV schema, with a third answer.

The schema's answer is yes or no. Where a boundary or the version itself cannot be read, or a record names
no version at all, ours is `Undetermined`, and its caller reports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scanner.advisories.records import Affected, Event, EventKind, Range, RangeKind
from scanner.versions.interface import Key, VersionError, VersionOrder
from scanner.versions.semver import SemverOrder

_SEMVER: Final[VersionOrder] = SemverOrder()

# At one version: a fix first, then a new introduction (which wins, to be safe), then "last affected", which speaks
# of later versions only and must not be undone by an introduction at its own version.
_TIES: Final = {EventKind.FIXED: 0, EventKind.INTRODUCED: 1, EventKind.LAST_AFFECTED: 2, EventKind.LIMIT: 3}


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """The version is affected; `fixed_in` is the first later version that is not, "" if none is named."""

    fixed_in: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Undetermined:
    """It cannot be told whether the version is affected."""

    detail: str


Answer = Hit | Undetermined | None
"""None: the version is not affected."""


def evaluate(affected: Affected, version: str, order: VersionOrder) -> Answer:
    """Whether `version` is affected, by what an advisory says of its package."""
    ranges = [item for item in affected.ranges if item.kind is not RangeKind.GIT]
    if not ranges and not affected.versions:
        return Undetermined(detail="the record names no version")
    fixes: list[str] = []
    doubt: Undetermined | None = None
    for item in ranges:
        answer = _in_range(item, version, _SEMVER if item.kind is RangeKind.SEMVER else order)
        if isinstance(answer, Hit):
            fixes.append(answer.fixed_in)
        elif answer is not None:
            doubt = answer
    if fixes:
        return Hit(fixed_in=next((fix for fix in fixes if fix), ""))
    if _listed(affected.versions, version, order):
        return Hit(fixed_in=_later_fix(ranges, version, order))
    return doubt


def _listed(versions: tuple[str, ...], version: str, order: VersionOrder) -> bool:
    if version in versions:
        return True
    try:
        key = order.key(version)
    except VersionError:
        return False
    # "1.0" and "1.0.0" are one version on PyPI.
    return any(_readable_key(order, item) == key for item in versions)


def _in_range(item: Range, version: str, order: VersionOrder) -> Answer:
    try:
        key = order.key(version)
        events = [(_event_key(event, order), event) for event in item.events]
    except VersionError as error:
        return Undetermined(detail=str(error))
    limits = [point for point, event in events if event.kind is EventKind.LIMIT]
    if limits and not any(point is None or key < point for point in limits):
        return None
    affected = False
    for point, event in _sorted(events):
        if event.kind is EventKind.INTRODUCED and (point is None or point <= key):
            affected = True
        elif point is None:
            continue
        elif (event.kind is EventKind.FIXED and point <= key) or (
            event.kind is EventKind.LAST_AFFECTED and point < key
        ):
            affected = False
    return Hit(fixed_in=_first_fix(events, key)) if affected else None


def _event_key(event: Event, order: VersionOrder) -> Key | None:
    """The key of an event; None for the two special values: "0" (before all) and a limit of "*" (after all)."""
    if (event.kind is EventKind.INTRODUCED and event.version == "0") or (
        event.kind is EventKind.LIMIT and event.version == "*"
    ):
        return None
    return order.key(event.version)


def _sorted(events: list[tuple[Key | None, Event]]) -> list[tuple[Key | None, Event]]:
    first = [item for item in events if item[0] is None]
    rest = [item for item in events if item[0] is not None]
    # Stable: by the tie rule first, then by version.
    rest.sort(key=lambda item: _TIES[item[1].kind])
    rest.sort(key=lambda item: item[0])  # type: ignore[arg-type,return-value]  # None was taken out above
    return first + rest


def _first_fix(events: list[tuple[Key | None, Event]], key: Key) -> str:
    later = [(point, event.version) for point, event in events if event.kind is EventKind.FIXED and point is not None]
    for point, fixed in sorted(later, key=lambda item: item[0]):
        if key < point:
            return fixed
    return ""


def _later_fix(ranges: list[Range], version: str, order: VersionOrder) -> str:
    for item in ranges:
        try:
            events = [(_event_key(event, order), event) for event in item.events]
            if fix := _first_fix(events, order.key(version)):
                return fix
        except VersionError:
            continue
    return ""


def _readable_key(order: VersionOrder, version: str) -> Key | None:
    try:
        return order.key(version)
    except VersionError:
        return None
