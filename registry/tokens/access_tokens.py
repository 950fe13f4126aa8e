"""The registry's own tokens: JSON Web Tokens by Ed25519 (RFC 8037), good for five minutes at most.

A token names an account and that account's version, so it ends when the account is removed or changed. Of somebody
whom an issuer vouches for there is no account: role and grants stand in the token.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import jwt

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue
from registry.access import Grant, Principal, Role
from registry.catalogue.accounts import ANONYMOUS, MAX_GRANTS, is_account_name
from registry.errors import AccountError, TokenError
from registry.identity.identity import Identity, earliest
from registry.tokens import jose
from registry.tokens.keys import TokenKeys
from registry.tokens.scopes import MAX_SCOPES, Scope

ALGORITHM: Final = "EdDSA"
MAX_LIFETIME: Final = 300
"""Seconds that a token may be good for, whatever it says."""

_HEADER: Final = {"alg": ALGORITHM, "typ": "JWT"}
_KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_REQUIRED: Final = ("sub", "nbf", "jti", "access")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token that was just made, and what its answer says of it."""

    token: str
    access: tuple[Scope, ...]
    issued: datetime
    expires_in: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessToken:
    """What a token says that was verified: of an account of this version, or (None) of this federated principal."""

    subject: str
    version: int | None
    principal: Principal | None
    access: tuple[Scope, ...]
    ends: datetime


class AccessTokens:
    """Makes and verifies the tokens of one registry; for many threads."""

    def __init__(self, keys: TokenKeys, *, registry: str, lifetime: timedelta, clock: Callable[[], datetime]) -> None:
        """Take the keys, the registry's name (issuer and audience of all tokens), how long one is good, the clock."""
        self._keys, self._registry, self._lifetime, self._clock = keys, registry, lifetime, clock

    def issue(self, identity: Identity, access: Sequence[Scope], *, withdrawals: int) -> Issued:
        """A token for somebody, of an access that was narrowed to what they may.

        Raises:
            CatalogueError: there is no key to sign with.
        """
        now = self._clock()
        ends = earliest(now + self._lifetime, identity.ends) or now
        claims: dict[str, JsonValue] = {
            "iss": self._registry,
            "aud": self._registry,
            "sub": identity.account.name,
            "iat": int(now.timestamp()),
            "nbf": int(now.timestamp()),
            "exp": int(ends.timestamp()),
            "jti": secrets.token_urlsafe(16),
            "access": [scope.to_json() for scope in access],
        }
        if identity.version is not None:
            claims["ver"] = identity.version
        else:
            claims |= {"role": str(identity.account.role), "grants": [str(grant) for grant in identity.account.grants]}
        key = self._keys.signing_key(withdrawals)
        token = jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.id})
        return Issued(token=token, access=tuple(access), issued=now, expires_in=int((ends - now).total_seconds()))

    def verify(self, token: str, header: dict[str, JsonValue]) -> AccessToken:
        """What a token says, read before by `jose.read_unverified`.

        Raises:
            TokenError: it is not one of ours, or not good now.
        """
        # (1) the header says nothing but which key; (2) only published keys count
        key_id = header.get("kid")
        if not isinstance(key_id, str) or header != {**_HEADER, "kid": key_id}:
            raise TokenError("token: its header is not one of ours")
        key = self._keys.public_key(key_id) if _KEY_ID.fullmatch(key_id) else None
        if key is None:
            raise TokenError("token: its key is not one of ours, or has ended")
        # (3) signature, issuer, audience, times
        claims = jose.verify(
            token, key, algorithms=(ALGORITHM,), issuer=self._registry, audience=self._registry, require=_REQUIRED
        )
        if claims["aud"] != self._registry:
            raise TokenError("token: its audience is not this registry alone")
        # (4) no longer than any token of ours
        try:
            return _parse(claims)
        except (SpecError, AccountError, ValueError) as error:
            raise TokenError(str(error)) from None


def _parse(claims: dict[str, JsonValue]) -> AccessToken:
    what = "token"
    begins, expires = fields.integer(claims, "iat", what=what), fields.integer(claims, "exp", what=what)
    if expires - begins > MAX_LIFETIME:
        raise TokenError(f"token: good for {expires - begins} seconds, expected at most {MAX_LIFETIME}")
    ends = datetime.fromtimestamp(expires, UTC)
    subject = fields.text(claims, "sub", what=what)
    access = tuple(_scope(item) for item in fields.items(claims, "access", what=what, limit=MAX_SCOPES))
    if "ver" in claims:
        version = fields.integer(claims, "ver", what=what)
        return AccessToken(subject=subject, version=version, principal=None, access=access, ends=ends)
    role = Role(fields.text(claims, "role", what=what))
    grants = tuple(map(Grant.parse, fields.texts(claims, "grants", what=what, limit=MAX_GRANTS)))
    if not grants or (is_account_name(subject) and subject != ANONYMOUS):
        raise TokenError(f"{what}: without version, expected grants of somebody who has no account")
    principal = Principal(name=subject, role=role, grants=grants)
    return AccessToken(subject=subject, version=None, principal=principal, access=access, ends=ends)


def _scope(item: JsonValue) -> Scope:
    if not isinstance(item, dict):
        raise TokenError("token: access: expected objects")
    what = "token: access"
    return Scope(
        type=fields.text(item, "type", what=what),
        name=fields.text(item, "name", what=what),
        actions=fields.texts(item, "actions", what=what, limit=8),
    )
