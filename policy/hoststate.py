"""What a host remembers, so that nobody can take it back in time: pure functions over one value.

The host stores the highest signed time and the highest numbers that it has seen. A number that goes back,
jumps, or stands for another content than before is refused (S6, S12). The runtime keeps the value on disk
as the JSON made here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse
from policy import canonical
from policy.errors import PolicyError, TrustError
from policy.model import Signed
from policy.revocation import CurrentList
from policy.statements import PolicyFloor, TagStatement
from policy.times import SKEW, format_time, whole_seconds
from policy.trust import Trust, check_number
from policy.wire.members import Members

MAX_FIRST: Final = 1_000_000
"""The highest number of a tag that a host takes when it sees the tag for the first time."""

MAX_TAGS: Final = 10_000
"""Tags that a host remembers."""

_MAX_STATE: Final = 4 * 1024 * 1024
_MAX_FLOORS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """The highest number that was seen of something, and the digest of what it stood for."""

    number: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenTag:
    """The highest number of a tag (`registry/repository:tag`), and the digest that it served."""

    name: str
    number: int
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Floor:
    """The lowest version of a policy under which a clearance counts."""

    name: str
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState:
    """A host's memory; the empty one is a fresh host's."""

    highest_time: datetime | None = None
    trust: Seen | None = None
    revocations: Seen | None = None
    floors: tuple[Floor, ...] = ()
    tags: tuple[SeenTag, ...] = ()

    def floor(self, policy: str) -> int:
        """The floor of `policy`; 0 if none was set."""
        return next((floor.version for floor in self.floors if floor.name == policy), 0)


def check_clock(state: HostState, now: datetime) -> None:
    """Refuse a clock that stands more than SKEW below a signed time that was seen: it would revive the expired.

    Raises:
        TrustError: `clock-set-back`.
    """
    if state.highest_time is not None and now < state.highest_time - SKEW:
        seen = format_time(state.highest_time)
        raise TrustError("clock-set-back", "host clock", f"is {now}, and {seen} was seen in a signed statement")


def see_time(state: HostState, issued: datetime, now: datetime) -> HostState:
    """`state` after a believed statement issued at `issued`. A time after `now` counts as `now`: within SKEW
    a statement may be of the future, but must not push the memory beyond the host's own clock."""
    seen = min(issued, whole_seconds(now))
    if state.highest_time is None or seen > state.highest_time:
        return replace(state, highest_time=seen)
    return state


def see_trust(state: HostState, trust: Trust, now: datetime) -> HostState:
    """`state` after `trust` was taken (at enrolment, or by `Trust.update`).

    Raises:
        TrustError: `number-went-back`, `number-jump`, `same-number-other-content`.
    """
    offered = Seen(number=trust.root.version, digest=trust.digest)
    _check("trust.json", state.trust, offered)
    return see_time(replace(state, trust=offered), trust.root.issued, now)


def see_list(state: HostState, current: CurrentList, now: datetime) -> HostState:
    """`state` after `current` was taken.

    Raises:
        TrustError: `number-went-back`, `number-jump`, `same-number-other-content`.
    """
    offered = Seen(number=current.list.statement.number, digest=current.list.digest)
    _check("revocation list", state.revocations, offered)
    return see_time(replace(state, revocations=offered), current.date.statement.issued, now)


def see_floor(state: HostState, floor: Signed[PolicyFloor], now: datetime) -> HostState:
    """`state` after officers raised a floor.

    Raises:
        TrustError: `number-went-back`, `number-jump`.
    """
    name, version = floor.statement.name, floor.statement.version
    before = state.floor(name)
    if before:
        check_number(f"floor of policy {name}", (before, floor.digest), (version, floor.digest))
    others = tuple(known for known in state.floors if known.name != name)
    floors = tuple(sorted((*others, Floor(name=name, version=version)), key=lambda known: known.name))
    return see_time(replace(state, floors=floors), floor.statement.issued, now)


def see_tag(state: HostState, tag: Signed[TagStatement], now: datetime) -> HostState:
    """`state` after a tag statement was taken.

    Raises:
        TrustError: `number-went-back`, `number-jump` (also above MAX_FIRST for a tag not seen before),
            `same-number-other-content`, `too-many-tags`.
    """
    statement = tag.statement
    name = f"{statement.registry}/{statement.repository}:{statement.tag}"
    known = next((seen for seen in state.tags if seen.name == name), None)
    if known is not None:
        check_number(f"tag {name}", (known.number, known.digest), (statement.number, statement.digest))
    elif statement.number > MAX_FIRST:
        raise TrustError(
            "number-jump", f"tag {name}", f"got first number {statement.number}, expected at most {MAX_FIRST}"
        )
    elif len(state.tags) >= MAX_TAGS:
        raise TrustError("too-many-tags", f"tag {name}", f"{MAX_TAGS} tags are remembered already")
    seen = SeenTag(name=name, number=statement.number, digest=statement.digest)
    tags = tuple(sorted((*(tag for tag in state.tags if tag.name != name), seen), key=lambda tag: tag.name))
    return see_time(replace(state, tags=tags), statement.issued, now)


def forget_tag(state: HostState, name: str) -> HostState:
    """`state` without its memory of a tag: an operator's way out after a registry's number was burnt."""
    return replace(state, tags=tuple(tag for tag in state.tags if tag.name != name))


def encode(state: HostState) -> bytes:
    """The JSON to keep."""
    members: dict[str, JsonValue] = {
        "floors": [{"name": floor.name, "version": floor.version} for floor in state.floors],
        "tags": [{"digest": str(tag.digest), "name": tag.name, "number": tag.number} for tag in state.tags],
        "version": 1,
    }
    if state.highest_time is not None:
        members["highestTime"] = format_time(state.highest_time)
    for name, seen in (("trust", state.trust), ("revocations", state.revocations)):
        if seen is not None:
            members[name] = {"digest": str(seen.digest), "number": seen.number}
    return canonical.encode(members)


def decode(raw: bytes) -> HostState:
    """Return the memory in `raw`.

    Raises:
        TrustError: `host-state`: unreadable. A host then starts nothing: an empty memory would believe the past.
    """
    what = "host state"
    try:
        members = Members(parse(raw, what=what, max_bytes=_MAX_STATE), what)
        if members.number("version") != 1:
            raise TrustError("host-state", what, "of another version, expected 1")
        state = HostState(
            highest_time=members.time("highestTime") if members.has("highestTime") else None,
            trust=_seen(members.child("trust")) if members.has("trust") else None,
            revocations=_seen(members.child("revocations")) if members.has("revocations") else None,
            floors=tuple(_floor(floor) for floor in members.children("floors", _MAX_FLOORS)),
            tags=tuple(_tag(tag) for tag in members.children("tags", MAX_TAGS)),
        )
        members.end()
    except (SpecError, PolicyError) as error:
        raise TrustError("host-state", what, str(error).removeprefix(f"{what}: ")) from None
    return state


def _check(what: str, seen: Seen | None, offered: Seen) -> None:
    if seen is not None:
        check_number(what, (seen.number, seen.digest), (offered.number, offered.digest))


def _seen(members: Members) -> Seen:
    seen = Seen(number=members.number("number", 1), digest=members.digest("digest"))
    members.end()
    return seen


def _floor(members: Members) -> Floor:
    floor = Floor(name=members.word("name"), version=members.number("version", 1))
    members.end()
    return floor


def _tag(members: Members) -> SeenTag:
    tag = SeenTag(name=members.text("name", 700), number=members.number("number", 1), digest=members.digest("digest"))
    members.end()
    return tag
