"""People's passwords: which are refused, and how they are kept - Argon2id (RFC 9106), at most two hashed at a time.

A password that was right is right for REMEMBER_SECONDS without another hash. What is kept for that is a hash under a
key that this process made by chance, over the stored hash too: it says nothing to whoever sees this memory without
the key, and a changed password is not among it.
"""

from __future__ import annotations

import hmac
import secrets
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from registry.errors import AccountError, TooManyRequestsError

AT_ONCE: Final = 2
"""Hashes under way in this process; each takes its memory, and a core for some 60 ms."""

WAITING: Final = 8
"""Requests that wait for one of them; more are answered 429, known or not."""

REMEMBER_SECONDS: Final = 60.0
MAX_REMEMBERED: Final = 4096

MAX_LENGTH: Final = 256
"""Characters of a password; what is longer is not hashed."""

_MEMORY: Final = 32 * 1024  # KiB
_PASSES: Final = 3
_KEPT: Final = 8
_DIFFERENT: Final = 5
_WELL_KNOWN: Final = (
    *("password", "passwort", "passw0rd", "administrator", "admin", "letmein", "welcome", "changeme", "secret"),
    *("qwertyuiop", "qwerty", "qwertz", "azerty", "asdfghjkl", "asdfgh", "zxcvbnm", "iloveyou", "trustno1"),
    *("monkey", "dragon", "football", "baseball", "sunshine", "princess", "master", "login", "summer", "winter"),
    *("correcthorsebatterystaple", "registry", "container", "docker", "harbor", "pratique", "company", "default"),
)
"""What passwords are often made of; taken out before a password is judged. The longer ones first."""


class Passwords:
    """Judges, hashes and compares passwords; for many threads."""

    def __init__(self, *, length: int) -> None:
        """Expect at least `length` characters of a password."""
        self._length = length
        self._hasher = PasswordHasher(time_cost=_PASSES, memory_cost=_MEMORY, parallelism=1)
        self._running = threading.BoundedSemaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._inside = 0
        self._key = secrets.token_bytes(32)
        self._right: dict[bytes, float] = {}

    def check(self, password: str, *, account: str) -> None:
        """Judge a password that somebody wants to have.

        Raises:
            AccountError: too short, too long, or what anybody would try first.
        """
        text = _normal(password)
        if not self._length <= len(text) <= MAX_LENGTH:
            raise AccountError(f"password: got {len(text)} characters, expected {self._length} to {MAX_LENGTH}")
        left = _without_the_obvious(text, account)
        if len(left) < _KEPT or len(set(left)) < _DIFFERENT:
            raise AccountError("password: consists of well-known words, the account's name, or rows of characters")

    def hash(self, password: str) -> str:
        """What is stored of a password.

        Raises:
            TooManyRequestsError: too many wait already.
        """
        with self._turn():
            return self._hasher.hash(_normal(password[:MAX_LENGTH]))

    def remembers(self, stored: str, password: str) -> bool:
        """True if that was right a moment ago."""
        return time.monotonic() < self._right.get(self._mark(stored, _normal(password[:MAX_LENGTH])), 0.0)

    def fits(self, stored: str, password: str) -> bool:
        """True if `stored` is of this password. Takes as long where `stored` is of nobody ("").

        Raises:
            TooManyRequestsError: too many wait already.
        """
        text = _normal(password[:MAX_LENGTH])
        with self._turn():
            # Of many requests with one password that come at once, two hash it; the others find it here.
            if self.remembers(stored, password):
                return True
            if not self._verify(stored, text):
                return False
            with self._lock:
                if len(self._right) >= MAX_REMEMBERED:
                    self._right.clear()
                self._right[self._mark(stored, text)] = time.monotonic() + REMEMBER_SECONDS
        return True

    def _verify(self, stored: str, text: str) -> bool:
        if not stored:
            self._hasher.hash(text)
            return False
        try:
            return self._hasher.verify(stored, text)
        except (VerificationError, InvalidHashError):
            return False

    def _mark(self, stored: str, text: str) -> bytes:
        return hmac.digest(self._key, f"{stored}\0{text}".encode("utf-8", "replace"), "sha256")

    def is_dated(self, stored: str) -> bool:
        """True if it was hashed with other parameters than new ones are."""
        return self._hasher.check_needs_rehash(stored)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with self._lock:
            if self._inside >= AT_ONCE + WAITING:
                raise TooManyRequestsError("logins: too many passwords are being checked", retry_after=2)
            self._inside += 1
        try:
            with self._running:
                yield
        finally:
            with self._lock:
                self._inside -= 1


def _normal(password: str) -> str:
    # RFC 8265 section 4.2: the same text typed on two keyboards can be different code points.
    return unicodedata.normalize("NFC", password)


def _without_the_obvious(password: str, account: str) -> str:
    """What of a password is neither a well-known word, nor the account's name, nor goes on as a row (111, abc, 321)."""
    rest = "".join(char for char in password.casefold() if char.isalnum())
    for word in (*_WELL_KNOWN, *filter(lambda part: len(part) > 2, _parts(account))):
        rest = rest.replace(word, "")
    return "".join(
        char for position, char in enumerate(rest) if position == 0 or abs(ord(char) - ord(rest[position - 1])) > 1
    )


def _parts(account: str) -> list[str]:
    return account.casefold().replace(".", " ").replace("_", " ").replace("-", " ").split()
