"""Passwords: which are taken, how they are kept, how many are hashed at a time, how long a success is remembered."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from argon2 import PasswordHasher, extract_parameters
from argon2.low_level import Type

from registry.catalogue.accounts import add_account, find_account, set_password
from registry.catalogue.database import Catalogue
from registry.errors import AccountError, TooManyRequestsError
from registry.identity import passwords as module
from registry.identity.attempts import Attempts, network_of
from registry.identity.passwords import AT_ONCE, WAITING, Passwords
from tests.support.identity import basic, ended_identities, fresh, identity, person

__all__ = ["ended_identities"]  # a fixture of every test here

GOOD = "brown fox over 13 lazy dogs"


@pytest.fixture(scope="module")
def hashed() -> str:
    return Passwords(length=15).hash(GOOD)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost nothing, where the cost is not what is looked at."""
    monkeypatch.setattr(module, "_MEMORY", 8)
    monkeypatch.setattr(module, "_PASSES", 1)


@pytest.fixture
def database(tmp_path: Path) -> str:
    """SQLite alone: all but two tests need none."""
    return fresh(tmp_path)


@pytest.mark.parametrize(
    "password", [GOOD, "correct horse 7 staple Battery", "x9!kQ2#mZ7@wL4$", "пароль который длинный", "🦊" * 2 + GOOD]
)
def test_good_ones_are_taken(password: str) -> None:
    Passwords(length=15).check(password, account="alice")


@pytest.mark.parametrize(
    ("password", "said"),
    [
        ("", "got 0 characters, expected 15 to 256"),
        ("x9!kQ2#mZ7@wL4", "got 14 characters"),
        ("x" * 257, "got 257 characters"),
        ("aaaaaaaaaaaaaaaaaaaa", "rows of characters"),
        ("abcdefghijklmnopqrstuvwxyz", "rows of characters"),
        ("9876543210987654321", "rows of characters"),
        ("Password123456789", "well-known words"),
        ("correcthorsebatterystaple", "well-known words"),
        ("Administrator-2026", "well-known words"),
        ("alice.smith.alice.smith", "the account's name"),
        ("qwertyuiopasdfghjkl", "well-known words"),
    ],
)
def test_bad_ones_are_refused_and_not_repeated(password: str, said: str) -> None:
    with pytest.raises(AccountError, match=said) as refused:
        Passwords(length=15).check(password, account="alice.smith")
    assert not password or password not in str(refused.value)


def test_they_are_kept_by_argon2id_with_salt_memory_and_passes(hashed: str) -> None:
    found = extract_parameters(hashed)
    assert (found.type, found.memory_cost, found.time_cost, found.parallelism) == (Type.ID, 32 * 1024, 3, 1)
    assert found.salt_len >= 16
    assert Passwords(length=15).hash(GOOD) != hashed
    assert GOOD not in hashed


def test_the_right_one_fits_and_no_other(hashed: str) -> None:
    passwords = Passwords(length=15)
    assert passwords.fits(hashed, GOOD)
    for wrong in (GOOD + " ", GOOD.upper(), "", GOOD[:-1], hashed):
        assert not passwords.fits(hashed, wrong)
    for damaged in ("", "x", "$argon2id$v=19$m=8,t=1,p=1$", "0" * 64, hashed[:-2]):
        assert not passwords.fits(damaged, GOOD)


def test_the_same_text_of_two_keyboards_is_the_same(quick: None) -> None:
    passwords = Passwords(length=15)
    assert passwords.fits(passwords.hash("caf\u00e9 au lait 1234567"), "cafe\u0301 au lait 1234567")


