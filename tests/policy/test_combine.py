"""Running rules: an empty set refuses, a crash refuses, a flood refuses."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat

from policy.combine import MAX_VERDICTS, all_of, any_of, run
from policy.model import Outcome, Verdict
from policy.rules.interface import deny

Check = Callable[[object], Iterable[Verdict]]


def passes(_view: object) -> Iterable[Verdict]:
    """A rule with nothing to say."""
    return ()


def refuses(_view: object) -> Iterable[Verdict]:
    """A rule that refuses."""
    return (deny("child", "no", "thing", "it may not"),)


def crashes(_view: object) -> Iterable[Verdict]:
    """A rule that says one thing, and breaks."""
    yield deny("crashes", "no", "thing", "it may not")
    raise RecursionError("too deep")


def floods(_view: object) -> Iterable[Verdict]:
    """A rule that never ends."""
    return repeat(deny("floods", "no", "thing", "it may not"))


def test_nothing_said_is_one_allow() -> None:
    (verdict,) = run("rule", passes, None, "image")
    assert (verdict.outcome, verdict.reason, verdict.subject) == (Outcome.ALLOW, "passed", "image")


def test_what_a_rule_said_before_it_broke_is_kept() -> None:
    verdicts = run("crashes", crashes, None, "image")
    assert [(verdict.outcome, verdict.reason) for verdict in verdicts] == [
        (Outcome.UNKNOWN, "rule-failed"),
        (Outcome.DENY, "no"),
    ]
    assert "RecursionError: too deep" in verdicts[0].message


def test_a_flood_ends_and_is_a_refusal() -> None:
    verdicts = run("floods", floods, None, "image")
    assert {verdict.reason for verdict in verdicts} == {"no", "rule-failed"}
    assert f"more than {MAX_VERDICTS} verdicts" in next(v.message for v in verdicts if v.reason == "rule-failed")


def test_no_rules_at_all_refuse() -> None:
    (verdict,) = all_of((), None, "image")
    assert (verdict.outcome, verdict.reason) == (Outcome.DENY, "empty-policy")


def test_all_of_says_what_each_says() -> None:
    verdicts = all_of((("one", passes), ("two", refuses)), None, "image")
    assert [verdict.outcome for verdict in verdicts] == [Outcome.ALLOW, Outcome.DENY]


def test_any_of_is_content_with_one() -> None:
    assert list(any_of("either", (("one", refuses), ("two", passes)))(None)) == []


def test_any_of_tells_the_reasons_of_all() -> None:
    verdicts = list(any_of("either", (("one", refuses), ("two", crashes)))(None))
    assert {verdict.rule for verdict in verdicts} == {"either"}
    assert [verdict.message.partition(":")[0] for verdict in verdicts] == ["one", "two", "two"]


def test_any_of_nothing_refuses() -> None:
    none: tuple[tuple[str, Check], ...] = ()
    (verdict,) = any_of("either", none)(None)
    assert (verdict.rule, verdict.outcome, verdict.reason) == ("either", Outcome.DENY, "empty-policy")
