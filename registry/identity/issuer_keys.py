"""The keys of an OpenID Connect issuer: where its discovery document says (OpenID Connect Discovery 1.0), for a while.

Nothing that a token says leads anywhere (R9): the one address is in the settings, and what is found there may point to
another host by https only, and to none that is nearer to us than the issuer. An unknown key id makes us ask again, at
most once in COOLDOWN seconds, however many tokens come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from ocispec import fields
from ocispec.access import Access
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from ocispec.transport import Transport
from registry.settings_identity import OidcSettings
from registry.tokens.jose import PublicKey

COOLDOWN: Final = 30.0
"""Seconds between two questions to an issuer, whether or not it answered."""

WAITING: Final = 4
"""Requests that wait while another one asks an issuer; more go on with the keys that there are."""

TIMEOUT: Final = 5.0
MAX_DOCUMENT: Final = 256 * 1024
MAX_KEYS: Final = 64
MAX_RSA_BITS: Final = 8192
"""Larger keys make each look at a token dear."""

_CONFIGURATION: Final = "/.well-known/openid-configuration"
_log = logging.getLogger("pratique.registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKey:
    """One public key of a set (RFC 7517), for one algorithm."""

    id: str
    algorithm: str
    key: PublicKey


class IssuerKeys:
    """The keys of one issuer, as they were at most `keys_age` seconds ago; for many threads."""

    def __init__(self, settings: OidcSettings, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask nothing yet.

        Raises:
            SpecError: the issuer's address or its CA file cannot be used.
        """
        url = urlsplit(settings.issuer)
        access = Access(
            ca_file=settings.ca_file, plain_http=url.scheme == "http", timeout=TIMEOUT, attempts=1, grace=TIMEOUT
        )
        self._issuer = settings.issuer
        self._age = settings.keys_age
        self._transport = Transport(url.netloc, access)
        self._clock = clock
        self._lock = threading.Lock()
        self._room = threading.Semaphore(WAITING)
        self._keys: tuple[IssuerKey, ...] = ()
        self._fetched = self._asked = float("-inf")

    def find(self, key_id: str, algorithm: str) -> PublicKey | None:
        """The key of that id and algorithm; without an id ("") the only one of that algorithm."""
        now = self._clock()
        if now - self._fetched > self._age / 2 and now - self._asked > COOLDOWN:
            # Half-way to their end keys are asked for again by one of those who need them; the others go on.
            self._ask(wait=now - self._fetched > self._age)
        found = self._look(key_id, algorithm)
        if found is None:
            self._ask(wait=True)
            found = self._look(key_id, algorithm)
        return found

    def _look(self, key_id: str, algorithm: str) -> PublicKey | None:
        if self._clock() - self._fetched > self._age:
            return None
        found = [key for key in self._keys if key.algorithm == algorithm and key_id in {"", key.id}]
        return found[0].key if len(found) == 1 else None

    def _ask(self, *, wait: bool) -> None:
        """Fetch the keys, unless somebody asked within COOLDOWN; keep the old ones if that fails.

        Who waits while another asks are WAITING at most: an issuer that hangs must not hold up every request.
        """
        if not self._lock.acquire(blocking=False):
            if not wait or not self._room.acquire(blocking=False):
                return
            try:
                self._lock.acquire()
            finally:
                self._room.release()
        try:
            if self._clock() - self._asked <= COOLDOWN:
                return
            self._asked = self._clock()
            self._keys = self._fetch()
            self._fetched = self._asked
        except SpecError as error:
            _log.warning("issuer %s: its keys could not be had: %s", self._issuer, error)
        finally:
            self._lock.release()

    def _fetch(self) -> tuple[IssuerKey, ...]:
        configuration = self._document(self._issuer.rstrip("/") + _CONFIGURATION)
        what = f"issuer {self._issuer}"
        said = fields.text(configuration, "issuer", what=what)
        if said != self._issuer:
            raise SpecError(f"{what}: its configuration is of issuer {said[:200]!r}")
        found = self._document(fields.text(configuration, "jwks_uri", what=what))
        return keys_of(fields.items(found, "keys", what=what, limit=MAX_KEYS))

    def _document(self, url: str) -> dict[str, JsonValue]:
        response = self._transport.fetch(url)
        raw = response.read_all(limit=MAX_DOCUMENT, what=url)
        if response.status != 200:
            raise SpecError(f"{url[:200]}: answered {response.status}, expected 200")
        return parse_object(raw, what=url[:200], max_bytes=MAX_DOCUMENT)


def keys_of(items: list[JsonValue]) -> tuple[IssuerKey, ...]:
    """The keys of a JWK set that tokens may be signed with; others (encryption, symmetric, too weak) are left out."""
    found = (_key(item) for item in items if isinstance(item, dict))
    return tuple(key for key in found if key is not None)


def _key(item: Mapping[str, JsonValue]) -> IssuerKey | None:
    if item.get("use", "sig") != "sig" or "d" in item:
        return None
    try:
        public, algorithm = _public(dict(item))
    except (PyJWTError, ValueError, TypeError, KeyError):
        return None
    key_id = item.get("kid", "")
    if public is None or item.get("alg", algorithm) != algorithm or not isinstance(key_id, str):
        return None
    return IssuerKey(id=key_id, algorithm=algorithm, key=public)


def _public(item: dict[str, JsonValue]) -> tuple[PublicKey | None, str]:
    match item.get("kty"):
        case "RSA":
            rsa = RSAAlgorithm.from_jwk(item)
            fits = isinstance(rsa, RSAPublicKey) and 2048 <= rsa.key_size <= MAX_RSA_BITS
            return rsa if isinstance(rsa, RSAPublicKey) and fits else None, "RS256"
        case "EC":
            curve = ECAlgorithm.from_jwk(item)
            fits = isinstance(curve, EllipticCurvePublicKey) and isinstance(curve.curve, SECP256R1)
            return curve if isinstance(curve, EllipticCurvePublicKey) and fits else None, "ES256"
        case "OKP":
            edwards = OKPAlgorithm.from_jwk(item)
            return edwards if isinstance(edwards, Ed25519PublicKey) else None, "EdDSA"
        case _:
            return None, ""
