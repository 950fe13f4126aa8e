"""The keys that tokens are signed with: each process makes its own, and no private half ever leaves its memory.

The public half is published in the catalogue before the first token is signed, with the time at which the last one has
ended; from there every process of every instance takes it. A key id is the hash of its key, and only selects.
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from registry.audit import Audit, Event
from registry.catalogue.database import Catalogue
from registry.catalogue.generations import ACCOUNTS, generation
from registry.catalogue.token_keys import TokenKey, add_key, find_key

SLACK: Final = timedelta(seconds=60)
"""How long a key is kept beyond its last token: the clocks of instances differ."""

MAX_KNOWN: Final = 1024
"""Public keys that a process keeps at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key of this process; `until` is when it signs no more, `withdrawals` as of when it was known as published."""

    id: str
    private: Ed25519PrivateKey
    until: datetime
    withdrawals: int


class TokenKeys:
    """This process's key, and everybody's public ones; for many threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        audit: Audit,
        *,
        clock: Callable[[], datetime],
        rotation: timedelta,
        lifetime: timedelta,
    ) -> None:
        """Make no key yet: it belongs to the process that signs first."""
        self._catalogue, self._audit, self._clock = catalogue, audit, clock
        self._rotation, self._lifetime = rotation, lifetime
        self._lock = threading.Lock()
        self._own: SigningKey | None = None
        self._known: dict[str, TokenKey] = {}

    def signing_key(self, withdrawals: int) -> SigningKey:
        """The key to sign with now; a new one, published, where the last is old or was withdrawn.

        `withdrawals` is the generation of accounts, as it was read a moment ago.

        Raises:
            CatalogueError: it cannot be published; nothing is signed then.
        """
        own = self._own
        if own is not None and own.withdrawals == withdrawals and self._clock() < own.until:
            return own
        with self._lock:
            own = self._own
            if own is None or self._clock() >= own.until or self._was_withdrawn(own):
                own = self._make()
            elif own.withdrawals != withdrawals:
                own = SigningKey(id=own.id, private=own.private, until=own.until, withdrawals=withdrawals)
            self._own = own
        return own

    def public_key(self, key_id: str) -> Ed25519PublicKey | None:
        """The key of that id, if it is published and its tokens have not ended."""
        known = self._known.get(key_id)
        if known is None:
            with self._catalogue.look() as conn:
                known = find_key(conn, key_id)
            if known is None or key_id != _id_of(known.public):
                return None
            with self._lock:
                if len(self._known) >= MAX_KNOWN:
                    self._known.clear()
                self._known[key_id] = known
        return Ed25519PublicKey.from_public_bytes(known.public) if self._clock() < known.ends else None

    def forget(self) -> None:
        """Ask the catalogue again for every key: some may have been withdrawn."""
        with self._lock:
            self._known.clear()

    def _was_withdrawn(self, own: SigningKey) -> bool:
        with self._catalogue.look() as conn:
            return find_key(conn, own.id) is None

    def _make(self) -> SigningKey:
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes_raw()
        now = self._clock()
        until = now + self._rotation
        made_by = f"{socket.gethostname()[:200]}, process {os.getpid()}"
        key = TokenKey(id=_id_of(public), public=public, made=now, made_by=made_by, ends=until + self._lifetime + SLACK)
        with self._catalogue.write() as conn:
            add_key(conn, key)
            self._audit.append(
                conn, Event.TOKEN_KEY, principal="registry", subject=f"token key {key.id}", after=f"made by {made_by}"
            )
            withdrawals = generation(conn, ACCOUNTS)
        return SigningKey(id=key.id, private=private, until=until, withdrawals=withdrawals)


def _id_of(public: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(public).digest()).rstrip(b"=").decode()
