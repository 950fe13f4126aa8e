"""HTTP to one registry: bounded, retried where nothing is changed, credentials kept at home (R9).

    response = transport.request("GET", "/v2/", scope="")       every status that is not an error of transport

- An answer of 401 is followed by one more try with the credentials that its challenge asks for.
- GET and HEAD are tried again on a broken connection and on 429, 502, 503 and 504.
- GET and HEAD follow redirects, at most five, to other hosts without credentials, never from https to http, and
  never to an address that is nearer to us than the registry's own (link-local: never).
- A body is counted against Content-Length, has a deadline, and is read by whoever asked, up to a limit.

Proxies named in the environment are not used. Safe for several threads.
"""

from __future__ import annotations

import http.client
import ipaddress
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO, Final
from urllib.parse import urljoin, urlsplit

from ocispec.access import Access, ClientCertificate, Origin
from ocispec.challenge import Authenticator
from ocispec.errors import SourceError, SpecError
from ocispec.localfile import read_all
from ocispec.stream import ChunkStream
from ocispec.verify import CHUNK

USER_AGENT: Final = "pratique"
MAX_REDIRECTS: Final = 5
MAX_DELAY: Final = 5.0
MAX_IDLE: Final = 4
"""Connections kept open for the next request."""

_AGAIN: Final = frozenset({429, 502, 503, 504})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_SAFE: Final = frozenset({"GET", "HEAD"})


class Reach:
    """How near an address is: a registry may send us no nearer than it is itself."""

    @staticmethod
    def of(address: str) -> int:
        """0 for the internet, 1 for a private network, 2 for this machine, 3 for what nobody may send us to."""
        parsed = ipaddress.ip_address(address.partition("%")[0])
        mapped = getattr(parsed, "ipv4_mapped", None)
        parsed = mapped or parsed
        if parsed.is_loopback:
            return 2
        if parsed.is_link_local or parsed.is_multicast or parsed.is_unspecified or parsed.is_reserved:
            return 3
        return 0 if parsed.is_global else 1


@dataclass(slots=True)
class _Wire:
    """One connection, and the reach of its peer."""

    connection: http.client.HTTPConnection
    origin: Origin
    reach: int
    used: bool = False


class Response(ChunkStream):
    """An answer: status, headers, and the body as a stream. Must be closed."""

    def __init__(
        self, raw: http.client.HTTPResponse, wire: _Wire, *, access: Access, done: Callable[[_Wire, bool], None]
    ) -> None:
        super().__init__()
        self.status = raw.status
        self.url_origin = wire.origin
        self._raw = raw
        self._wire = wire
        self._done = done
        self._expected = raw.length
        self._got = 0
        self._ended = raw.isclosed() or raw.length == 0
        self._access = access
        self._started = time.monotonic()

    def header(self, name: str) -> str:
        """The header's value, or "" where there is none."""
        return self._raw.headers.get(name, "")

    def headers(self, name: str) -> tuple[str, ...]:
        """All values of a header that may be there several times."""
        return tuple(self._raw.headers.get_all(name, ()))

    @property
    def content_type(self) -> str:
        """The media type without parameters, which clients should ignore (distribution specification)."""
        return self.header("Content-Type").partition(";")[0].strip()

    @property
    def length(self) -> int | None:
        """What Content-Length says, or None."""
        return self._expected

    def chunk(self, size: int) -> bytes:
        """See ChunkStream: bytes of the body.

        Raises:
            SourceError: the connection broke, the body is shorter than announced, or it comes too slowly.
        """
        if self._ended:
            return b""
        try:
            chunk = self._raw.read1(min(size, CHUNK))
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(f"{self.url_origin}: the answer broke off after {self._got} bytes: {error}") from error
        self._got += len(chunk)
        if not chunk:
            self._ended = True
            if self._expected is not None and self._got < self._expected:
                raise SourceError(
                    f"{self.url_origin}: the answer broke off: got {self._got} bytes, want {self._expected}"
                )
        elif (spent := time.monotonic() - self._started - self._access.grace) > 0 and (
            self._got < spent * self._access.min_rate
        ):
            raise SourceError(f"{self.url_origin}: the answer is slower than {self._access.min_rate} bytes a second")
        elif self._got == self._expected:
            self._ended = True
        return chunk

    def read_all(self, *, limit: int, what: str) -> bytes:
        """The whole body, and close.

        Raises:
            LimitError: more than `limit` bytes.
            SourceError: as `chunk`.
        """
        with self:
            return read_all(self, limit=limit, what=what)

    def close(self) -> None:
        """Give the connection back if the whole body was read, else drop it."""
        if not self.closed:
            reusable = self._ended and not self._raw.will_close
            self._raw.close()
            self._done(self._wire, reusable)
        super().close()


