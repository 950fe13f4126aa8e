"""Retention: which tags stay, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.collect.retention import Named, Retention, Tag, Verdict, judge, untagged_for
from registry.errors import RuleError
from registry.rules import Kind, parse_value, value_text

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
DAY = timedelta(days=1)
GRACE = timedelta(hours=1)
DIGEST = "a" * 64


def tag(name: str, days: float, *, pulled: float | None = None, served: bool = False, runs: bool = False) -> Tag:
    """A tag that was pushed and pulled so many days ago."""
    return Tag(
        name=name,
        pushed_at=NOW - days * DAY,
        pulled=NOW - pulled * DAY if pulled is not None else None,
        served=served,
        runs=runs,
    )


def judged(*tags: Tag, rules: tuple[Retention, ...], immutable: str = "") -> dict[str, Verdict]:
    """The verdicts by tag, with tags that begin with `immutable` immutable."""
    named = [Named(pattern=f"rule{number}", value=rule) for number, rule in enumerate(rules)]
    ordered = sorted(tags, key=lambda each: each.pushed_at, reverse=True)

    def held(name: str) -> bool:
        return bool(immutable) and name.startswith(immutable)

    verdicts = judge(named, ordered, immutable=held, now=NOW, grace=GRACE)
    return {verdict.tag: verdict for verdict in verdicts}


def going(verdicts: dict[str, Verdict]) -> set[str]:
    """The tags that go."""
    return {name for name, verdict in verdicts.items() if not verdict.stays}


def test_the_newest_stay() -> None:
    tags = [tag(f"v{days}", days) for days in range(1, 6)]
    assert going(judged(*tags, rules=(Retention(newest=2),))) == {"v3", "v4", "v5"}


def test_newest_counts_only_tags_of_the_rule() -> None:
    tags = [tag("dev1", 1), tag("v1", 2), tag("dev2", 3), tag("v2", 4)]
    assert going(judged(*tags, rules=(Retention(tags=("v*",), newest=1),))) == {"v2"}


def test_pushed_or_pulled_of_late_stays() -> None:
    rule = Retention(pushed=30 * DAY, pulled=7 * DAY)
    tags = [tag("young", 30), tag("old", 31), tag("used", 99, pulled=7), tag("unused", 99, pulled=8)]
    assert going(judged(*tags, rules=(rule,))) == {"old", "unused"}


def test_what_hosts_are_served_stays_if_the_rule_says_so() -> None:
    old = tag("old", 99, served=True)
    assert going(judged(old, rules=(Retention(pushed=DAY),))) == {"old"}
    assert going(judged(old, rules=(Retention(pushed=DAY, served=True),))) == set()


def test_a_tag_goes_only_if_all_rules_let_it_go() -> None:
    tags = [tag("v1", 5), tag("v2", 10)]
    assert going(judged(*tags, rules=(Retention(pushed=DAY), Retention(newest=1)))) == {"v2"}


def test_a_tag_that_no_rule_concerns_stays() -> None:
    verdicts = judged(tag("other", 999), rules=(Retention(tags=("v*",), pushed=DAY),))
    assert verdicts["other"].reason == "no rule concerns it"
    assert going(judged(tag("v1", 999), rules=())) == set()
    assert going(judged(tag("v1", 999), rules=(Retention(untagged=DAY),))) == set()


def test_what_runs_stays_whatever_rules_say() -> None:
    verdicts = judged(tag("v1", 999, runs=True), rules=(Retention(pushed=DAY, immutable=True),), immutable="v")
    assert verdicts["v1"].stays
    assert verdicts["v1"].reason == "runs on a host"


def test_an_immutable_tag_stays_unless_every_rule_that_concerns_it_says_otherwise() -> None:
    old = tag("v1", 999)
    assert going(judged(old, rules=(Retention(pushed=DAY),), immutable="v")) == set()
    assert going(judged(old, rules=(Retention(pushed=DAY, immutable=True),), immutable="v")) == {"v1"}
    both = (Retention(pushed=DAY, immutable=True), Retention(pushed=DAY))
    assert going(judged(old, rules=both, immutable="v")) == set()


def test_what_was_pushed_within_the_grace_stays() -> None:
    assert going(judged(tag("v1", 0.01), tag("v2", 0.02), rules=(Retention(newest=1),))) == set()


def test_tags_of_an_image_s_artifacts_follow_it() -> None:
    name = f"sha256-{DIGEST}.sig"
    verdicts = judged(tag(name, 999), tag("v1", 999), rules=(Retention(pushed=DAY),))
    assert verdicts[name].stays
    assert going(verdicts) == {"v1"}


def test_the_longest_time_without_a_name_counts() -> None:
    rules = [Named(pattern=str(days), value=Retention(untagged=days * DAY)) for days in (3, 30, 7)]
    assert untagged_for(rules) == 30 * DAY
    assert untagged_for([Named(pattern="x", value=Retention(newest=1))]) is None


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"served": true}',
        '{"newest": 0}',
        '{"newest": 1000001}',
        '{"newest": "3"}',
        '{"pushed": 30}',
        '{"pushed": "0d"}',
        '{"pushed": "30"}',
        '{"pushed": "30 d"}',
        '{"newest": 1, "tags": ["a/b"]}',
        '{"newest": 1, "keep": 2}',
    ],
)
def test_a_rule_that_keeps_nothing_or_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(RuleError):
        parse_value(Kind.RETENTION, text, what="rule")


_durations = st.none() | st.integers(1, 9999).map(lambda hours: timedelta(hours=hours))
_rules = st.builds(
    Retention,
    newest=st.none() | st.integers(1, 1000),
    pushed=_durations,
    pulled=_durations,
    served=st.booleans(),
    untagged=_durations,
    immutable=st.booleans(),
).filter(lambda rule: any(each is not None for each in (rule.newest, rule.pushed, rule.pulled, rule.untagged)))


@given(_rules)
def test_a_rule_is_read_as_it_is_written(rule: Retention) -> None:
    assert parse_value(Kind.RETENTION, value_text(rule), what="rule") == rule


@given(
    rules=st.lists(_rules, max_size=3),
    more=_rules,
    ages=st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=12),
)
def test_another_rule_never_takes_away_what_the_others_keep(
    rules: list[Retention], more: Retention, ages: list[tuple[int, bool]]
) -> None:
    tags = [tag(f"v{number}", days, served=served) for number, (days, served) in enumerate(ages)]
    concerned = [rule for rule in rules if rule.concerns("v1")]
    before, after = judged(*tags, rules=tuple(concerned)), judged(*tags, rules=(*concerned, more))
    if concerned:
        assert going(after) <= going(before)
