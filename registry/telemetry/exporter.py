"""The metrics process: answers GET /metrics at `metrics.listen`, and nothing else.

It runs as the web's user, and only if the settings say where. On an address that is not loopback it asks for the
bearer token, over TLS with the registry's own certificate if there is one.
"""

from __future__ import annotations

import hmac
import logging
import os
import socket
import ssl
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from registry import processes
from registry.catalogue.database import Catalogue
from registry.errors import SettingsError
from registry.listening import read_certificate
from registry.places import Places
from registry.readiness import Readiness, checks_of, judge_check
from registry.settings import Settings, is_loopback
from registry.store.open import open_store
from registry.telemetry import metrics
from registry.telemetry.scrape import Group, Scrape, Value, groups_of

CLIENTS: Final = 8
"""Who is answered at a time; more are closed."""

CLIENT_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.25

_log = logging.getLogger("pratique.metrics")


def run(settings: Settings, _number: int) -> None:
    """Serve until SIGTERM.

    Raises:
        SettingsError: it cannot listen there.
    """
    server = Server(settings)
    catalogue, store = Catalogue(settings.catalogue_url, connections=8), open_store(settings)
    readiness = Readiness((*checks_of(settings, store, catalogue), judge_check(settings)))
    groups = groups_of(settings, catalogue, processes.utc_now, os.getppid())
    registry = CollectorRegistry()
    places = Places(settings)
    registry.register(Counted(places.metrics))
    registry.register(Scrape([*groups, Group(name="readiness", read=lambda: _readiness(readiness))]))
    server.registry = registry
    server.answer()  # what is imported when it is first used, while it can be read
    for group in groups:
        group.forget()
    processes.become(settings.users.web, "users.web", settings)
    stop = processes.stop_flag(places.log_level)
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    while not stop():
        time.sleep(POLL_SECONDS)
    server.server_close()


class Counted(MultiProcessCollector):
    """What the processes count in files of `folder`; gauges of those that died do not count any more."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        super().__init__(None, str(folder))  # type: ignore[no-untyped-call]
        self._folder = folder

    def collect(self):  # type: ignore[no-untyped-def]  # untyped in the library
        """See `Collector`."""
        for path in self._folder.glob("gauge_live*.db"):
            pid = path.stem.rpartition("_")[2]
            if not Path(f"/proc/{pid}").exists():
                with suppress(OSError):
                    path.unlink()
        return super().collect()  # type: ignore[no-untyped-call]


class Server(ThreadingMixIn, HTTPServer):
    """Listens at `metrics.listen` of the settings."""

    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, settings: Settings) -> None:
        """Listen; nothing is answered yet.

        Raises:
            SettingsError: it cannot listen there, or the certificate cannot be used.
        """
        host, _, port = settings.metrics.listen.rpartition(":")
        self.address_family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
        self.token = settings.metrics.token
        self.registry = CollectorRegistry()
        self._free = threading.Semaphore(CLIENTS)
        try:
            super().__init__((host.strip("[]"), int(port)), Handler)
        except OSError as error:
            raise SettingsError(f"setting metrics.listen: {settings.metrics.listen}: {error.strerror}") from error
        certificate = None if is_loopback(settings.metrics.listen) else read_certificate(settings.http)
        if certificate is not None:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.minimum_version = ssl.TLSVersion.TLSv1_2
            tls.load_cert_chain(*certificate.paths)
            certificate.close()
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def answer(self, accept: str = "") -> tuple[bytes, str]:
        """What is to be told now, and its media type."""
        encode, content_type = choose_encoder(accept)
        return encode(self.registry), content_type

    def process_request(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """See `ThreadingMixIn`; never more than CLIENTS threads."""
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: socket.socket, client_address: object) -> None:  # type: ignore[override]
        """See `ThreadingMixIn`."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that go away or do not speak HTTP are not worth a line."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: Server
    timeout = CLIENT_SECONDS

    def do_GET(self) -> None:
        """Answer /metrics."""
        if self.path.partition("?")[0] != "/metrics":
            self._say(404, b"only /metrics is here\n")
            return
        wanted = f"Bearer {self.server.token}".encode()
        if self.server.token and not hmac.compare_digest(self.headers.get("Authorization", "").encode(), wanted):
            self._say(401, b"a bearer token is needed\n", ("WWW-Authenticate", 'Bearer realm="metrics"'))
            return
        try:
            body, content_type = self.server.answer(self.headers.get("Accept", ""))
        except Exception:  # of the library, too: Prometheus is told, and so is whoever reads the log
            _log.exception("metrics cannot be told")
            self._say(500, b"metrics cannot be told; the log says why\n")
            return
        self._say(200, body, ("Content-Type", content_type))

    def _say(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
        """Not a line for each scrape."""


def _readiness(readiness: Readiness) -> list[Value]:
    failed = readiness.look()
    return [(metrics.READY, (check.part,), float(check.part not in failed)) for check in readiness.checks]
