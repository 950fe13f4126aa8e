"""One spelling of a time, and no clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.errors import PolicyError
from policy.times import format_time, parse_time, whole_seconds


@given(st.datetimes(timezones=st.just(UTC)).map(whole_seconds))
def test_a_time_comes_back(time: datetime) -> None:
    assert parse_time(format_time(time), what="time") == time


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-24T08:00:00",
        "2026-11-24T08:00:00+00:00",
        "2026-11-24T08:00:00.5Z",
        "2026-11-24t08:00:00z",
        "2026-11-24 08:00:00Z",
        "2026-11-24T08:00:00Z\n",
        "٢٠٢٦-11-24T08:00:00Z",
        "2026-02-30T08:00:00Z",
        "2026-11-24T24:00:00Z",
        "2026-11-24T08:00:60Z",
        "0000-11-24T08:00:00Z",
        "",
    ],
)
def test_another_spelling_is_refused(text: str) -> None:
    with pytest.raises(PolicyError, match="issued"):
        parse_time(text, what="issued")


def test_a_naive_time_is_refused() -> None:
    with pytest.raises(PolicyError, match="UTC"):
        format_time(datetime(2026, 11, 24))


def test_another_zone_is_refused() -> None:
    with pytest.raises(PolicyError, match="UTC"):
        format_time(datetime(2026, 11, 24, tzinfo=timezone(timedelta(hours=1))))


def test_a_fraction_is_refused_and_cut_off_on_request() -> None:
    time = datetime(2026, 11, 24, 8, 0, 0, 5, tzinfo=timezone(timedelta(hours=1)))
    with pytest.raises(PolicyError, match="fraction"):
        format_time(time.astimezone(UTC))
    assert format_time(whole_seconds(time)) == "2026-11-24T07:00:00Z"
