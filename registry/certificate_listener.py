"""The process at `certificates.listen`: ends TLS, asks clients for certificates, and gives tokens for them.

Run as `python -m registry.certificate_listener SETTINGS-FILE LISTENER READY`: descriptors of the socket to listen at,
and of a pipe into which a byte is written when it serves. /token is all that is here; what comes of a certificate is
`certificates.py`'s to say, the same as behind a proxy. Whoever shows none may log in otherwise, unless the settings
require one.

Nobody is waited for: handshakes and heads come in one loop, each connection has SECONDS in all, and when there are too
many of them - of one address, or together - the one that waited longest for its request to come is cut off. An address
may begin so many handshakes a second (`rates.unknown`); with more it is closed before anything is computed.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import ssl
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from registry import processes
from registry.api.challenges import TOKEN_PATH
from registry.api.token import CERTIFICATE
from registry.app import open_app
from registry.certificates import authorities
from registry.context import Context, context_of
from registry.errors import RegistryError, SettingsError
from registry.identity.attempts import network_of
from registry.identity.failures import FailureLog
from registry.listening import read_certificate
from registry.places import Places
from registry.proxies import Proxies
from registry.rates import Buckets
from registry.settings import Settings, load
from registry.small_http import MAX_HEAD, BadRequestError, ask, environ_of, read_request, write_answer
from registry.telemetry import lines
from registry.telemetry.reporter import Reporter
from registry.telemetry.requests import Observed

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

    from registry.prepared import Prepared

NAME: Final = "certificates"
SECONDS: Final = 10.0
"""What one connection may take in all, from its first byte to its answer's last."""

HANDSHAKE_SECONDS: Final = 5.0
SHUTDOWN_SECONDS: Final = 1.0
"""How long a client that was answered may take to close."""

CONNECTIONS: Final = 512
"""Connections at a time; with all of them at work on a request, a new one is closed."""

PER_ADDRESS: Final = 64
"""Connections from one address (IPv6: one /64) at a time."""

AT_ONCE: Final = 16
"""Connections that are taken before others are seen to."""

HASTE_SECONDS: Final = 2.0
"""How long, at a stop, requests may still come on connections that are there."""

THREADS: Final = 4
POLL_SECONDS: Final = 0.25

_log = logging.getLogger("pratique.certificates")


def serve(
    settings: Settings, listener: socket.socket, ready: Callable[[], object], prepared: Prepared | None = None
) -> None:
    """Serve until SIGTERM.

    Raises:
        RegistryError: the certificate, or store and catalogue cannot be used.
    """
    tls = tls_context(settings)
    app = open_app(settings, prepared)
    parts = context_of(app)
    for each in ("/readyz", TOKEN_PATH):
        app.test_client().get(each)  # what is imported when it is first used, while it can be read
    processes.become(settings.users.web, "users.web", settings)
    if parts.identity.certificates is not None:
        parts.identity.certificates.look_again()
    stop = processes.stop_flag(Places(settings).log_level)
    reporter = _reporter(settings)
    observed = Observed(app, proxies=Proxies((), "x-forwarded-for"), reporter=reporter)
    reporter.start()
    rate = settings.rates.unknown
    handshakes = Buckets(rate, settings.rates.burst) if rate else None
    served = Listener(listener, tls, observed, failures=parts.identity.failures, handshakes=handshakes)
    try:
        asyncio.run(served.run(stop, ready, patience=min(settings.http.stop, SECONDS)))
    finally:
        _flush(parts, reporter)


def tls_context(settings: Settings) -> ssl.SSLContext:
    """TLS from 1.2 on with the registry's certificate; clients are asked for theirs, of our authorities.

    Raises:
        SettingsError: a certificate cannot be used.
    """
    certificate, wanted = read_certificate(settings.http), settings.certificates
    if certificate is None or wanted is None:
        raise SettingsError("setting certificates.listen: expected together with http.certificate, which it shows")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(*certificate.paths)
    certificate.close()
    authorities(wanted.ca)
    context.load_verify_locations(wanted.ca)
    context.verify_mode = ssl.CERT_REQUIRED if wanted.required else ssl.CERT_OPTIONAL
    # An intermediate authority in the file counts by itself, as in `certificates.py`, where revocation is looked at.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # Nothing is resumed: each connection proves anew that it has the private key.
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_RENEGOTIATION
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    return context


