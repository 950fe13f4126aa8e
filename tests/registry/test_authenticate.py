"""Credentials to principals: what counts, what does not, when it stops, and what it costs."""

from __future__ import annotations

import base64
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event, select

from registry import authenticate
from registry.access import Principal, Role
from registry.authenticate import hash_secret, new_secret
from registry.catalogue.accounts import Account, add_account, remove_account, set_secret
from registry.catalogue.database import Catalogue
from registry.catalogue.schema import accounts
from registry.errors import CatalogueError, TooManyRequestsError
from registry.identity.identity import Method
from tests.support.identity import basic, ended_identities, grants, identity, person, robot, utc_now

__all__ = ["ended_identities"]  # a fixture of every test here

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def store(catalogue: Catalogue, *made: Account) -> None:
    """Store accounts."""
    with catalogue.write() as conn:
        for each in made:
            add_account(conn, each)


def test_an_account_is_known_by_its_secret(catalogue: Catalogue) -> None:
    secret = new_secret()
    store(catalogue, robot(secret=secret))
    found = identity(catalogue, lambda: NOW).authenticator.identify(basic("ci", secret))
    assert found is not None
    assert found.principal == found.account == Principal(name="ci", role=Role.PUSHER, grants=grants("team/*"))
    assert (found.method, found.ends) == (Method.SECRET, None)


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
        "Basic " + "A" * 200_000,
        "Bearer " + base64.b64encode(b"ci:right").decode(),
        "Negotiate YII=",
        basic("ci", "wrong"),
        basic("ci", "right "),
        basic("CI", "right"),
        basic("nobody", "right"),
        basic("ci", hash_secret("right")),
        basic("oidc", "right"),
        basic("alice", ""),
        basic("alice", "invitation"),
        "\udcff",
    ],
)
def test_what_is_not_its_secret_is_nobody(catalogue: Catalogue, header: str) -> None:
    store(catalogue, robot(secret="right"), person(invitation=hash_secret("invitation"), invited_until=NOW))
    authenticator = identity(catalogue, lambda: NOW).authenticator
    assert authenticator.authenticate(header) is None
    assert authenticator.authenticate(basic("ci", "right")) is not None


def test_a_robot_ends_at_its_date(catalogue: Catalogue) -> None:
    store(catalogue, robot(secret="right", expires=NOW))
    before = identity(catalogue, lambda: NOW - timedelta(seconds=1)).authenticator
    assert before.authenticate(basic("ci", "right")) is not None
    assert identity(catalogue, lambda: NOW).authenticator.authenticate(basic("ci", "right")) is None


def test_a_remembered_account_ends_at_its_date_too(catalogue: Catalogue) -> None:
    store(catalogue, robot(secret="right", expires=utc_now() + timedelta(seconds=1)))
    authenticator = identity(catalogue).authenticator
    assert authenticator.authenticate(basic("ci", "right")) is not None
    time.sleep(2.1)  # the clock is one of whole seconds
    assert authenticator.authenticate(basic("ci", "right")) is None


@pytest.mark.parametrize("change", ["removed", "secret", "made again"])
def test_a_changed_account_is_not_believed_any_more(catalogue: Catalogue, change: str) -> None:
    store(catalogue, robot(secret="right"))
    parts = identity(catalogue)
    assert parts.authenticator.authenticate(basic("ci", "right")) is not None
    with catalogue.write() as conn:
        if change == "secret":
            set_secret(conn, "ci", hash_secret("other"))
        else:
            remove_account(conn, "ci")
        if change == "made again":
            add_account(conn, robot(secret="other"))
    assert parts.authenticator.authenticate(basic("ci", "right")) is None
    if change != "removed":
        assert parts.authenticator.authenticate(basic("ci", "other")) is not None


def test_what_is_remembered_costs_no_question_for_a_minute(catalogue: Catalogue) -> None:
    store(catalogue, robot(secret="right"))
    authenticator = identity(catalogue).authenticator
    assert authenticator.authenticate(basic("ci", "right")) is not None
    # Changed behind the back of the generation, which is what makes a process ask again.
    with catalogue.write() as conn:
        conn.execute(accounts.delete())
    assert authenticator.authenticate(basic("ci", "right")) is not None


