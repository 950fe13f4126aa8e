"""Answers that are given again, without the application: those to GET and HEAD that nothing has changed since.

An answer rests on the request, on what the catalogue holds, and on the time. So a handler that has looked at nothing
else offers its answer (`offer`) for so many seconds, and it is kept under the request, with the stamp of the catalogue
(`catalogue/stamps.py`) that was taken before anything of it was read. Whoever asks for the same, by the same
credentials, is given it as long as a stamp that is taken then is the same and the time is not up. Any change to the
catalogue, by whatever process, ends all that is kept: a tag that moved, a revocation, an account that is gone.

A request is the same if its method, path and Authorization are, and it has no header but those in PLAIN, which no
handler looks at for such an answer. What is done for each request is done for this one too: it is counted for its
account and address, and the read is recorded.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from registry.catalogue.stamps import Stamp
from registry.errors import CatalogueError, TooManyRequestsError
from registry.telemetry.environ import ACCOUNT, ENDPOINT, OFFER, REQUEST, SOURCE

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from registry.context import Context

KEEP_SECONDS: Final = 5.0
"""How long an answer may be given again at the most."""

MAX_BODY: Final = 64 * 1024
MAX_KEPT: Final = 4096
MAX_BYTES: Final = 8 * 1024 * 1024
"""Bytes of an answer's body, answers, and bytes of all their bodies: when there are more, all are forgotten."""

PLAIN: Final = frozenset(
    {
        "HTTP_ACCEPT",
        "HTTP_ACCEPT_ENCODING",
        "HTTP_ACCEPT_LANGUAGE",
        "HTTP_AUTHORIZATION",
        "HTTP_CACHE_CONTROL",
        "HTTP_CONNECTION",
        "HTTP_DOCKER_DISTRIBUTION_API_VERSION",
        "HTTP_FORWARDED",
        "HTTP_HOST",
        "HTTP_PROXY",
        "HTTP_TRACEPARENT",
        "HTTP_TRACESTATE",
        "HTTP_USER_AGENT",
        "HTTP_X_FORWARDED_FOR",
        "HTTP_X_FORWARDED_HOST",
        "HTTP_X_FORWARDED_PORT",
        "HTTP_X_FORWARDED_PROTO",
        "HTTP_X_META_SOURCE_CLIENT",
        "HTTP_X_REAL_IP",
        "HTTP_X_REQUEST_ID",
    }
)
"""Headers that say nothing about the answer, as the environment (PEP 3333) spells them."""

_SERVER: Final = frozenset(
    {
        "GATEWAY_INTERFACE",
        "PATH_INFO",
        "QUERY_STRING",
        "REMOTE_ADDR",
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
        "wsgi.errors",
        "wsgi.input",
        "wsgi.input_terminated",
        "wsgi.multiprocess",
        "wsgi.multithread",
        "wsgi.run_once",
        "wsgi.url_scheme",
        "wsgi.version",
        REQUEST,
        SOURCE,
    }
)
"""What else stands in every environment; CONTENT_LENGTH and CONTENT_TYPE, of requests with a body, do not."""


class Offer(NamedTuple):
    """A handler's word that its answer may be given again for `seconds`; `read`, if it is one, is what is recorded of
    each time: subject, and what was answered."""

    seconds: float
    principal: str
    read: tuple[str, str] | None


class _Kept(NamedTuple):
    stamp: Stamp
    until: float
    status: str
    headers: list[tuple[str, str]]
    body: bytes
    endpoint: str
    offer: Offer


_Key = tuple[str, str, bytes]


class Answers:
    """A WSGI application that gives the answers of `application` again where it may; for many threads."""

    def __init__(
        self, application: WSGIApplication, parts: Context, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """Keep nothing yet."""
        self._application, self._monotonic = application, monotonic
        self._stamp, self._mark = parts.catalogue.stamp, parts.authenticator.mark
        self._rates, self._reads = parts.rates, parts.reads
        # The server puts the process's environment into each request's, where a header would cover it.
        self._known = PLAIN | _SERVER | {name for name in os.environ if not name.startswith(("HTTP_", "CONTENT_"))}
        self._lock = threading.Lock()
        self._kept: dict[_Key, _Kept] = {}
        self._bytes = 0

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """As PEP 3333 has it."""
        key = self._key(environ)
        if key is None:
            return self._application(environ, start_response)
        try:
            stamp = self._stamp()
        except CatalogueError:
            return self._application(environ, start_response)  # which says so
        kept = self._kept.get(key)
        if kept is not None and kept.stamp == stamp and self._monotonic() < kept.until and self._counted(environ, kept):
            offer = kept.offer
            environ[ACCOUNT], environ[ENDPOINT] = offer.principal, kept.endpoint
            if offer.read is not None:
                subject, after = offer.read
                self._reads.note(principal=offer.principal, source=environ[SOURCE], subject=subject, after=after)
            start_response(kept.status, kept.headers)
            return [kept.body]
        return self._asked(key, stamp, environ, start_response)

    def _key(self, environ: WSGIEnvironment) -> _Key | None:
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method not in {"GET", "HEAD"} or environ["QUERY_STRING"] or not path.startswith("/v2/"):
            return None
        authorization = environ.get("HTTP_AUTHORIZATION")
        if authorization is None or not environ.keys() <= self._known:
            return None
        return method, path, self._mark(authorization)

    def _counted(self, environ: WSGIEnvironment, kept: _Kept) -> bool:
        """True if the rates let this request through; if not, it is the application that says so."""
        try:
            if self._rates.counts_addresses:
                self._rates.address(environ[SOURCE])
            self._rates.account(kept.offer.principal, environ[SOURCE], reads=True)
        except TooManyRequestsError:
            return False
        return True

    def _asked(
        self, key: _Key, stamp: Stamp, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """The application's answer, which is kept if it is offered."""
        head: tuple[str, list[tuple[str, str]]] = "", []

        def start(status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /) -> object:
            nonlocal head
            head = status, list(headers)
            return start_response(status, headers, exc_info)

        began = self._monotonic()
        answer = self._application(environ, start)  # type: ignore[arg-type]  # nobody calls what `start` returns
        offer: Offer | None = environ.get(OFFER)
        if offer is not None and offer.seconds > 0 and isinstance(answer, list):
            body = b"".join(answer)
            until = began + min(offer.seconds, KEEP_SECONDS)
            if len(body) <= MAX_BODY:
                self._keep(key, _Kept(stamp, until, *head, body, environ.get(ENDPOINT, "none"), offer))
            return [body]
        return answer

    def _keep(self, key: _Key, kept: _Kept) -> None:
        with self._lock:
            before = self._kept.pop(key, None)
            self._bytes += len(kept.body) - (len(before.body) if before is not None else 0)
            if len(self._kept) >= MAX_KEPT or self._bytes > MAX_BYTES:
                self._kept.clear()
                self._bytes = len(kept.body)
            self._kept[key] = kept