class Listener:
    """Takes connections from a socket that listens, and answers one request on each."""

    def __init__(
        self,
        listener: socket.socket,
        tls: ssl.SSLContext,
        application: WSGIApplication,
        *,
        failures: FailureLog,
        handshakes: Buckets | None,
    ) -> None:
        """Take the parts; nothing is accepted yet. `handshakes` says how many an address may begin (None: any)."""
        self._listener, self._tls, self._application, self._failures = listener, tls, application, failures
        self._handshakes = handshakes
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix=NAME)
        self._all: dict[asyncio.Task[None], str] = {}
        self._waiting: set[asyncio.Task[None]] = set()
        self._stopping = False

    async def run(self, stop: Callable[[], bool], ready: Callable[[], object], *, patience: float) -> None:
        """Serve until `stop` says so; then those who are there have so many seconds."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_say_quietly)
        self._listener.setblocking(False)
        self._listen()
        ready()
        while not stop():
            await asyncio.sleep(POLL_SECONDS)
        loop.remove_reader(self._listener)
        self._stopping = True
        self._listener.close()
        # Who was about to ask may still do so; whoever does not is not waited for.
        await self._empty(HASTE_SECONDS)
        for task in tuple(self._waiting):
            task.cancel()
        await self._empty(patience)
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _empty(self, seconds: float) -> None:
        if self._all:
            await asyncio.wait(tuple(self._all), timeout=seconds)

    def _listen(self) -> None:
        if not self._stopping:
            asyncio.get_running_loop().add_reader(self._listener, self._take)

    def _take(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                # No descriptor is free: one will be.
                _log.warning("a connection was not taken: %s", error.strerror)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener)
                loop.call_later(POLL_SECONDS, self._listen)
                return
            connection.setblocking(False)
            self._admit(connection, str(address[0]))

    def _admit(self, connection: socket.socket, address: str) -> None:
        network = network_of(address)
        if self._handshakes is not None and self._handshakes.take(network) > 0:
            connection.close()  # a handshake costs a millisecond of the one core that all share
            return
        same = [task for task, other in self._all.items() if other == network]
        crowded = same if len(same) >= PER_ADDRESS else list(self._all) if len(self._all) >= CONNECTIONS else []
        if crowded:
            oldest = next((task for task in crowded if task in self._waiting), None)
            if oldest is None:
                connection.close()
                return
            oldest.cancel()
            self._forget(oldest)
        task = asyncio.get_running_loop().create_task(self._serve_one(connection, address))
        self._all[task] = network
        self._waiting.add(task)
        task.add_done_callback(self._done)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._waiting.discard(task)
        self._all.pop(task, None)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._forget(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a connection failed: %r", error)

    async def _serve_one(self, connection: socket.socket, address: str) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=MAX_HEAD, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(SECONDS):
                transport, _ = await loop.connect_accepted_socket(
                    lambda: protocol,
                    connection,
                    ssl=self._tls,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS,
                    ssl_shutdown_timeout=SHUTDOWN_SECONDS,
                )
                writer = asyncio.StreamWriter(transport, protocol, reader, loop)
                answer = await self._answer(reader, transport, address)
                if answer:
                    writer.write(answer)
                    await writer.drain()
                    writer.close()
                    await writer.wait_closed()
        except (OSError, TimeoutError) as error:
            _log.debug("connection from %s: %s", address, error)
            self._note(error, address)
        finally:
            if transport is not None:
                transport.abort()

    def _note(self, error: Exception, address: str) -> None:
        """Count certificates that TLS refused; anything else that breaks is no login."""
        if isinstance(error, ssl.SSLCertVerificationError):
            reason = error.verify_message
        elif isinstance(error, ssl.SSLError) and error.reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            reason = "none was shown"
        else:
            return
        self._failures.note(account="", source=address, reason=f"client certificate: {reason}")

    async def _answer(self, reader: asyncio.StreamReader, transport: asyncio.Transport, address: str) -> bytes:
        try:
            request = await read_request(reader)
        except BadRequestError as error:
            return _refusal(error.status, "UNSUPPORTED", str(error))
        if request is None:
            return b""
        if (task := asyncio.current_task()) is not None:
            self._waiting.discard(task)
        if request.path != TOKEN_PATH:
            return _refusal(HTTPStatus.NOT_FOUND, "UNSUPPORTED", f"only {TOKEN_PATH} is here")
        certificate = transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
        environ = environ_of(request, address)
        if certificate is not None:
            environ[CERTIFICATE] = certificate
        answering = asyncio.get_running_loop().run_in_executor(self._pool, ask, self._application, environ)
        return await answering


def _refusal(status: HTTPStatus, code: str, message: str) -> bytes:
    body = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
    return write_answer(status, [("Content-Type", "application/json")], body)


def _reporter(settings: Settings) -> Reporter:
    as_json = settings.log.format == "json"
    access = settings.log.access and settings.log.level in {"debug", "info"}
    formatter = lines.Formatter(NAME, as_json=as_json)
    reporter = Reporter(formatter=formatter, access=access, count=bool(settings.metrics.listen))
    lines.configure(NAME, level=settings.log.level, as_json=as_json, sink=reporter.line)
    return reporter


def _flush(parts: Context, reporter: Reporter) -> None:
    parts.refusals.flush()
    parts.identity.failures.flush()
    reporter.flush()
    processes.log_to_stderr(NAME, parts.settings.log)


def _say_quietly(_loop: asyncio.AbstractEventLoop, told: dict[str, Any]) -> None:
    """What clients do to their connections is no line; anything else is a bug, and one."""
    error = told.get("exception")
    level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
    _log.log(level, "%s: %r", told.get("message"), error)


def main(prepared: Prepared | None = None) -> int:
    """The command line of this module; a process that was forked is given what was `prepared`."""
    processes.log_to_stderr(NAME)
    processes.die_with_parent(signal.SIGTERM)
    path, listener, ready = sys.argv[1:]

    def say() -> None:
        with suppress(OSError):
            os.write(int(ready), b".")

    try:
        settings = prepared.settings if prepared is not None else load(Path(path))
        processes.log_to_stderr(NAME, settings.log)
        with socket.socket(fileno=int(listener)) as given:
            serve(settings, given, say, prepared)
    except (RegistryError, OSError) as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