class Transport:
    """Requests to one registry, `host[:port]`."""

    def __init__(self, registry: str, access: Access) -> None:
        """Check the address; nothing is sent yet.

        Raises:
            SpecError: see Origin.of_registry; or the CA file or the client certificate cannot be read.
        """
        self.registry = registry
        self.origin = Origin.of_registry(registry, plain_http=access.plain_http)
        self._access = access
        self._tls = _tls(access, access.client_certificate) if self.origin.scheme == "https" else None
        self._authenticator = Authenticator(self.origin, access)
        self._reach: int | None = None
        self._idle: list[_Wire] = []
        self._closed = False
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections that wait for the next request; none is kept any more."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for wire in idle:
            wire.connection.close()

    def request(
        self,
        method: str,
        target: str,
        *,
        scope: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | BinaryIO | None = None,
    ) -> Response:
        """Send a request for `target` (path and query) and return the answer; `scope` is a token service's.

        A body that is a stream needs its Content-Length in `headers`, and is sent once.

        Raises:
            SourceError: no answer: no connection, no trust in the certificate, or it broke too often.
            SpecError: a challenge or redirect that is not followed.
        """
        attempt = 0
        asked = False
        while True:
            attempt += 1
            last = method not in _SAFE or attempt >= self._access.attempts
            try:
                response = self._send(method, target, scope, headers or {}, body)
            except SourceError:
                if last:
                    raise
                self._wait(attempt, "")
                continue
            if response.status == 401 and not asked and not hasattr(body, "read"):
                asked, attempt = True, attempt - 1
                if self._answer(response, scope):
                    continue
                return response
            if response.status in _AGAIN and not last:
                after = response.header("Retry-After")
                response.close()
                self._wait(attempt, after)
                continue
            return response

    def fetch(self, url: str) -> Response:
        """GET an absolute URL that the other side named, which may be another host: no credentials, no redirects.

        Raises:
            SpecError: not http or https, from https to http, or an address that is nearer to us than its own.
            SourceError: no answer.
        """
        try:
            parts = urlsplit(url)
        except ValueError as error:
            raise SpecError(f"{self.origin}: {url[:200]!r} is no URL: {error}") from None
        origin = Origin.of_url(parts)
        if origin.scheme == "http" and self.origin.scheme != "http":
            raise SpecError(f"{self.origin}: {str(origin)[:200]!r}: from https to http is not followed")
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        return self._exchange(origin, "GET", target, {"User-Agent": USER_AGENT, "Accept": "application/json"}, None)

    def _answer(self, response: Response, scope: str) -> bool:
        # True if the request may be sent again, with what the challenge asked for.
        try:
            answered = self._authenticator.answer(response.headers("WWW-Authenticate"), scope, self._fetch_token)
        except SpecError:
            response.close()
            raise
        if answered:
            response.close()
        return answered

    def _wait(self, attempt: int, after: str) -> None:
        delay = self._access.first_delay * 2.0 ** (attempt - 1)
        if after.isdigit() and len(after) < 6:
            delay = max(delay, float(after))
        time.sleep(min(delay, MAX_DELAY))

    def _send(
        self, method: str, target: str, scope: str, headers: Mapping[str, str], body: bytes | BinaryIO | None
    ) -> Response:
        origin, where = self.origin, target
        authorization = self._authenticator.header(scope, self._fetch_token)
        for _ in range(MAX_REDIRECTS + 1):
            sent = {"User-Agent": USER_AGENT, **headers}
            if authorization and origin == self.origin:
                sent["Authorization"] = authorization
            response = self._exchange(origin, method, where, sent, body)
            if method not in _SAFE or response.status not in _REDIRECTS:
                return response
            location = response.header("Location")
            response.close()
            origin, where = self._redirect(origin, where, location)
        raise SpecError(f"{self.origin}: more than {MAX_REDIRECTS} redirects from {target[:200]}")

    def _redirect(self, origin: Origin, where: str, location: str) -> tuple[Origin, str]:
        try:
            url = urlsplit(urljoin(f"{origin}{where}", location))
        except ValueError as error:
            raise SpecError(f"{origin}: redirect to {location[:200]!r}: {error}") from None
        following = Origin.of_url(url)
        if following.scheme == "http" and origin.scheme != "http":
            raise SpecError(f"{origin}: redirect to {str(following)[:200]!r}: from https to http is not followed")
        path = url.path or "/"
        return following, f"{path}?{url.query}" if url.query else path

    def _exchange(
        self, origin: Origin, method: str, target: str, headers: Mapping[str, str], body: bytes | BinaryIO | None
    ) -> Response:
        while True:
            wire = self._wire(origin)
            try:
                wire.connection.request(method, target, body=body, headers=dict(headers))
                raw = wire.connection.getresponse()
            except (OSError, http.client.HTTPException, ValueError) as error:
                wire.connection.close()
                if wire.used and method in _SAFE:
                    continue  # the other side closed a kept connection, as it may: a new one decides
                raise SourceError(f"{origin}: no answer: {_reason(error)}") from error
            wire.used = True
            return Response(raw, wire, access=self._access, done=self._give_back)

    def _wire(self, origin: Origin) -> _Wire:
        with self._lock:
            for position, wire in enumerate(self._idle):
                if wire.origin == origin:
                    return self._idle.pop(position)
        connection = self._connection(origin)
        try:
            connection.connect()
            reach = Reach.of(str(connection.sock.getpeername()[0]))
        except (OSError, http.client.HTTPException, ValueError) as error:
            connection.close()
            raise SourceError(f"{origin}: no connection: {_reason(error)}") from error
        try:
            self._check_reach(origin, reach)
        except SpecError:
            connection.close()
            raise
        return _Wire(connection=connection, origin=origin, reach=reach)

    def _connection(self, origin: Origin) -> http.client.HTTPConnection:
        if origin.scheme == "http":
            return http.client.HTTPConnection(origin.host, origin.port, timeout=self._access.timeout, blocksize=CHUNK)
        # Our certificate says who we are: only the registry's own host is shown it, also on another port (its realm's).
        mine = self._tls if origin.host == self.origin.host else None
        context = mine or _tls(self._access, None)
        return http.client.HTTPSConnection(
            origin.host, origin.port, timeout=self._access.timeout, blocksize=CHUNK, context=context
        )

    def _check_reach(self, origin: Origin, reach: int) -> None:
        if origin == self.origin:
            self._reach = reach
            if origin.scheme == "http" and reach != 2:
                raise SpecError(f"{origin}: plain HTTP to an address that is not this machine's")
        elif {origin.authority, origin.host} & set(self._access.token_hosts):
            return  # named by whoever set this up
        elif reach > (self._reach or 0) or reach == 3:
            raise SpecError(f"{self.origin}: it sends us to {origin}, whose address is nearer to us than its own")

    def _give_back(self, wire: _Wire, reusable: bool) -> None:
        with self._lock:
            if reusable and not self._closed and len(self._idle) < MAX_IDLE:
                self._idle.append(wire)
                return
        wire.connection.close()

    def _fetch_token(self, origin: Origin, target: str, headers: Mapping[str, str]) -> Response:
        return self._exchange(origin, "GET", target, {"User-Agent": USER_AGENT, **headers}, None)


def _tls(access: Access, shown: ClientCertificate | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=str(access.ca_file) if access.ca_file is not None else None)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"CA file {access.ca_file}: {_reason(error)}") from error
    if shown is not None:
        try:
            # Without a function for the passphrase, OpenSSL would ask at the terminal for one.
            context.load_cert_chain(shown.chain, shown.key, password=lambda: b"")
        except (OSError, ssl.SSLError, ValueError) as error:
            raise SourceError(f"client certificate {shown.chain}: {_reason(error)}") from error
    return context


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not trusted: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
