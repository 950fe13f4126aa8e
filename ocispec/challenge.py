"""What a registry's 401 asks for, and what we answer: Basic (RFC 7617) or a token (distribution, auth/token.md).

Credentials go to the registry itself, or to a token service on its own host (there by https, or on its own port) or
named in `Access`. A registry that names another realm gets nothing (R9, CVE-2020-15157 and its kin).
"""

from __future__ import annotations

import base64
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

from ocispec import fields
from ocispec.access import Access, Credentials, Origin
from ocispec.errors import SourceError, SpecError
from ocispec.refusal import parse_refusal
from ocispec.strictjson import parse_object

MAX_TOKEN: Final = 64 * 1024
"""Bytes of a token service's answer."""

MAX_TOKENS: Final = 1024
"""Scopes for which tokens are kept."""

DEFAULT_SECONDS: Final = 60
"""How long a token is good for whose service does not say so (distribution, auth/token.md)."""

MAX_SECONDS: Final = 86_400

_PARAMETER = re.compile(r'([a-zA-Z0-9_-]{1,32})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_TOKEN = re.compile(r"[\x21-\x7e]+", re.ASCII)


class TokenRefusedError(SourceError):
    """A token service that answers, but gives no token."""


class TokenAnswer(Protocol):
    """The part of a response that is needed here."""

    status: int

    def read_all(self, *, limit: int, what: str) -> bytes:
        """The whole body, and close."""


FetchToken = Callable[[Origin, str, Mapping[str, str]], TokenAnswer]
"""GET of a path with headers from a token service; no redirects."""


@dataclass(frozen=True, slots=True)
class _Token:
    """A token, and until when it is sent (by the monotonic clock)."""

    text: str
    until: float


class Authenticator:
    """The Authorization headers of one registry, by scope. Safe for several threads."""

    def __init__(self, origin: Origin, access: Access) -> None:
        self._origin = origin
        self._access = access
        self._basic = False
        self._service: Mapping[str, str] | None = None
        self._tokens: dict[str, _Token] = {}
        self._lock = threading.Lock()

    def header(self, scope: str, fetch: FetchToken) -> str:
        """What to send with a request now, or "": before the first challenge, nothing.

        Once the token service is known, a token for another scope, or in place of one that is about to end, is fetched
        beforehand: the body of an upload can be sent only once.

        Raises:
            SpecError, SourceError: as `answer`.
        """
        with self._lock:
            if self._basic and self._access.credentials is not None:
                return basic(self._access.credentials)
            token, service = self._tokens.get(scope), self._service
        if service is None:
            return ""
        if token is None or time.monotonic() >= token.until:
            token = self._fetch(service, scope, fetch)
        return f"Bearer {token.text}"

    def answer(self, challenges: tuple[str, ...], scope: str, fetch: FetchToken) -> bool:
        """Prepare the answer to a 401; False if there is none, and the refusal stands.

        Without credentials a token is asked for all the same: some registries give it to anybody.

        Raises:
            SpecError: the token service is at a place that gets no credentials.
            SourceError: the token service gives no token.
        """
        offers = dict(_split(challenge) for challenge in challenges)
        if "bearer" in offers:
            try:
                self._fetch(offers["bearer"], scope, fetch)
            except TokenRefusedError:
                if self._access.credentials is None:
                    return False  # what we have none for is better told by the first answer
                raise
            with self._lock:
                self._service = offers["bearer"]
            return True
        if "basic" not in offers or self._access.credentials is None:
            return False
        with self._lock:
            before, self._basic = self._basic, True
        return not before

    def _fetch(self, service: Mapping[str, str], scope: str, fetch: FetchToken) -> _Token:
        try:
            url = urlsplit(service.get("realm", ""))
        except ValueError as error:
            raise SpecError(f"{self._origin}: its token service is no URL: {error}") from None
        origin = Origin.of_url(url)
        self._check_realm(origin)
        query = [*parse_qsl(url.query), ("service", service.get("service", ""))]
        # What we want stands in our own scope. Where we have none, the registry says what it is about, to its own
        # service: to another one it could name what somebody else's registry gives us.
        wanted = scope or (service.get("scope", "") if origin.host == self._origin.host else "")
        if wanted:
            query.append(("scope", wanted))
        headers = {"Accept": "application/json"}
        if self._access.credentials is not None:
            headers["Authorization"] = basic(self._access.credentials)
        answer = fetch(origin, f"{url.path or '/'}?{urlencode(query)}", headers)
        what = f"token service {origin}"
        raw = answer.read_all(limit=MAX_TOKEN, what=what)
        if answer.status != 200:
            said = parse_refusal(raw, what=what)
            raise TokenRefusedError(f"{what}: answered {answer.status}{said} (account {self._account()})")
        token = _parse(raw, what)
        with self._lock:
            if len(self._tokens) >= MAX_TOKENS:
                self._tokens.clear()
            self._tokens[scope] = token
        return token

    def _check_realm(self, realm: Origin) -> None:
        if realm.scheme != "https" and self._origin.scheme == "https":
            raise SpecError(f"{self._origin}: token service {realm}: expected https")
        same_host = realm.scheme == "https" and realm.host == self._origin.host
        named = {realm.authority, realm.host} & set(self._access.token_hosts)
        if realm != self._origin and not same_host and not named:
            raise SpecError(f"{self._origin}: token service {realm} is another host, and gets no credentials")

    def _account(self) -> str:
        return repr(self._access.credentials.name) if self._access.credentials is not None else "(none)"


def _parse(raw: bytes, what: str) -> _Token:
    members = parse_object(raw, what=what, max_bytes=MAX_TOKEN)
    text = fields.text(members, "token", what=what, default="")
    text = text or fields.text(members, "access_token", what=what)
    if _TOKEN.fullmatch(text) is None:
        raise SpecError(f"{what}: its token is not printable ASCII")
    seconds = fields.integer(members, "expires_in", what=what, default=DEFAULT_SECONDS) or DEFAULT_SECONDS
    return _Token(text, time.monotonic() + min(seconds, MAX_SECONDS) * 0.9)


def basic(credentials: Credentials) -> str:
    """The value of the Authorization header (RFC 7617 section 2)."""
    return "Basic " + base64.b64encode(f"{credentials.name}:{credentials.secret}".encode()).decode()


def _split(challenge: str) -> tuple[str, dict[str, str]]:
    scheme, _, rest = challenge[:4096].strip().partition(" ")
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(rest):
        quoted = match[2] if match[2] is not None else match[3]
        found.setdefault(match[1].lower(), re.sub(r"\\(.)", r"\1", quoted))
    return scheme.lower(), found
