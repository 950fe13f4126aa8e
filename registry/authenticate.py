"""Credentials to principals: the front door, which remembers whom it has proven.

An `Authenticator` never decides what a principal may do. There is no default account (R7). Once proven, an
Authorization header costs a keyed hash, a look-up and the time; what was proven is kept under that hash alone, so a
dump of this process's memory holds no secrets for longer than a request takes.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Final, Protocol

from registry.access import Principal
from registry.catalogue.accounts import TOKEN_NAME
from registry.identity.basic import BasicLogins, hash_secret, read_basic
from registry.identity.bearer import Bearers
from registry.identity.generation import AccountsGeneration
from registry.identity.identity import Identity, Method

__all__ = ["Authentication", "Authenticator", "hash_secret", "new_secret"]

REMEMBER_SECONDS: Final[dict[Method, float]] = {
    Method.SECRET: 60.0,
    Method.PASSWORD: 60.0,
    Method.TOKEN: 300.0,
    Method.ISSUER: 300.0,
}
"""How long a success is remembered, if neither its credentials end nor any account is changed before."""

MAX_REMEMBERED: Final = 16_384
"""Headers that are remembered; the oldest quarter makes room."""

MAX_HEADER: Final = 96 * 1024


class Authenticator(Protocol):
    """Turns credentials into whom they speak for."""

    def authenticate(self, authorization: str, source: str = "") -> Principal | None:
        """The principal of an Authorization header that came from an address; None: unknown, wrong, or ended.

        Raises:
            TooManyRequestsError: too many logins failed of late.
            CatalogueError: nobody can be known now.
        """

    def identify(self, authorization: str, source: str = "") -> Identity | None:
        """The same, with what else is known of whom it is. Raises as `authenticate`."""

    def mark(self, authorization: str) -> bytes:
        """What stands for an Authorization header where something is kept beside it, and tells nobody what it is."""

    def login(self, name: str, secret: str, source: str) -> Identity | None:
        """Whose name and secret these are. Raises as `authenticate`."""


@dataclass(frozen=True, slots=True)
class _Remembered:
    """A success, until when it counts (by the monotonic clock), and as of which generation of accounts."""

    identity: Identity
    until: float
    generation: int


class Authentication:
    """Basic and Bearer (RFC 7617, RFC 6750); for many threads."""

    def __init__(
        self, basic: BasicLogins, bearers: Bearers, generation: AccountsGeneration, clock: Callable[[], datetime]
    ) -> None:
        """Take who proves, and how it is known that what was proven still holds."""
        self._basic, self._bearers, self._generation, self._clock = basic, bearers, generation, clock
        self._key = secrets.token_bytes(32)
        self._lock = threading.Lock()
        self._remembered: dict[bytes, _Remembered] = {}

    def authenticate(self, authorization: str, source: str = "") -> Principal | None:
        """See `Authenticator`."""
        identity = self.identify(authorization, source)
        return None if identity is None else identity.principal

    def identify(self, authorization: str, source: str = "") -> Identity | None:
        """See `Authenticator`."""
        mark = self.mark(authorization)
        # The generation comes first: what changes after it was read makes the answer one of an older generation.
        generation = self._generation.current()
        found = self._remembered.get(mark)
        if found is not None and found.generation == generation and time.monotonic() < found.until:
            return found.identity
        identity = self._prove(authorization, source)
        if identity is not None:
            self._remember(mark, identity, generation)
        return identity

    def mark(self, authorization: str) -> bytes:
        """See `Authenticator`."""
        return blake2b(authorization.encode("utf-8", "replace"), key=self._key, digest_size=32).digest()

    def login(self, name: str, secret: str, source: str) -> Identity | None:
        """See `Authenticator`."""
        if name == TOKEN_NAME:
            return self._bearers.identify(secret, source)
        return self._basic.identify(name, secret, source)

    def _prove(self, authorization: str, source: str) -> Identity | None:
        scheme, _, credentials = authorization.partition(" ")
        if len(credentials) > MAX_HEADER:
            return None
        match scheme.lower():
            case "bearer":
                return self._bearers.identify(credentials.strip(" "), source)
            case "basic":
                given = read_basic(credentials)
                return self.login(*given, source) if given is not None else None
            case _:
                return None

    def _remember(self, mark: bytes, identity: Identity, generation: int) -> None:
        seconds = REMEMBER_SECONDS[identity.method]
        if identity.ends is not None:
            seconds = min(seconds, (identity.ends - self._clock()).total_seconds())
        with self._lock:
            if len(self._remembered) >= MAX_REMEMBERED:
                for oldest in list(self._remembered)[: MAX_REMEMBERED // 4]:
                    del self._remembered[oldest]
            self._remembered.pop(mark, None)
            self._remembered[mark] = _Remembered(identity, time.monotonic() + seconds, generation)


def new_secret() -> str:
    """A secret of 256 random bits, to be shown once."""
    return secrets.token_urlsafe(32)
