"""What a host remembers: numbers that do not go back, and a clock that does not either."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocispec.digest import Digest
from policy import hoststate
from policy.errors import TrustError
from policy.hoststate import Floor, HostState, Seen, SeenTag
from policy.seal import seal
from policy.statements import PolicyFloor, TagStatement
from tests.support.trust import (
    DAY,
    NOW,
    REGISTRY,
    REPOSITORY,
    current_list,
    digest,
    keyring,
    revocation_list,
)

RING = keyring()
TAG = TagStatement(
    registry=REGISTRY, repository=REPOSITORY, tag="1", digest=digest("m"), number=50, issued=NOW - timedelta(hours=1)
)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(TrustError) as refused:
        call()
    return refused.value.code


def see_tag(state: HostState, **changes: object) -> HostState:
    tag = replace(TAG, **changes)  # type: ignore[arg-type]  # the values are of the fields' type
    return hoststate.see_tag(state, RING.trust.verify(seal(tag, RING.registry), TagStatement, NOW), NOW)


def see_floor(state: HostState, version: int) -> HostState:
    floor = PolicyFloor(name="default", version=version, issued=NOW - DAY)
    signed = RING.trust.verify(seal(floor, RING.alice, RING.bob), PolicyFloor, NOW)
    return hoststate.see_floor(state, signed, NOW)


def see_list(state: HostState, number: int, **entries: tuple[Digest, ...]) -> HostState:
    revocations = replace(revocation_list(number), **entries)  # type: ignore[arg-type]  # digests or layers
    return hoststate.see_list(state, current_list(RING, revocations), NOW)


def test_a_clock_below_what_was_signed_is_refused_beyond_the_skew() -> None:
    state = hoststate.see_time(HostState(), NOW, NOW)
    hoststate.check_clock(state, NOW - timedelta(minutes=5))
    assert code(lambda: hoststate.check_clock(state, NOW - timedelta(minutes=5, seconds=1))) == "clock-set-back"
    assert code(lambda: hoststate.check_clock(state, datetime(1969, 12, 31, tzinfo=UTC))) == "clock-set-back"
    hoststate.check_clock(HostState(), datetime(1969, 12, 31, tzinfo=UTC))


def test_a_signed_time_of_the_near_future_does_not_lock_the_host_out() -> None:
    state = hoststate.see_time(HostState(), NOW + timedelta(minutes=5), NOW + timedelta(microseconds=3))
    assert state.highest_time == NOW
    assert hoststate.see_time(state, NOW - DAY, NOW) is state


def test_trust_json_is_remembered_by_number_and_content() -> None:
    state = hoststate.see_trust(HostState(), RING.trust, NOW)
    assert state.trust == Seen(number=1, digest=RING.trust.digest)
    assert state.highest_time == RING.root.issued
    assert hoststate.see_trust(state, RING.trust, NOW) == state
    other = keyring()
    assert code(lambda: hoststate.see_trust(state, other.trust, NOW)) == "same-number-other-content"


def test_a_list_with_another_content_under_the_same_number_is_refused_s12() -> None:
    state = see_list(HostState(), 7)
    assert see_list(state, 7) == state
    assert code(lambda: see_list(state, 7, digests=(digest("x"),))) == "same-number-other-content"


def test_an_older_list_and_one_that_jumps_are_refused_s6_s12() -> None:
    state = see_list(HostState(), 7)
    assert code(lambda: see_list(state, 6)) == "number-went-back"
    assert see_list(state, 1007).revocations is not None
    assert code(lambda: see_list(state, 1008)) == "number-jump"
    assert code(lambda: see_list(state, 2**53 - 1)) == "number-jump"


def test_an_older_served_tag_is_refused_s6_s12() -> None:
    state = see_tag(HostState())
    assert state.tags == (SeenTag(name=f"{REGISTRY}/{REPOSITORY}:1", number=50, digest=digest("m")),)
    assert code(lambda: see_tag(state, number=49)) == "number-went-back"
    assert code(lambda: see_tag(state, digest=digest("other"))) == "same-number-other-content"
    assert code(lambda: see_tag(state, number=1051)) == "number-jump"
    moved = see_tag(state, number=51, digest=digest("other"))
    assert [tag.number for tag in moved.tags] == [51]


def test_a_tag_dated_again_is_the_same_tag() -> None:
    state = see_tag(HostState())
    assert see_tag(state, issued=NOW).tags == state.tags


def test_each_tag_is_remembered_for_itself() -> None:
    state = see_tag(see_tag(HostState()), tag="2", number=3)
    assert [(tag.name[-2:], tag.number) for tag in state.tags] == [(":1", 50), (":2", 3)]


def test_the_first_number_of_a_tag_is_bounded_and_a_burnt_one_can_be_forgotten() -> None:
    assert code(lambda: see_tag(HostState(), number=hoststate.MAX_FIRST + 1)) == "number-jump"
    burnt = see_tag(HostState(), number=hoststate.MAX_FIRST)
    assert code(lambda: see_tag(burnt, number=51)) == "number-went-back"
    forgotten = hoststate.forget_tag(burnt, f"{REGISTRY}/{REPOSITORY}:1")
    assert [tag.number for tag in see_tag(forgotten, number=51).tags] == [51]


def test_the_memory_of_tags_is_bounded() -> None:
    tags = tuple(SeenTag(name=f"r/{number}:1", number=1, digest=digest("m")) for number in range(hoststate.MAX_TAGS))
    full = HostState(tags=tags)
    assert code(lambda: see_tag(full)) == "too-many-tags"
    assert len(hoststate.encode(full)) < 4 * 1024 * 1024


def test_a_floor_only_rises() -> None:
    state = see_floor(HostState(), 5)
    assert (state.floor("default"), state.floor("other")) == (5, 0)
    assert see_floor(state, 5).floors == state.floors
    assert see_floor(state, 6).floor("default") == 6
    assert code(lambda: see_floor(state, 4)) == "number-went-back"
    assert code(lambda: see_floor(state, 1006)) == "number-jump"


DIGESTS = st.binary(max_size=3).map(Digest.of)
NUMBERS = st.integers(1, 2**53 - 1)
SEEN = st.none() | st.builds(Seen, number=NUMBERS, digest=DIGESTS)
STATES = st.builds(
    HostState,
    highest_time=st.none() | st.datetimes(timezones=st.just(UTC)).map(lambda time: time.replace(microsecond=0)),
    trust=SEEN,
    revocations=SEEN,
    floors=st.lists(st.builds(Floor, name=st.sampled_from(["default", "strict"]), version=NUMBERS), max_size=2).map(
        tuple
    ),
    tags=st.lists(st.builds(SeenTag, name=st.just("r.io/a:1"), number=NUMBERS, digest=DIGESTS), max_size=2).map(tuple),
)


@given(STATES)
def test_a_memory_comes_back_from_its_json(state: HostState) -> None:
    assert hoststate.decode(hoststate.encode(state)) == state


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"{}",
        b"[]",
        b'{"floors":[],"tags":[],"version":2}',
        b'{"floors":[],"tags":[],"version":1,"more":1}',
        b'{"floors":[],"tags":[{"name":"a","number":0,"digest":"x"}],"version":1}',
        b'{"floors":[{"name":"a","version":1,"x":1}],"tags":[],"version":1}',
        b'{"floors":[],"tags":[],"trust":{"number":1},"version":1}',
        b'{"floors":[],"highestTime":"yesterday","tags":[],"version":1}',
    ],
)
def test_a_memory_that_cannot_be_read_is_no_empty_memory(raw: bytes) -> None:
    assert code(lambda: hoststate.decode(raw)) == "host-state"
