"""Credentials to principals: what counts, what does not, and when it stops."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest

from registry.access import Grant, Principal, Role
from registry.authenticate import BasicAuthenticator, hash_secret, new_secret
from registry.catalogue.accounts import (
    Account,
    add_account,
    count_accounts,
    find_account,
    list_accounts,
    remove_account,
)
from registry.catalogue.database import Catalogue
from registry.errors import AccountError

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def account(name: str = "ci", role: Role = Role.PUSHER, *, secret: str = "any", **changes: object) -> Account:  # noqa: S107 -- of a test
    """An account."""
    members: dict[str, object] = {"grants": grants("team/*"), "created": NOW, "created_by": "test"}
    return Account(name=name, role=role, secret=hash_secret(secret), **(members | changes))  # type: ignore[arg-type]  # the changes are of the fields' types


def grants(*texts: str) -> tuple[Grant, ...]:
    """Grants by their texts."""
    return tuple(map(Grant.parse, texts))


def basic(name: str, secret: str) -> str:
    """An Authorization header."""
    return "Basic " + base64.b64encode(f"{name}:{secret}".encode()).decode()


def test_an_account_is_known_by_its_secret(catalogue: Catalogue) -> None:
    secret = new_secret()
    with catalogue.write() as conn:
        add_account(conn, account(secret=secret))
    found = BasicAuthenticator(catalogue, "registry.test", lambda: NOW).authenticate(basic("ci", secret))
    assert found == Principal(name="ci", role=Role.PUSHER, grants=grants("team/*"))


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic !!!",
        "Basic " + base64.b64encode(b"ci").decode(),
        "Basic " + base64.b64encode(b"ci:").decode(),
        "Basic " + base64.b64encode(b":right").decode(),
        "Basic " + base64.b64encode(b"ci\x00:right").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:right").decode(),
        "Basic " + "A" * 4096,
        "Bearer " + base64.b64encode(b"ci:right").decode(),
        basic("ci", "wrong"),
        basic("ci", "right "),
        basic("CI", "right"),
        basic("nobody", "right"),
        basic("ci", hash_secret("right")),
        "\udcff",
    ],
)
def test_what_is_not_its_secret_is_nobody(catalogue: Catalogue, header: str) -> None:
    with catalogue.write() as conn:
        add_account(conn, account(secret="right"))
    authenticator = BasicAuthenticator(catalogue, "registry.test", lambda: NOW)
    assert authenticator.authenticate(header) is None
    assert authenticator.authenticate(basic("ci", "right")) is not None


def test_an_account_ends_at_its_date(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        add_account(conn, account(secret="right", expires=NOW))
    before = BasicAuthenticator(catalogue, "registry.test", lambda: NOW - timedelta(seconds=1))
    assert before.authenticate(basic("ci", "right")) is not None
    assert BasicAuthenticator(catalogue, "registry.test", lambda: NOW).authenticate(basic("ci", "right")) is None


def test_a_success_is_remembered_for_a_moment_only(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    with catalogue.write() as conn:
        add_account(conn, account(secret="right"))
    seconds = 1000.0
    monkeypatch.setattr("registry.authenticate.time.monotonic", lambda: seconds)
    authenticator = BasicAuthenticator(catalogue, "registry.test", lambda: NOW)
    assert authenticator.authenticate(basic("ci", "right")) is not None
    with catalogue.write() as conn:
        remove_account(conn, "ci")
    seconds += 1.0
    assert authenticator.authenticate(basic("ci", "right")) is None


def test_accounts_are_stored_listed_counted_and_removed(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        add_account(conn, account("b"))
        add_account(conn, account("a", Role.ADMIN, expires=NOW))
        assert [found.name for found in list_accounts(conn)] == ["a", "b"]
        assert count_accounts(conn, Role.ADMIN) == 1
        assert find_account(conn, "a") == account("a", Role.ADMIN, expires=NOW)
        assert remove_account(conn, "a")
        assert not remove_account(conn, "a")
        assert find_account(conn, "a") is None


@pytest.mark.parametrize(
    "made",
    [
        account("Upper"),
        account(""),
        account("a:b"),
        account("x" * 64),
        account("registry"),
        account("x", Role.REGISTRY),
        account("x", grants=()),
        account("x", grants=(Grant(pattern=""),)),
        account("x", grants=(Grant(pattern="a\nb"),)),
        account("x", grants=(Grant(pattern="[a-z]"),)),
        account("x", grants=grants("a") * 101),
        account("x", Role.HOST, grants=grants("a:pull,create")),
        account("x", Role.ADMIN, grants=grants("a:pull")),
        account("x", grants=(Grant(pattern="a", rights=frozenset()),)),
    ],
)
def test_an_account_that_cannot_be_is_refused(catalogue: Catalogue, made: Account) -> None:
    with catalogue.write() as conn, pytest.raises(AccountError):
        add_account(conn, made)


def test_a_name_is_taken_once(catalogue: Catalogue) -> None:
    with catalogue.write() as conn:
        add_account(conn, account("x", secret="first"))
        with pytest.raises(AccountError, match="there is one of that name"):
            add_account(conn, account("x", Role.ADMIN, secret="second"))
        assert find_account(conn, "x") == account("x", secret="first")


def test_secrets_are_256_random_bits() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(base64.urlsafe_b64decode(secret + "=")) == 32 for secret in made)
