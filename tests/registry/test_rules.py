"""Rules: what one can say, which repositories it binds, and that every instance keeps to the newest at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import insert

from registry.catalogue import schema
from registry.catalogue.blobs import ensure_repository
from registry.catalogue.database import Catalogue
from registry.catalogue.rules import (
    MAX_RULES,
    find_rule,
    lock_rules,
    put_rule,
    remove_rule,
    rules_now,
    rules_to_keep,
)
from registry.errors import CatalogueError, RuleError
from registry.rules import (
    COUNTED,
    MAX_NUMBER,
    Amount,
    Immutable,
    Kind,
    Quota,
    Rule,
    RuleSet,
    check_pattern,
    parse_value,
    value_text,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def immutable(pattern: str, *tags: str, but: tuple[str, ...] = ()) -> Rule:
    """A rule that keeps tags."""
    value = Immutable(tags=tags, exceptions=but)
    return Rule(pattern=pattern, kind=Kind.IMMUTABLE, value=value, changed=NOW, changed_by="admin")


def set_rule(catalogue: Catalogue, rule: Rule) -> None:
    """Set it, as the API does."""
    with catalogue.write() as conn:
        lock_rules(conn)
        put_rule(conn, rule)


_limits = st.none() | st.integers(min_value=0, max_value=MAX_NUMBER)
_quotas = st.builds(Quota, bytes=_limits, repositories=_limits, manifests=_limits, tags=st.integers(0, MAX_NUMBER))
_globs = st.lists(st.from_regex(r"[A-Za-z0-9_*?.-]{1,20}", fullmatch=True), min_size=1, max_size=5).map(tuple)


@given(_quotas)
def test_a_quota_is_read_as_it_is_written(quota: Quota) -> None:
    assert parse_value(Kind.QUOTA, value_text(quota), what="rule") == quota


@given(st.builds(Immutable, tags=_globs, exceptions=_globs))
def test_an_immutable_rule_is_read_as_it_is_written(value: Immutable) -> None:
    assert parse_value(Kind.IMMUTABLE, value_text(value), what="rule") == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Kind.IMMUTABLE, "{}"),
        (Kind.IMMUTABLE, '{"tags":[]}'),
        (Kind.IMMUTABLE, '{"tags":"v*"}'),
        (Kind.IMMUTABLE, '{"tags":[1]}'),
        (Kind.IMMUTABLE, '{"tags":["a b"]}'),
        (Kind.IMMUTABLE, '{"tags":["[a]"]}'),
        (Kind.IMMUTABLE, '{"tags":[""]}'),
        (Kind.IMMUTABLE, '{"tags":["v*"],"enabled":false}'),
        (Kind.IMMUTABLE, '{"tags":["v*"],"tags":[]}'),
        (Kind.IMMUTABLE, '{"tags":["v*"],"except":["/"]}'),
        (Kind.IMMUTABLE, '{"tags":[' + ",".join(['"a"'] * 101) + "]}"),
        (Kind.QUOTA, "{}"),
        (Kind.QUOTA, '{"bytes":null}'),
        (Kind.QUOTA, '{"bytes":-1}'),
        (Kind.QUOTA, '{"bytes":true}'),
        (Kind.QUOTA, '{"bytes":1.5}'),
        (Kind.QUOTA, '{"bytes":"1"}'),
        (Kind.QUOTA, '{"bytes":9007199254740992}'),
        (Kind.QUOTA, '{"size":1}'),
        (Kind.QUOTA, "[]"),
        (Kind.QUOTA, "null"),
        (Kind.QUOTA, '{"tags":' + " " * 20_000 + "1}"),
    ],
)
def test_a_value_that_is_none_is_refused(kind: Kind, text: str) -> None:
    with pytest.raises(RuleError):
        parse_value(kind, text, what="rule")


@pytest.mark.parametrize(
    ("kind", "pattern", "good"),
    [
        (Kind.IMMUTABLE, "*", True),
        (Kind.IMMUTABLE, "shop/w?b", True),
        (Kind.IMMUTABLE, "account:ci", False),
        (Kind.IMMUTABLE, "Shop", False),
        (Kind.IMMUTABLE, "", False),
        (Kind.IMMUTABLE, "a" * 256, False),
        (Kind.QUOTA, "account:ci", True),
        (Kind.QUOTA, "account:build:repo:acme/app:ref:refs/heads/main", True),
        (Kind.QUOTA, "account:", False),
        (Kind.QUOTA, "account:a b", False),
        (Kind.QUOTA, "accounts:ci", False),
        (Kind.QUOTA, "a\nb", False),
    ],
)
def test_patterns_are_globs_or_accounts(kind: Kind, pattern: str, good: bool) -> None:
    if good:
        assert check_pattern(kind, pattern) == pattern
    else:
        with pytest.raises(RuleError):
            check_pattern(kind, pattern)


def test_a_repository_is_under_every_rule_that_matches_it() -> None:
    rules = RuleSet(
        [immutable("shop/*", "v*", but=("v*-rc",)), immutable("shop/web", "v1-rc"), immutable("team/*", "*")]
    )
    found = {tag: rules.immutable("shop/web", tag) for tag in ("v1", "v1-rc", "v2-rc", "latest", "V1")}
    assert {tag: rule.pattern if rule else None for tag, rule in found.items()} == {
        "v1": "shop/*",
        "v1-rc": "shop/web",  # what one rule leaves out, another can still keep
        "v2-rc": None,
        "latest": None,
        "V1": None,
    }
    assert rules.immutable("shop", "v1") is rules.immutable("other", "v1") is None


def test_a_quota_refuses_only_what_became_more() -> None:
    quota = Quota(bytes=10, tags=0)
    assert quota.exceeded(Amount(bytes=11), Amount(bytes=1)) == "bytes"
    assert quota.exceeded(Amount(bytes=10), Amount(bytes=1)) is None
    assert quota.exceeded(Amount(bytes=11, tags=5), Amount(bytes=-1)) is None
    assert quota.exceeded(Amount(tags=5), Amount()) is None
    assert quota.exceeded(Amount(tags=1), Amount(tags=1)) == "tags"
    assert Amount(bytes=1) + -Amount(bytes=1) == Amount()
    assert set(COUNTED) == {"bytes", "repositories", "manifests", "tags"}


@pytest.fixture
def other(database: str) -> Iterator[Catalogue]:
    """Another instance on the same database."""
    made = Catalogue(database, connections=4)
    yield made
    made.close()


def test_another_instance_keeps_to_a_rule_from_its_next_write_on(catalogue: Catalogue, other: Catalogue) -> None:
    rule = immutable("shop/*", "v*")
    with other.write() as conn:
        assert rules_to_keep(conn).rules == ()
    set_rule(catalogue, rule)
    with other.write() as conn:
        assert rules_to_keep(conn).rules == (rule,)
    set_rule(catalogue, immutable("shop/*", "w*"))
    with other.write() as conn:
        assert rules_to_keep(conn).rules == (immutable("shop/*", "w*"),)
        assert find_rule(conn, "shop/*", Kind.QUOTA) is None
    with catalogue.write() as conn:
        lock_rules(conn)
        remove_rule(conn, rule)
    with other.write() as conn:
        assert rules_to_keep(conn).rules == ()


def test_a_change_that_was_undone_changed_nothing(catalogue: Catalogue, other: Catalogue) -> None:
    set_rule(catalogue, immutable("shop/*", "v*"))

    def change() -> None:
        with catalogue.write() as conn:
            lock_rules(conn)
            put_rule(conn, immutable("shop/*", "w*"))
            assert rules_to_keep(conn).rules == (immutable("shop/*", "w*"),)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        change()
    for each in (catalogue, other):
        with each.write() as conn:
            assert rules_to_keep(conn).rules == (immutable("shop/*", "v*"),)


def test_a_rule_is_set_after_those_who_began_without_it(catalogue: Catalogue, other: Catalogue) -> None:
    begun, go_on = threading.Event(), threading.Event()
    order: list[str] = []

    def write_slowly() -> None:
        with other.write() as conn:
            assert rules_to_keep(conn).rules == ()
            begun.set()
            assert go_on.wait(30)
            ensure_repository(conn, "shop/web", by="ci", now=NOW)
            order.append("written")

    def change() -> None:
        set_rule(catalogue, immutable("*", "*"))
        order.append("set")

    writing = threading.Thread(target=write_slowly)
    writing.start()
    assert begun.wait(30)
    changing = threading.Thread(target=change)
    changing.start()
    changing.join(0.3)
    assert order == []
    go_on.set()
    for thread in (writing, changing):
        thread.join(60)
    assert order == ["written", "set"]


def test_a_rule_that_cannot_be_read_lets_nobody_write(catalogue: Catalogue) -> None:
    set_rule(catalogue, immutable("shop/*", "v*"))
    with catalogue.write() as conn:
        row = {"pattern": "team/*", "kind": "immutable", "value": "{}", "changed": NOW, "changed_by": "somebody"}
        conn.execute(insert(schema.rules).values(row))
        conn.execute(schema.meta.update().where(schema.meta.c.name == "rules").values(value="another"))
    with pytest.raises(CatalogueError, match=r"rule immutable team/\* cannot be read"), catalogue.write() as conn:
        ensure_repository(conn, "any/thing", by="ci", now=NOW)


def test_there_are_so_many_rules_and_no_more(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        rows = [
            {"pattern": f"r{n}", "kind": "immutable", "value": '{"tags":["v*"]}', "changed": NOW, "changed_by": "x"}
            for n in range(MAX_RULES)
        ]
        conn.execute(insert(schema.rules), rows)
        conn.execute(schema.meta.update().where(schema.meta.c.name == "rules").values(value="full"))
    with pytest.raises(RuleError, match="expected at most 1000"):
        set_rule(catalogue, immutable("one-more", "v*"))
    set_rule(catalogue, immutable("r1", "w*"))
    with catalogue.read() as conn:
        assert find_rule(conn, "r1", Kind.IMMUTABLE) == immutable("r1", "w*")
        assert len(rules_now(conn).rules) == MAX_RULES
