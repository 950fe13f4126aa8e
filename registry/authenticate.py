"""Credentials to principals. An `Authenticator` never decides what a principal may do.

Basic only for now: an account's name and its secret of 256 random bits. So much chance needs no slow hash:
SHA-256 is what is stored, and compared in constant time. There is no default account (R7).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final, Protocol

from registry.access import Principal
from registry.catalogue.accounts import find_account
from registry.catalogue.database import Catalogue

REMEMBER_SECONDS: Final = 1.0
"""How long a success is remembered: a removed account may be believed for so long."""

_MAX_HEADER: Final = 1024
_MAX_REMEMBERED: Final = 4096
_NOBODY: Final = "0" * 64


class Authenticator(Protocol):
    """Turns credentials into a principal."""

    @property
    def challenge(self) -> str:
        """The WWW-Authenticate header of a 401 answer."""

    def authenticate(self, authorization: str) -> Principal | None:
        """The principal of an Authorization header, or None: unknown, wrong, expired or of another scheme."""


class BasicAuthenticator:
    """HTTP Basic (RFC 7617) against the catalogue's accounts; for many threads."""

    def __init__(self, catalogue: Catalogue, realm: str, clock: Callable[[], datetime]) -> None:
        """Take where accounts are, the name to challenge with, and the clock that they expire by."""
        self._catalogue = catalogue
        self._clock = clock
        self._lock = threading.Lock()
        self._remembered: dict[bytes, tuple[float, Principal]] = {}
        self.challenge = f'Basic realm="{realm}", charset="UTF-8"'

    def authenticate(self, authorization: str) -> Principal | None:
        """See `Authenticator`."""
        # The header itself is not kept: a dump of this process's memory should not hold secrets for longer.
        known = hashlib.sha256(authorization.encode("utf-8", "replace")).digest()
        remembered = self._remembered.get(known)
        if remembered is not None and time.monotonic() < remembered[0]:
            return remembered[1]
        found = self._check(authorization)
        if found is not None:
            with self._lock:
                if len(self._remembered) >= _MAX_REMEMBERED:
                    self._remembered.clear()
                self._remembered[known] = (time.monotonic() + REMEMBER_SECONDS, found)
        return found

    def _check(self, authorization: str) -> Principal | None:
        credentials = _basic(authorization)
        if credentials is None:
            return None
        name, secret = credentials
        with self._catalogue.look() as conn:
            account = find_account(conn, name)
        wanted = account.secret if account is not None else _NOBODY
        right = hmac.compare_digest(hash_secret(secret), wanted)
        if account is None or not right:
            return None
        if account.expires is not None and account.expires <= self._clock():
            return None
        return account.principal


def new_secret() -> str:
    """A secret of 256 random bits, to be shown once."""
    return secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    """What is stored of a secret: its SHA-256, in hex."""
    return hashlib.sha256(secret.encode()).hexdigest()


def _basic(authorization: str) -> tuple[str, str] | None:
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic" or len(encoded) > _MAX_HEADER:
        return None
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (name, secret) if colon and secret and name.isprintable() and name else None
