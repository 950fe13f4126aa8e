"""Names with secrets or passwords: HTTP Basic (RFC 7617), and the password grant of docker's token protocol.

Whoever fails cannot tell an unknown account from a wrong secret, neither by the answer nor by its time: every failure
takes one hash of a password. A robot's secret is compared first and costs nothing, so nobody can keep robots out.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable
from datetime import datetime
from typing import Final

from registry.catalogue.accounts import Account, Kind, find_account, is_account_name, rehash_password
from registry.catalogue.database import Catalogue
from registry.errors import TooManyRequestsError
from registry.identity.attempts import Attempts
from registry.identity.failures import FailureLog
from registry.identity.identity import Identity, Method, earliest, known
from registry.identity.passwords import Passwords

MAX_HEADER: Final = 64 * 1024
"""Characters of the encoded name and secret; a bearer token may stand in place of a secret."""


class BasicLogins:
    """Compares secrets and passwords with the catalogue's; for many threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        passwords: Passwords,
        attempts: Attempts,
        failures: FailureLog,
        clock: Callable[[], datetime],
    ) -> None:
        """Take the parts."""
        self._catalogue, self._clock = catalogue, clock
        self._passwords, self._attempts, self._failures = passwords, attempts, failures

    def identify(self, name: str, secret: str, source: str) -> Identity | None:
        """Whose name and secret these are, sent from an address; None if nobody's.

        Raises:
            TooManyRequestsError: too many failed of late.
        """
        account = self._find(name)
        if account is not None and not account.has_ended(self._clock()):
            if account.kind is Kind.ROBOT:
                if (found := self._robot(account, secret)) is not None:
                    return found
            elif account.password and self._is_right(account, secret, source):
                return _known(account, Method.PASSWORD)
            elif account.password:
                return None
        self._is_right(None, secret, source, name=name)
        return None

    def _robot(self, account: Account, secret: str) -> Identity | None:
        hashed = hash_secret(secret)
        if hmac.compare_digest(hashed, account.secret):
            return _known(account, Method.SECRET)
        if account.old_until is None or account.old_until <= self._clock():
            return None
        if not hmac.compare_digest(hashed, account.old_secret):
            return None
        return _known(account, Method.SECRET, ends=account.old_until)

    def _is_right(self, account: Account | None, secret: str, source: str, *, name: str = "") -> bool:
        stored, name = (account.password, account.name) if account is not None else ("", name)
        if stored and self._passwords.remembers(stored, secret):
            return True
        charge = self._attempts.begin(name, source)
        try:
            right = self._passwords.fits(stored, secret)
        except TooManyRequestsError:
            self._attempts.undo(charge)
            raise
        if not right:
            self._failures.note(account=name, source=source, reason="unknown account or wrong secret")
            return False
        self._attempts.succeeded(charge)
        if self._passwords.is_dated(stored):
            self._renew(name, stored, secret)
        return True

    def _find(self, name: str) -> Account | None:
        if not is_account_name(name):
            return None
        with self._catalogue.look() as conn:
            return find_account(conn, name)

    def _renew(self, name: str, stored: str, password: str) -> None:
        """Keep the password as passwords are hashed today, if there is time for that."""
        try:
            hashed = self._passwords.hash(password)
        except TooManyRequestsError:
            return
        with self._catalogue.write() as conn:
            rehash_password(conn, name, old=stored, new=hashed)


def hash_secret(secret: str) -> str:
    """What is stored of a secret of 256 random bits: its SHA-256, in hex. So much chance needs no slow hash."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def read_basic(encoded: str) -> tuple[str, str] | None:
    """Name and secret in the credentials of a Basic header, or None if they are malformed or too long."""
    if len(encoded) > MAX_HEADER:
        return None
    try:
        name, colon, secret = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return (name, secret) if colon and secret and name.isprintable() and name else None


def _known(account: Account, method: Method, *, ends: datetime | None = None) -> Identity:
    return known(account.principal, method, version=account.version, ends=earliest(account.expires, ends))