def test_a_success_is_remembered_a_failure_is_not(hashed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(length=15)
    assert not passwords.fits(hashed, "wrong")
    assert not passwords.remembers(hashed, "wrong")
    assert passwords.fits(hashed, GOOD)
    assert passwords.remembers(hashed, GOOD)
    # Of another hash it is not known, nor by another process.
    assert not passwords.remembers(Passwords(length=15).hash(GOOD), GOOD)
    assert not Passwords(length=15).remembers(hashed, GOOD)
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert not passwords.remembers(hashed, GOOD)


def test_what_is_remembered_holds_neither_password_nor_hash(hashed: str) -> None:
    passwords = Passwords(length=15)
    assert passwords.fits(hashed, GOOD)
    [mark] = passwords._right
    assert len(mark) == 32
    assert GOOD.encode() not in mark
    assert hashed.encode() not in repr(passwords._right).encode()


def test_two_are_hashed_at_a_time_and_few_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    passwords = Passwords(length=15)
    most, now, lock = 0, 0, threading.Lock()
    hold = threading.Event()

    def slow(_self: PasswordHasher, _password: str) -> str:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        hold.wait(20)
        with lock:
            now -= 1
        return "hash"

    monkeypatch.setattr(PasswordHasher, "hash", slow)
    with ThreadPoolExecutor(AT_ONCE + WAITING + 5) as pool:
        running = [pool.submit(passwords.hash, GOOD) for _ in range(AT_ONCE + WAITING + 5)]
        deadline = time.monotonic() + 20
        while sum(each.done() for each in running) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        hold.set()
    refused = [each for each in running if each.exception() is not None]
    assert len(refused) == 5
    assert all(isinstance(each.exception(), TooManyRequestsError) for each in refused)
    assert most == AT_ONCE


def test_a_person_logs_in_and_an_old_hash_is_renewed(catalogue: Catalogue) -> None:
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(GOOD)
    with catalogue.write() as conn:
        add_account(conn, person())
        set_password(conn, "alice", old)
    parts = identity(catalogue)
    found = parts.authenticator.identify(basic("alice", GOOD), "10.0.0.1")
    assert found is not None
    with catalogue.look() as conn:
        account = find_account(conn, "alice")
    assert account is not None
    assert extract_parameters(account.password).memory_cost == 32 * 1024
    # The same password still counts, and what was remembered of the account too.
    assert account.version == found.version
    assert parts.authenticator.identify(basic("alice", GOOD), "10.0.0.1") is not None


def test_unknown_accounts_take_as_long_as_wrong_passwords(catalogue: Catalogue, hashed: str) -> None:
    """One hash each: not asserted by the clock, but by how often the hasher was at work."""
    with catalogue.write() as conn:
        add_account(conn, person())
        add_account(conn, person("bob"))
        set_password(conn, "alice", hashed)
    parts = identity(catalogue)
    for name in ("alice", "bob", "nobody", "NOT A NAME"):
        count = _work(parts.passwords, lambda name=name: parts.authenticator.identify(basic(name, "wrong"), "10.0.0.1"))
        assert count == 1, name


def _work(passwords: Passwords, what: object) -> int:
    hasher = passwords._hasher
    counted = 0

    class Counting:
        def hash(self, text: str) -> str:
            nonlocal counted
            counted += 1
            return hasher.hash(text)

        def verify(self, stored: str, text: str) -> bool:
            nonlocal counted
            counted += 1
            return hasher.verify(stored, text)

        def check_needs_rehash(self, stored: str) -> bool:
            return hasher.check_needs_rehash(stored)

    passwords._hasher = Counting()  # type: ignore[assignment]  # the same methods
    try:
        assert callable(what)
        what()
    finally:
        passwords._hasher = hasher
    return counted


# ---- attempts ----------------------------------------------------------------------------------------------------


def test_so_many_failures_of_one_account_and_no_more() -> None:
    attempts = Attempts(per_account=3, per_address=100)
    for number in range(3):
        attempts.begin("alice", f"10.0.0.{number}")
    with pytest.raises(TooManyRequestsError):
        attempts.begin("alice", "10.0.0.9")
    attempts.begin("bob", "10.0.0.9")


def test_so_many_failures_from_one_address_and_no_more() -> None:
    attempts = Attempts(per_account=100, per_address=3)
    for number in range(3):
        attempts.begin(f"a{number}", "10.0.0.1")
    with pytest.raises(TooManyRequestsError):
        attempts.begin("b", "10.0.0.1")
    attempts.begin("b", "10.0.0.2")


def test_who_logged_in_from_there_is_not_locked_out_by_others() -> None:
    attempts = Attempts(per_account=2, per_address=100)
    attempts.succeeded(attempts.begin("alice", "10.0.0.1"))
    for number in range(2):
        attempts.begin("alice", f"10.9.9.{number}")
    with pytest.raises(TooManyRequestsError):
        attempts.begin("alice", "10.9.9.9")
    attempts.begin("alice", "10.0.0.1")


def test_failures_run_out(monkeypatch: pytest.MonkeyPatch) -> None:
    attempts = Attempts(per_account=2, per_address=100)
    now = time.monotonic()
    for _ in range(2):
        attempts.begin("alice", "10.0.0.1")
    monkeypatch.setattr(time, "monotonic", lambda: now + 31)
    attempts.begin("alice", "10.0.0.1")


def test_a_success_costs_nothing() -> None:
    attempts = Attempts(per_account=1, per_address=1)
    for _ in range(10):
        attempts.succeeded(attempts.begin("alice", "10.0.0.1"))


def test_a_network_of_ipv6_is_one_address_and_names_are_bounded() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == "10.0.0.1"
    attempts = Attempts(per_account=1, per_address=100)
    attempts.begin("x" * 10_000, "10.0.0.1")
    assert all(len(str(key)) < 200 for key in attempts._accounts._levels)