def test_failures_are_not_remembered(catalogue: Catalogue) -> None:
    authenticator = identity(catalogue).authenticator
    assert authenticator.authenticate(basic("ci", "right")) is None
    store(catalogue, robot(secret="right"))
    assert authenticator.authenticate(basic("ci", "right")) is not None


def test_memory_is_bounded(catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authenticate, "MAX_REMEMBERED", 8)
    store(catalogue, *(robot(f"r{number}", secret="right") for number in range(20)))
    authenticator = identity(catalogue).authenticator
    for number in range(20):
        assert authenticator.authenticate(basic(f"r{number}", "right")) is not None
        assert len(authenticator._remembered) <= 8
    kept = list(authenticator._remembered)
    assert authenticator.authenticate(basic("r19", "right")) is not None
    assert list(authenticator._remembered) == kept


def test_a_catalogue_that_is_away_ends_what_is_remembered(catalogue: Catalogue) -> None:
    store(catalogue, robot(secret="right"))
    parts = identity(catalogue)
    assert parts.authenticator.authenticate(basic("ci", "right")) is not None
    with catalogue.write(stamped=False) as conn:
        conn.exec_driver_sql("DROP TABLE generations")
    with pytest.raises(CatalogueError):
        parts.authenticator.authenticate(basic("ci", "right"))


def test_many_threads_ask_the_generation_once(catalogue: Catalogue) -> None:
    store(catalogue, robot(secret="right"))
    parts = identity(catalogue)
    assert parts.authenticator.authenticate(basic("ci", "right")) is not None
    stop, failed = time.monotonic() + 2.5, []

    def ask() -> None:
        while time.monotonic() < stop:
            if parts.authenticator.authenticate(basic("ci", "right")) is None:
                failed.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_a_remembered_header_costs_no_statement_but_the_stamp(catalogue: Catalogue) -> None:
    store(catalogue, robot(secret="right"))
    parts = identity(catalogue)
    header = basic("ci", "right")
    found = parts.authenticator.identify(header)
    assert found is not None
    token = "Bearer " + parts.tokens.issue(found, (), withdrawals=parts.generation.current()).token
    said: list[str] = []
    for each in (header, token):
        assert parts.authenticator.authenticate(each) is not None
    event.listen(catalogue._engine, "before_cursor_execute", lambda *call: said.append(call[2]))
    for each in (header, token):
        for _ in range(100):
            assert parts.authenticator.authenticate(each) is not None
    assert not said
    store(catalogue, robot("other", secret="right"))
    assert parts.authenticator.authenticate(header) is not None
    assert any("generations" in statement for statement in said)


def test_r7_no_account_is_there_that_nobody_made(catalogue: Catalogue) -> None:
    with catalogue.read() as conn:
        assert conn.execute(select(accounts)).all() == []
    authenticator = identity(
        catalogue, logins={"failures_per_account": 100, "failures_per_address": 1000}
    ).authenticator
    for name in ("admin", "root", "registry", "test", "bootstrap", "oidc"):
        for secret in ("", "admin", "password", "Harbor12345", "registry", "root"):
            assert authenticator.authenticate(basic(name, secret)) is None


def test_secrets_are_256_random_bits() -> None:
    made = {new_secret() for _ in range(100)}
    assert len(made) == 100
    assert all(len(base64.urlsafe_b64decode(secret + "=")) == 32 for secret in made)


def test_robots_are_not_kept_out_by_others_failures(catalogue: Catalogue) -> None:
    store(catalogue, robot(secret="right"))
    authenticator = identity(catalogue, logins={"failures_per_account": 2, "failures_per_address": 4}).authenticator
    for number in range(2):
        assert authenticator.authenticate(basic("ci", f"wrong{number}"), "10.0.0.1") is None
    with pytest.raises(TooManyRequestsError):
        authenticator.authenticate(basic("ci", "wrong"), "10.0.0.1")
    assert authenticator.authenticate(basic("ci", "right"), "10.0.0.1") is not None
