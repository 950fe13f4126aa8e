"""The keys of tokens over several instances, and what ends a token: on both databases."""

from __future__ import annotations

import time
from datetime import timedelta

from registry.audit import Event, read
from registry.catalogue import schema
from registry.catalogue.accounts import add_account, change_account, find_account, remove_account, set_secret
from registry.catalogue.database import Catalogue
from registry.catalogue.token_keys import list_keys, withdraw_keys
from tests.registry.tokens.making import believed, issue, store
from tests.support.identity import decoded, ended_identities, identity, robot, utc_now

__all__ = ["ended_identities"]  # a fixture of every test here


def test_a_changed_or_removed_account_ends_its_tokens_at_once(catalogue: Catalogue) -> None:
    store(catalogue)
    parts = identity(catalogue)
    for change in ("secret", "grants", "made again", "removed"):
        token = issue(parts, catalogue)
        assert believed(parts, token) is not None
        with catalogue.write() as conn:
            account = find_account(conn, "ci")
            assert account is not None
            if change == "secret":
                set_secret(conn, "ci", "0" * 64)
            elif change == "grants":
                change_account(conn, account)
            else:
                remove_account(conn, "ci")
                if change == "made again":
                    add_account(conn, robot("ci", secret="right"))
        deadline = time.monotonic() + 5
        while believed(parts, token) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.02)


def test_a_token_of_one_instance_is_believed_by_all(catalogue: Catalogue) -> None:
    """Three of them, each with a key of its own, on one catalogue."""
    store(catalogue)
    three = [identity(catalogue) for _ in range(3)]
    tokens = [issue(parts, catalogue) for parts in three]
    assert len({decoded(token)[0]["kid"] for token in tokens}) == 3
    for parts in three:
        assert all(believed(parts, token) is not None for token in tokens)


def test_private_halves_are_nowhere(catalogue: Catalogue) -> None:
    store(catalogue)
    parts = identity(catalogue)
    issue(parts, catalogue)
    own = parts.tokens._keys._own
    assert own is not None
    secret = own.private.private_bytes_raw()
    with catalogue.read() as conn:
        for table in schema.metadata.sorted_tables:
            for row in conn.execute(table.select()):
                assert not any(secret in (v if isinstance(v, bytes) else str(v).encode()) for v in row)
        [record] = [each for each in read(conn, after=0, limit=100) if each.event == Event.TOKEN_KEY]
    assert (record.principal, record.subject) == ("registry", f"token key {own.id}")


def test_keys_are_replaced_and_tokens_of_the_one_before_still_count(catalogue: Catalogue) -> None:
    store(catalogue)
    now = [utc_now()]
    parts = identity(catalogue, lambda: now[0], tokens={"rotation": 60, "lifetime": 300})
    first = issue(parts, catalogue)
    assert decoded(issue(parts, catalogue))[0]["kid"] == decoded(first)[0]["kid"]
    now[0] += timedelta(seconds=60)
    second = issue(parts, catalogue)
    assert decoded(second)[0]["kid"] != decoded(first)[0]["kid"]
    assert believed(parts, first) is not None
    # Behind the end of its last token a key counts for nothing, and is dropped by whoever makes the next one.
    now[0] += timedelta(seconds=400)
    assert believed(identity(catalogue, lambda: now[0]), first) is None
    issue(parts, catalogue)
    with catalogue.look() as conn:
        assert decoded(first)[0]["kid"] not in {key.id for key in list_keys(conn)}


def test_withdrawn_keys_end_all_tokens_and_new_ones_are_made(catalogue: Catalogue) -> None:
    store(catalogue)
    three = [identity(catalogue) for _ in range(3)]
    before = [issue(parts, catalogue) for parts in three]
    assert all(believed(parts, token) is not None for parts in three for token in before)
    with catalogue.write() as conn:
        assert withdraw_keys(conn) == 3
    deadline = time.monotonic() + 5
    while any(believed(parts, token) is not None for parts in three for token in before):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    after = [issue(parts, catalogue) for parts in three]
    assert all(believed(parts, token) is not None for parts in three for token in after)
    assert not {decoded(token)[0]["kid"] for token in before} & {decoded(token)[0]["kid"] for token in after}
