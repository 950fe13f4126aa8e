"""Accounts as they are stored, on each database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from registry.access import Grant, Role
from registry.catalogue.accounts import (
    Account,
    add_account,
    bind_certificates,
    certificates_of,
    change_account,
    count_accounts,
    find_account,
    find_by_certificate,
    invite,
    list_accounts,
    rehash_password,
    remove_account,
    set_password,
    set_secret,
    unbind_certificates,
)
from registry.catalogue.database import Catalogue
from registry.catalogue.generations import ACCOUNTS, generation
from registry.errors import AccountError
from tests.support.identity import grants, person, robot

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
FINGERPRINT = "sha256:" + "ab" * 32


def test_accounts_are_stored_listed_counted_and_removed(catalogue: Catalogue) -> None:
    made = robot("a", Role.ADMIN, expires=NOW)
    with catalogue.write() as conn:
        add_account(conn, robot("b"))
        add_account(conn, made)
        assert [found.name for found in list_accounts(conn)] == ["a", "b"]
        assert count_accounts(conn, Role.ADMIN) == 1
        assert find_account(conn, "a") == made
        assert remove_account(conn, "a")
        assert not remove_account(conn, "a")
        assert find_account(conn, "a") is None


@pytest.mark.parametrize(
    "made",
    [
        robot("Upper"),
        robot(""),
        robot("a:b"),
        robot("x" * 64),
        robot("registry"),
        robot("oidc"),
        robot("x", Role.REGISTRY),
        robot("x", grants=()),
        robot("x", grants=(Grant(pattern=""),)),
        robot("x", grants=(Grant(pattern="a\nb"),)),
        robot("x", grants=(Grant(pattern="[a-z]"),)),
        robot("x", grants=grants("a") * 101),
        robot("x", Role.HOST, grants=grants("a:pull,create")),
        robot("x", Role.ADMIN, grants=grants("a:pull")),
        robot("x", grants=(Grant(pattern="a", rights=frozenset()),)),
    ],
)
def test_an_account_that_cannot_be_is_refused(catalogue: Catalogue, made: Account) -> None:
    with catalogue.write() as conn, pytest.raises(AccountError):
        add_account(conn, made)


def test_a_name_is_taken_once(catalogue: Catalogue) -> None:
    first = robot("x", secret="first")
    with catalogue.write() as conn:
        add_account(conn, first)
        with pytest.raises(AccountError, match="there is one of that name"):
            add_account(conn, robot("x", Role.ADMIN, secret="second"))
        assert find_account(conn, "x") == first


def test_a_person_is_invited_sets_a_password_and_is_invited_again(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        add_account(conn, person("alice"))
        invite(conn, "alice", "a" * 64, NOW)
        found = find_account(conn, "alice")
        assert found is not None
        assert (found.invitation, found.invited_until, found.password) == ("a" * 64, NOW, "")
        set_password(conn, "alice", "$argon2id$1")
        found = find_account(conn, "alice")
        assert found is not None
        assert (found.invitation, found.invited_until, found.password) == ("", None, "$argon2id$1")
        invite(conn, "alice", "b" * 64, NOW)
        found = find_account(conn, "alice")
        assert found is not None
        assert (found.invitation, found.password) == ("b" * 64, "")


def test_each_change_is_another_version_and_a_new_generation(catalogue: Catalogue) -> None:
    seen: list[tuple[int, int]] = []

    def look() -> None:
        found = find_account(conn, "alice")
        assert found is not None
        seen.append((found.version, generation(conn, ACCOUNTS)))

    with catalogue.write() as conn:
        add_account(conn, person("alice"))
        assert generation(conn, ACCOUNTS) == 0, "a new account changes nothing that is remembered"
        look()
        invite(conn, "alice", "a" * 64, NOW)
        look()
        set_password(conn, "alice", "$1")
        look()
        set_secret(conn, "alice", "c" * 64)
        look()
        change_account(conn, person("alice", grants=grants("shop/*")))
        look()
        unbind_certificates(conn, "alice")
        look()
        remove_account(conn, "alice")
        add_account(conn, person("alice"))
        look()
    versions, generations = zip(*seen, strict=True)
    assert len(set(versions)) == len(versions)
    assert generations == tuple(range(7))


def test_an_older_secret_is_kept_with_its_end_or_not_at_all(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        add_account(conn, robot("ci"))
        set_secret(conn, "ci", "b" * 64, old="a" * 64, old_until=NOW)
        found = find_account(conn, "ci")
        assert found is not None
        assert (found.secret, found.old_secret, found.old_until) == ("b" * 64, "a" * 64, NOW)
        set_secret(conn, "ci", "c" * 64, old="b" * 64)
        found = find_account(conn, "ci")
        assert found is not None
        assert (found.secret, found.old_secret, found.old_until) == ("c" * 64, "", None)


def test_what_an_account_may_is_changed_and_nothing_else(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        add_account(conn, robot("ci", secret="right"))
        before = find_account(conn, "ci")
        assert before is not None
        after = replace(before, grants=grants("shop/*:pull"), expires=NOW)
        change_account(conn, after)
        assert find_account(conn, "ci") == after
        with pytest.raises(AccountError, match="expected 1 to 100"):
            change_account(conn, replace(after, grants=()))
        bind_certificates(conn, "ci", ["dns:ci.test"])
        unbind_certificates(conn, "ci")
        assert certificates_of(conn) == {}


def test_a_password_is_hashed_anew_only_if_it_is_still_the_same(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        add_account(conn, person("alice", password="old"))
        before = find_account(conn, "alice")
        rehash_password(conn, "alice", old="another", new="new")
        assert find_account(conn, "alice") == before
        rehash_password(conn, "alice", old="old", new="new")
        found = find_account(conn, "alice")
    assert found is not None
    assert before is not None
    assert (found.password, found.version) == ("new", before.version)


def test_certificates_speak_for_one_account_each(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        add_account(conn, robot("host-1", Role.HOST))
        add_account(conn, robot("host-2", Role.HOST))
        bind_certificates(conn, "host-1", [FINGERPRINT, "dns:host-1.test", "cn:Host 1"])
        bind_certificates(conn, "host-2", ["uri:spiffe://test/host-2"])
        with pytest.raises(AccountError, match="speaks for an account already"):
            bind_certificates(conn, "host-2", ["dns:host-1.test"])
        assert certificates_of(conn) == {
            "host-1": ("cn:Host 1", "dns:host-1.test", FINGERPRINT),
            "host-2": ("uri:spiffe://test/host-2",),
        }
        assert [each.name for each in find_by_certificate(conn, ["dns:other", "dns:host-1.test"])] == ["host-1"]
        both = find_by_certificate(conn, [FINGERPRINT, "dns:host-1.test", "uri:spiffe://test/host-2"])
        assert [each.name for each in both] == ["host-1", "host-2"]
        assert find_by_certificate(conn, []) == ()
        remove_account(conn, "host-1")
        assert certificates_of(conn) == {"host-2": ("uri:spiffe://test/host-2",)}
        bind_certificates(conn, "host-2", ["dns:host-1.test"])


@pytest.mark.parametrize(
    "name",
    [
        "",
        "host-1",
        "dns:",
        "dns:Host",
        "sha256:ab",
        "sha256:" + "AB" * 32,
        "cn: x",
        "cn:x\n",
        "uri:\u00e9",
        "ip:10.0.0.1",
    ],
)
def test_what_is_no_name_of_a_certificate_is_refused(catalogue: Catalogue, name: str) -> None:
    with catalogue.write() as conn:
        add_account(conn, robot("host-1", Role.HOST))
        with pytest.raises(AccountError, match="expected sha256:<fingerprint in hex>"):
            bind_certificates(conn, "host-1", [name])
