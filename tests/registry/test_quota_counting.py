"""What is used of quotas: counted with what it counts, exactly, on both databases and under concurrency."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, delete

from ocispec.digest import Digest
from ocispec.manifest import parse_manifest
from registry.access import REGISTRY
from registry.catalogue.blobs import add_blob, ensure_repository, remove_blob
from registry.catalogue.database import Catalogue
from registry.catalogue.manifests import add_manifest, remove_manifest
from registry.catalogue.rules import lock_rules, put_rule, remove_rule, rules_now
from registry.catalogue.schema import meta, metadata
from registry.catalogue.tags import push_tag, remove_tag, tags_of
from registry.catalogue.usage import begin_counting, recount, stop_counting, used
from registry.errors import CatalogueError, QuotaError
from registry.rules import MAX_NUMBER, Amount, Kind, Quota, Rule
from tests.support.images import BuiltImage, image

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
HUGE = Quota(bytes=MAX_NUMBER)
REPOSITORIES = ("shop/web", "shop/api", "team/app")
ACCOUNTS = ("ci", "alice", REGISTRY.name)
IMAGES = tuple(image([{"file": b"%d" % number}]) for number in range(3))


def quota(pattern: str, limits: Quota = HUGE) -> Rule:
    """A quota."""
    return Rule(pattern=pattern, kind=Kind.QUOTA, value=limits, changed=NOW, changed_by="admin")


def set_quota(catalogue: Catalogue, rule: Rule) -> Amount:
    """Set it, as the API does."""
    with catalogue.write() as conn:
        lock_rules(conn)
        put_rule(conn, rule)
        return begin_counting(conn, rule)


def used_now(catalogue: Catalogue, rule: Rule) -> Amount:
    """What is used of it by its counters."""
    with catalogue.read() as conn:
        return used(conn, rule)


def push(conn: Connection, repository: str, made: BuiltImage, tag: str, *, by: str = "ci") -> None:
    """All that a push of an image writes."""
    for digest, content in made.blobs.items():
        add_blob(conn, repository, digest, len(content), by=by, now=NOW)
    parsed = parse_manifest(made.manifest.raw, made.manifest.media_type)
    add_manifest(conn, repository, parsed, kind="artifact", state_of=None, by=by, now=NOW)
    push_tag(conn, repository, tag, parsed.digest, by=by, now=NOW)


def weight(made: BuiltImage) -> int:
    """Bytes of an image: its blobs and its manifest."""
    return sum(map(len, made.blobs.values())) + len(made.manifest.raw)


def test_a_push_is_counted_once_for_each_repository_that_holds_it(catalogue: Catalogue) -> None:
    rule, account = quota("shop/*"), quota("account:ci")
    set_quota(catalogue, rule)
    set_quota(catalogue, account)
    made = IMAGES[0]
    for repository, again in (("shop/web", 1), ("shop/web", 1), ("shop/api", 2), ("team/app", 2)):
        with catalogue.write() as conn:
            push(conn, repository, made, "1")
        wanted = Amount(bytes=again * weight(made), repositories=again, manifests=again, tags=again)
        assert used_now(catalogue, rule) == wanted
    assert used_now(catalogue, account) == Amount(bytes=3 * weight(made), repositories=3, manifests=3, tags=3)


def test_what_the_registry_writes_itself_is_neither_counted_nor_refused(catalogue: Catalogue) -> None:
    none = Quota(bytes=0, repositories=0, manifests=0, tags=0)
    rule = quota("*", none)
    set_quota(catalogue, rule)
    with catalogue.write() as conn:
        push(conn, "shop/web", IMAGES[0], "1", by=REGISTRY.name)
    assert used_now(catalogue, rule) == Amount()
    with catalogue.write() as conn:
        assert recount(conn, rule) == Amount()
        assert remove_tag(conn, "shop/web", "1") is not None
        assert remove_manifest(conn, "shop/web", IMAGES[0].digest)
    assert used_now(catalogue, rule) == Amount()


@pytest.mark.parametrize("name", ["bytes", "repositories", "manifests", "tags"])
def test_each_limit_refuses_the_first_that_is_too_much(catalogue: Catalogue, name: str) -> None:
    first, second = IMAGES[:2]
    fits = Amount(bytes=weight(first), repositories=1, manifests=1, tags=1)
    rule = quota("shop/*", Quota(**{name: getattr(fits, name)}))
    set_quota(catalogue, rule)
    with catalogue.write() as conn:
        push(conn, "shop/web", first, "1")
    with pytest.raises(QuotaError, match=rf"quota shop/\*: {name}: got \d+, expected at most \d+") as caught:
        _push_alone(catalogue, "shop/api", second)
    assert isinstance(caught.value.detail, dict)
    assert caught.value.detail["limit"] == getattr(fits, name)
    assert used_now(catalogue, rule) == fits
    _push_alone(catalogue, "team/app", second)


def _push_alone(catalogue: Catalogue, repository: str, made: BuiltImage) -> None:
    with catalogue.write() as conn:
        push(conn, repository, made, "1")


def test_what_is_too_much_already_can_be_moved_and_deleted(catalogue: Catalogue) -> None:
    _push_alone(catalogue, "shop/web", IMAGES[0])
    _push_alone(catalogue, "shop/web", IMAGES[1])
    rule = quota("shop/*", Quota(bytes=0, repositories=0, manifests=0, tags=0))
    assert set_quota(catalogue, rule).manifests == 2
    with catalogue.write() as conn:
        push_tag(conn, "shop/web", "1", IMAGES[0].digest, by="alice", now=NOW)
        assert remove_manifest(conn, "shop/web", IMAGES[1].digest)
    with pytest.raises(QuotaError):
        _push_alone(catalogue, "shop/web", IMAGES[2])


def test_a_tag_counts_for_who_moved_it_last(catalogue: Catalogue) -> None:
    ci, alice = quota("account:ci"), quota("account:alice", Quota(tags=1))
    for rule in (ci, alice):
        set_quota(catalogue, rule)
    with catalogue.write() as conn:
        push(conn, "shop/web", IMAGES[0], "1")
        push(conn, "shop/web", IMAGES[0], "2")
        push_tag(conn, "shop/web", "1", IMAGES[0].digest, by="alice", now=NOW)
    assert (used_now(catalogue, ci).tags, used_now(catalogue, alice).tags) == (1, 1)
    with pytest.raises(QuotaError), catalogue.write() as conn:
        push_tag(conn, "shop/web", "2", IMAGES[0].digest, by="alice", now=NOW)
    with catalogue.write() as conn:
        remove_tag(conn, "shop/web", "1")
    assert (used_now(catalogue, ci).tags, used_now(catalogue, alice).tags) == (1, 0)


def test_a_quota_without_its_counter_lets_nothing_through(catalogue: Catalogue) -> None:
    rule = quota("shop/*")
    with catalogue.write() as conn:
        lock_rules(conn)
        put_rule(conn, rule)
    with pytest.raises(CatalogueError, match="its use was not counted"):
        _push_alone(catalogue, "shop/web", IMAGES[0])


_steps = st.lists(
    st.tuples(
        st.sampled_from(["push", "untag", "delete", "blob", "set", "unset"]),
        st.sampled_from(REPOSITORIES),
        st.sampled_from(range(len(IMAGES))),
        st.sampled_from(ACCOUNTS),
    ),
    max_size=40,
)
_RULES = (quota("shop/*"), quota("*"), quota("account:ci"), quota("account:alice"))


def _empty(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        for rule in rules_now(conn).rules:
            remove_rule(conn, rule)
        for table in reversed(metadata.sorted_tables):
            if table is not meta:
                conn.execute(delete(table))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=_steps)
def test_counters_are_what_a_recount_gives(catalogue: Catalogue, steps: list[tuple[str, str, int, str]]) -> None:
    _empty(catalogue)
    for what, repository, number, account in steps:
        with catalogue.write() as conn:
            made, rule = IMAGES[number], _RULES[number]
            if what == "push":
                push(conn, repository, made, str(number % 2), by=account)
            elif what == "untag":
                remove_tag(conn, repository, str(number % 2))
            elif what == "delete" and not tags_of(conn, repository, made.digest):
                remove_manifest(conn, repository, made.digest)
            elif what == "blob":
                remove_blob(conn, repository, next(iter(made.blobs)))
            elif what == "set":
                lock_rules(conn)
                put_rule(conn, rule)
                begin_counting(conn, rule)
            elif what == "unset":
                lock_rules(conn)
                remove_rule(conn, rule)
                stop_counting(conn, rule)
        with catalogue.read() as conn:
            for rule in rules_now(conn).rules:
                assert used(conn, rule) == recount(conn, rule), (what, repository, number, account, rule.pattern)


def test_concurrent_pushes_never_go_over_a_quota_and_lose_no_count(catalogue: Catalogue) -> None:
    rule, account = quota("shop/*", Quota(bytes=100, repositories=4)), quota("account:ci")
    set_quota(catalogue, rule)
    set_quota(catalogue, account)
    outcomes: list[str] = []

    def work(mine: int) -> None:
        for number in range(8):
            try:
                with catalogue.write() as conn:
                    content = Digest.of(b"%d %d" % (mine, number))
                    add_blob(conn, f"shop/{(mine + number) % 6}", content, 10, by="ci", now=NOW)
                outcomes.append("stored")
            except QuotaError:
                outcomes.append("refused")

    threads = [threading.Thread(target=work, args=(mine,)) for mine in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(outcomes) == 32
    found = used_now(catalogue, rule)
    assert found == Amount(bytes=10 * outcomes.count("stored"), repositories=found.repositories)
    assert found.bytes <= 100
    assert found.repositories <= 4
    assert "refused" in outcomes
    with catalogue.read() as conn:
        assert recount(conn, rule) == found
        assert recount(conn, account) == used(conn, account)


def test_a_quota_that_is_set_amid_pushes_has_counted_all_of_them(catalogue: Catalogue) -> None:
    rule = quota("shop/*")
    ready, go_on = threading.Event(), threading.Event()

    def push_slowly() -> None:
        with catalogue.write() as conn:
            ensure_repository(conn, "shop/slow", by="ci", now=NOW)
            ready.set()
            assert go_on.wait(30)
            push(conn, "shop/slow", IMAGES[0], "1")

    slow = threading.Thread(target=push_slowly)
    slow.start()
    assert ready.wait(30)
    setting = threading.Thread(target=set_quota, args=(catalogue, rule))
    setting.start()
    setting.join(0.3)
    assert setting.is_alive()  # it waits: who began under no rules has not ended
    go_on.set()
    for thread in (slow, setting):
        thread.join(60)
    with catalogue.read() as conn:
        assert (
            used(conn, rule)
            == recount(conn, rule)
            == Amount(bytes=weight(IMAGES[0]), repositories=1, manifests=1, tags=1)
        )


def test_whoever_only_begins_a_repository_keeps_to_the_rules_from_then_on(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        assert ensure_repository(conn, "shop/web", by="ci", now=NOW)
        assert not ensure_repository(conn, "shop/web", by="ci", now=NOW)
