"""tests/support/turns.py: seven turns are the whole, and each has the first and the last."""

from __future__ import annotations

import time

import pytest

from tests.support.turns import TURNS, VARIABLE, fix_turn, taken


@pytest.mark.parametrize("size", range(30))
def test_seven_turns_are_the_whole(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    points, found, tried = list(range(size)), set(), 0
    for turn in range(TURNS):
        monkeypatch.setenv(VARIABLE, str(turn))
        some = list(taken(iter(points)))
        assert some == sorted(set(some))  # each once, in order
        assert some[:1] + some[-1:] == points[:1] + points[-1:]
        found.update(some)
        tried += len(some)
    assert found == set(points)
    assert tried <= size + 2 * (TURNS - 1)  # the first and the last are in all of them
    monkeypatch.setenv(VARIABLE, "all")
    assert list(taken(points)) == points


def test_a_turn_has_some_of_each_where_kinds_alternate(monkeypatch: pytest.MonkeyPatch) -> None:
    for turn in range(TURNS):
        monkeypatch.setenv(VARIABLE, str(turn))
        assert {point % TURNS for point in taken(range(8, 8 + 7 * TURNS))} == set(range(TURNS))


def test_the_turn_is_the_days_and_does_not_change_during_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.delenv(VARIABLE)
    seen = []
    for day in range(8):
        monkeypatch.setattr(time, "time", lambda day=day: 86_400.0 * day)
        monkeypatch.delenv(VARIABLE, raising=False)
        seen.append(fix_turn())
        monkeypatch.setattr(time, "time", lambda: 86_400.0 * 9_999)
        assert fix_turn() == seen[-1]
    assert seen == ["0", "1", "2", "3", "4", "5", "6", "0"]


@pytest.mark.parametrize("turn", ["7", "", "-1", "ALL"])
def test_another_turn_is_refused(monkeypatch: pytest.MonkeyPatch, turn: str) -> None:
    monkeypatch.setenv(VARIABLE, turn)
    with pytest.raises(pytest.UsageError, match="expected 0 to 6, or all"):
        fix_turn()
