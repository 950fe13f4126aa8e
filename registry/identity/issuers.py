"""Bearer tokens of OpenID Connect issuers: who a person or a build is, and by which rule it may what (R8).

`iss` chooses which issuer of the settings could have made a token; then its signature, issuer, audience and times are
proven with that issuer's keys and pinned algorithms, and the first rule whose claims all match gives role and grants.
"""

from __future__ import annotations

import fnmatch
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from ocispec.strictjson import JsonValue
from registry.access import Principal
from registry.errors import TokenError
from registry.identity.identity import Identity, Method, known
from registry.identity.issuer_keys import IssuerKeys
from registry.settings_identity import OidcRule, OidcSettings
from registry.tokens import jose

MAX_SUBJECT: Final = 200
"""Characters of a subject; the audit and whatever it pushes carry it."""


MAX_BELIEVED: Final = 86_400
"""Seconds after which a token is proven again, however long it says that it is good."""


class Issuers:
    """All issuers of the settings; for many threads."""

    def __init__(self, settings: Sequence[OidcSettings]) -> None:
        """Ask none of them yet.

        Raises:
            SpecError: an issuer's address or CA file cannot be used.
        """
        self._issuers = {each.issuer: (each, IssuerKeys(each)) for each in settings}

    def knows(self, claims: dict[str, JsonValue]) -> bool:
        """True if a token of these unverified claims would be of one of them."""
        issuer = claims.get("iss")
        return isinstance(issuer, str) and issuer in self._issuers

    def identify(self, token: str, header: dict[str, JsonValue], claims: dict[str, JsonValue]) -> Identity:
        """Who a token is of, read before by `jose.read_unverified`.

        Raises:
            TokenError: it is not believed, or no rule fits.
        """
        # (1) which issuer, and what it signs with
        settings, keys = self._issuers[str(claims["iss"])]
        algorithm, key_id = header.get("alg"), header.get("kid", "")
        if algorithm not in settings.algorithms or not isinstance(algorithm, str):
            raise TokenError(f"token of {settings.name}: signed by {str(algorithm)[:40]!r}, which was not expected")
        # (2) one of its keys
        key = keys.find(key_id, algorithm) if isinstance(key_id, str) else None
        if key is None:
            raise TokenError(f"token of {settings.name}: its key {str(key_id)[:80]!r} is not one of the issuer's")
        # (3) signature, issuer, audience, times
        proven = jose.verify(
            token,
            key,
            algorithms=(algorithm,),
            issuer=settings.issuer,
            audience=settings.audience,
            require=(settings.subject,),
        )
        # (4) who, and by which rule
        subject = proven[settings.subject]
        if not isinstance(subject, str) or not subject.isprintable() or not 1 <= len(subject) <= MAX_SUBJECT:
            raise TokenError(f"token of {settings.name}: {settings.subject} names nobody")
        rule = next((rule for rule in settings.rules if _fits(rule, proven)), None)
        if rule is None:
            raise TokenError(f"token of {settings.name}: no rule fits {subject[:80]!r}")
        principal = Principal(name=f"{settings.name}:{subject}", role=rule.role, grants=rule.grants)
        ends = min(int(str(proven["exp"])), int(time.time()) + MAX_BELIEVED)
        return known(principal, Method.ISSUER, version=None, ends=datetime.fromtimestamp(ends, UTC))


def _fits(rule: OidcRule, claims: dict[str, JsonValue]) -> bool:
    return all(_matches(claims.get(name), glob) for name, glob in rule.claims)


def _matches(value: JsonValue, glob: str) -> bool:
    """True if a claim is, or a list of texts has, what a glob asks for; a claim that is not there is nothing."""
    if isinstance(value, bool):
        return glob == str(value).lower()
    if isinstance(value, int):
        return glob == str(value)
    values = value if isinstance(value, list) else [value]
    return any(isinstance(each, str) and fnmatch.fnmatchcase(each, glob.replace("[", "[[]")) for each in values)
