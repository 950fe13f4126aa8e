"""`pratique accounts`, `login` and `logout` against a whole registry: people, robots' secrets, grants, tokens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pratique import accounts
from tests.pratique.calling import Office, call, good

ADMIN = ("--account", "admin")
GOOD = "brown fox over 13 lazy dogs"
BETTER = "quick 27 jars of wax, boxed"


def row(office: Office, name: str) -> dict[str, object]:
    listed = good("accounts", "list", office.address, *ADMIN, "--json").json
    found: dict[str, object] = next(each for each in listed if each["name"] == name)
    return found


def test_a_person_sets_a_password_changes_it_and_is_invited_again(office: Office) -> None:
    made = good("accounts", "add", office.address, "dana", "--role", "auditor", "--person", *ADMIN)
    assert "invitation is on standard output" in made.err
    login = ("login", office.address, "--account", "dana", "--plain-http")
    weak = call(*login, "--invitation", stdin=f"{made.out.strip()}\nwelcome welcome\n")
    assert (weak.code, accounts.find(office.address, "dana")) == (1, None)
    good(*login, "--invitation", stdin=f"{made.out.strip()}\n{GOOD}\n")
    good("audit", "show", office.address, "--account", "dana")
    assert call(*login, "--invitation", stdin=f"{made.out.strip()}\n{BETTER}\n").code == 1
    assert call(*login, "--change-password", stdin=f"{BETTER}\n{GOOD}\n").code == 1
    good(*login, "--change-password", stdin=f"{GOOD}\n{BETTER}\n")
    good("audit", "show", office.address, "--account", "dana")
    good("accounts", "invite", office.address, "dana", *ADMIN)
    assert row(office, "dana")["invitedUntil"] is not None
    good("accounts", "remove", office.address, "dana", *ADMIN)


def test_a_robots_secret_is_renewed_with_and_without_overlap(office: Office) -> None:
    first = good("accounts", "add", office.address, "ci-9", "--role", "pusher", *ADMIN).out
    login = ("login", office.address, "--account", "ci-9", "--plain-http")
    good(*login, stdin=first)
    # By itself.
    second = good("accounts", "renew", office.address, "ci-9", "--overlap", "1h", "--account", "ci-9")
    assert "the old one counts until 20" in second.err
    for each in (first, second.out):
        good(*login, stdin=each)
    third = good("accounts", "renew", office.address, "ci-9", *ADMIN).out
    good(*login, stdin=third)
    assert call("accounts", "renew", office.address, "ci-9", "--overlap", "8d", *ADMIN).code == 1
    good("accounts", "remove", office.address, "ci-9", *ADMIN)


def test_what_an_account_may_is_changed(office: Office) -> None:
    name = ("cd-1", *ADMIN)
    good("accounts", "add", office.address, *name, "--role", "pusher", "--until", "9d", "--certificate", "dns:cd.test")
    change = ("accounts", "change", office.address, *name)
    good(*change, "--grant", "shop/*:pull")
    found = row(office, "cd-1")
    assert (found["grants"], found["certificates"]) == (["shop/*:pull"], ["dns:cd.test"])
    assert found["expires"] is not None
    good(*change, "--never-ends", "--no-certificate")
    found = row(office, "cd-1")
    assert (found["grants"], found["certificates"], found["expires"]) == (["shop/*:pull"], [], None)
    assert call(*change).code == 2
    assert call(*change, "--certificate", "cd.test").code == 1
    assert "dns:other.test" in good(*change, "--certificate", "dns:other.test", "--json").out
    good("accounts", "end-tokens", office.address, *ADMIN)
    good("accounts", "remove", office.address, *name)


def test_logout_forgets(office: Office, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRATIQUE_CONFIG", str(tmp_path / "own"))
    for name in ("host", "officer"):
        good("login", office.address, "--account", name, "--plain-http", stdin=office.secret(name))
    assert good("logout", office.address, "--account", "host", "--json").json["forgot"] == 1
    assert [each.name for each in accounts.load()] == ["officer"]
    good("logout", office.address)
    assert accounts.load() == ()
    assert call("images", office.address).code == 1


def test_the_file_of_accounts_is_its_owners_alone(office: Office) -> None:
    path = Path(os.environ["PRATIQUE_CONFIG"]) / "accounts.json"
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    try:
        assert call("images", office.address).code == 1
    finally:
        path.chmod(0o600)


def test_half_a_certificate_is_wrong_usage(office: Office) -> None:
    ran = call("login", office.address, "--account", "host", "--certificate", "x.pem")
    assert (ran.code, "--certificate-key" in ran.err) == (2, True)
