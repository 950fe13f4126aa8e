"""Bearer tokens (RFC 6750): the registry's own, and those of the issuers in the settings."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from registry.catalogue.accounts import find_account, is_account_name
from registry.catalogue.database import Catalogue
from registry.errors import TokenEndedError, TokenError
from registry.identity.failures import FailureLog
from registry.identity.identity import Identity, Method, earliest
from registry.identity.issuers import Issuers
from registry.tokens import jose
from registry.tokens.access_tokens import AccessToken, AccessTokens
from registry.tokens.scopes import lists_catalog, narrow


class Bearers:
    """Proves tokens; for many threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        tokens: AccessTokens,
        issuers: Issuers,
        failures: FailureLog,
        clock: Callable[[], datetime],
    ) -> None:
        """Take the parts."""
        self._catalogue, self._clock = catalogue, clock
        self._tokens, self._issuers, self._failures = tokens, issuers, failures

    def identify(self, token: str, source: str) -> Identity | None:
        """Whom a token speaks for; None if it is not believed, or has ended."""
        try:
            header, claims = jose.read_unverified(token)
            if self._issuers.knows(claims):
                return self._issuers.identify(token, header, claims)
            return self._own(self._tokens.verify(token, header))
        except TokenEndedError:
            return None
        except TokenError as error:
            self._failures.note(account="", source=source, reason=str(error))
            return None

    def _own(self, token: AccessToken) -> Identity | None:
        account, ends = token.principal, earliest(token.ends)
        if account is None:
            if not is_account_name(token.subject):
                return None
            with self._catalogue.look() as conn:
                stored = find_account(conn, token.subject)
            if stored is None or stored.version != token.version or stored.has_ended(self._clock()):
                return None
            account, ends = stored.principal, earliest(token.ends, stored.expires)
        return Identity(
            principal=narrow(account, token.access),
            account=account,
            method=Method.TOKEN,
            version=token.version,
            ends=ends,
            lists_catalog=lists_catalog(token.access),
        )
