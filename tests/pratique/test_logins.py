"""Logins of other clients: which file counts, which entry, and what a credential helper is asked."""

from __future__ import annotations

import base64
import json
import os
import stat
from pathlib import Path

import pytest

from pratique import accounts, logins
from pratique.exits import CommandError

REGISTRY = "registry.test:5000"


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def write(path: Path, **members: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(members))


def entry(secret: str, registry: str = REGISTRY) -> dict[str, object]:
    return {registry: {"auth": auth(f"ci:{secret}")}}


def test_without_any_file_there_is_no_login() -> None:
    assert logins.find(REGISTRY) is None
    assert accounts.find(REGISTRY) is None


def test_files_count_in_order(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(own_home / "run"))
    places = [".docker/config.json", ".config/containers/auth.json", "run/containers/auth.json"]
    for place in places:
        write(own_home / place, auths=entry(place))
        found = logins.find(REGISTRY)
        assert found == logins.Login(name="ci", secret=place)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(own_home / "other.json"))
    assert logins.find(REGISTRY) is None
    write(own_home / "other.json", auths=entry("other"))
    assert logins.find(REGISTRY) == logins.Login(name="ci", secret="other")


def test_the_first_file_that_names_the_registry_counts(own_home: Path) -> None:
    write(own_home / ".config/containers/auth.json", auths=entry("x", "another.test"))
    write(own_home / ".docker/config.json", auths=entry("docker"), HttpHeaders={"a": "b"}, detachKeys="ctrl-e")
    assert logins.find(REGISTRY) == logins.Login(name="ci", secret="docker")
    assert logins.find("registry.test") is None
    assert logins.find("another.test") == logins.Login(name="ci", secret="x")


@pytest.mark.parametrize("key", [f"https://{REGISTRY}", f"https://{REGISTRY}/v1/"])
def test_addresses_that_old_clients_wrote(own_home: Path, key: str) -> None:
    write(own_home / ".docker/config.json", auths=entry("old", key))
    assert logins.find(REGISTRY) == logins.Login(name="ci", secret="old")


def test_secrets_may_have_colons_and_names_may_not(own_home: Path) -> None:
    write(own_home / ".docker/config.json", auths=entry("a:b:c"))
    assert logins.find(REGISTRY) == logins.Login(name="ci", secret="a:b:c")


@pytest.mark.parametrize("bad", ["!", auth("nocolon"), auth(":x"), auth("x:"), "\u00e9"])
def test_a_damaged_entry_is_an_error_and_names_its_file(own_home: Path, bad: str) -> None:
    write(own_home / ".docker/config.json", auths={REGISTRY: {"auth": bad}})
    with pytest.raises(CommandError, match=r"config\.json: auths\[registry"):
        logins.find(REGISTRY)
    assert logins.find("another.test") is None


def test_what_is_remembered_by_pratique_comes_first(own_home: Path) -> None:
    write(own_home / ".docker/config.json", auths=entry("docker"))
    assert accounts.find(REGISTRY) == accounts.Account(registry=REGISTRY, name="ci", secret="docker")
    assert accounts.find(REGISTRY, "alice") is None
    accounts.remember(accounts.Account(registry=REGISTRY, name="alice", secret="own"))
    found = accounts.find(REGISTRY)
    assert found is not None
    assert found.name == "alice"
    assert accounts.find(REGISTRY, "ci") is not None


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    path = folder / "bin" / "docker-credential-vault"
    path.parent.mkdir()
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")


@pytest.mark.parametrize("members", [{"credHelpers": {REGISTRY: "vault"}}, {"credsStore": "vault"}])
def test_a_helper_is_asked(own_home: Path, monkeypatch: pytest.MonkeyPatch, members: dict[str, object]) -> None:
    script = 'read -r server; test "$1" = get && echo "{\\"Username\\":\\"ci\\",\\"Secret\\":\\"of $server\\"}"'
    helper(own_home, monkeypatch, script.replace("\\\\", "\\"))
    write(own_home / ".docker/config.json", **members)
    assert logins.find(REGISTRY) == logins.Login(name="ci", secret=f"of {REGISTRY}")


def test_a_helper_that_has_none(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper(own_home, monkeypatch, "echo credentials not found in native keychain; exit 1")
    write(own_home / ".docker/config.json", credsStore="vault", auths=entry("file"))
    assert logins.find(REGISTRY) == logins.Login(name="ci", secret="file")


@pytest.mark.parametrize(
    ("name", "script"),
    [
        ("vault", "exit 3"),
        ("vault", "echo no json"),
        ("vault", 'echo \'{"Username": "<token>", "Secret": "x"}\''),
        ("none-such", ""),
        ("../../bin/sh", ""),
    ],
)
def test_a_helper_that_fails_is_an_error(
    own_home: Path, monkeypatch: pytest.MonkeyPatch, name: str, script: str
) -> None:
    helper(own_home, monkeypatch, script)
    write(own_home / ".docker/config.json", credsStore=name)
    with pytest.raises(CommandError, match="credential"):
        logins.find(REGISTRY)
