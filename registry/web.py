"""The web processes: granian (WSGI, blocking threads) over the application.

Run as `python -m registry.web SETTINGS-FILE`, after `prepare`; the supervisor adds the descriptors of the socket to
listen at and of a pipe, into which each worker writes when it serves. The parent only watches its workers, and hears
nobody; a worker gives up root before it serves. It ends with its parent, also if that was killed, so that no orphan
keeps the port.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Final

from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from werkzeug.wsgi import ClosingIterator

from registry import processes
from registry.accepting import RETIRE, Accepting
from registry.again import Answers
from registry.app import open_app
from registry.context import Context, context_of
from registry.errors import RegistryError
from registry.housekeeping import start_housekeeping
from registry.listening import BACKLOG, read_certificate
from registry.proxies import Proxies
from registry.readiness import judge_check
from registry.settings import Settings, is_loopback, load
from registry.signer.process import warm_signing
from registry.stalled import StalledBodies
from registry.telemetry import lines, metrics, traces
from registry.telemetry.environ import COPIES
from registry.telemetry.reporter import Reporter
from registry.telemetry.requests import Observed
from registry.web_server import Server

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from registry.prepared import Prepared

HEADER_MILLISECONDS: Final = 20_000
"""How long a client may take for the head of a request, and be idle between two."""

CONNECTIONS: Final = 4096
"""Connections that one worker holds; more wait in the backlog."""

IO_THREADS: Final = 4
"""Threads of the server that read and write sockets, of one for each processor; more wait for the interpreter."""

SHORT: Final = 64 * 1024
"""Bytes of an answer that is sent in one piece."""

_STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT, RETIRE})

_LOG_CONFIG: Final = {"incremental": True, "handlers": {}, "loggers": {"_granian": {"propagate": True}}}
"""Its lines go where ours do; nothing else is set up, here and in each worker."""

_log = logging.getLogger("pratique.web")


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """What the supervisor hands over: the socket to listen at, and the pipe to say in that a worker serves."""

    listener: int
    ready: int


def serve_web(settings: Settings, supervised: Supervised | None = None, prepared: Prepared | None = None) -> None:
    """Serve until SIGTERM.

    Raises:
        SettingsError: the certificate cannot be used.
    """
    host, _, port = settings.http.listen.rpartition(":")
    certificate = read_certificate(settings.http)
    server = Server(
        "registry",
        address=host.strip("[]"),
        port=int(port),
        interface=Interfaces.WSGI,
        runtime_threads=min(IO_THREADS, len(os.sched_getaffinity(0))),
        http=HTTPModes.http1,
        workers=settings.http.workers,
        # Who waits for a slow client is one of `bodies` or `downloads`; `threads` are always left for others.
        blocking_threads=settings.http.threads + settings.http.bodies + settings.http.downloads,
        backlog=BACKLOG,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_MILLISECONDS),
        websockets=False,
        # Its warnings are advice about the settings that we chose, at every start.
        log_level=LogLevels.error,
        log_dictconfig=_LOG_CONFIG,
        respawn_failed_workers=True,
        # The supervisor sees to the end: after a reload, old workers may take much longer than at a stop.
        workers_kill_timeout=settings.http.stop if supervised is None else None,
    )
    if certificate is not None:
        server.present(certificate)
    if supervised is not None:
        server.listen_at(socket.socket(fileno=supervised.listener))
        signal.signal(RETIRE, server.retire)
    load_worker = partial(_load_worker, settings, os.getpid(), server.accepting, supervised, prepared)
    # What comes while a worker is forked waits until that can be told: Python forgets what its handlers noted then.
    os.register_at_fork(
        before=partial(signal.pthread_sigmask, signal.SIG_BLOCK, _STOPS),
        after_in_parent=partial(signal.pthread_sigmask, signal.SIG_UNBLOCK, _STOPS),
    )
    server.serve(target_loader=load_worker, wrap_loader=False)


def joined(application: WSGIApplication) -> WSGIApplication:
    """Hand short answers to the server in one piece: it sends a list at once, and anything else step by step."""

    def call(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        short = False

        def start(
            status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
        ) -> Callable[[bytes], object]:
            nonlocal short
            lengths = [int(value) for name, value in headers if name == "Content-Length"]
            short = environ["REQUEST_METHOD"] == "HEAD" or (bool(lengths) and lengths[0] <= SHORT)
            return start_response(status, headers, exc_info)

        environ[COPIES] = True  # granian, src/wsgi/io.rs: response_iter
        answer = application(environ, start)
        if not short:
            return answer
        try:
            return [b"".join(answer)]
        finally:
            if isinstance(answer, ClosingIterator):
                answer.close()

    return call


def _load_worker(
    settings: Settings,
    parent: int,
    accepting: Accepting | None,
    supervised: Supervised | None,
    prepared: Prepared | None,
) -> WSGIApplication:
    """What each worker begins with; whatever is imported and opened late, before it may no longer read our files."""
    # It was forked with its parent's handlers, which note that the server is to stop, and go on.
    for number in _STOPS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPS)
    app = open_app(settings, prepared)
    parts = context_of(app)
    parts.readiness.look()
    warm_signing()
    traces.configure(settings.traces, process="web", registry=settings.name)
    processes.become(settings.users.web, "users.web", settings)
    processes.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    StalledBodies(settings.http, parts.bodies).start()
    start_housekeeping(parts)
    parts.placement.start()
    if accepting is not None:
        accepting.follow()
    if supervised is not None:
        parts.readiness.add(judge_check(settings))
    application = observed(Answers(joined(app), parts), settings, parts)
    if supervised is not None:
        with suppress(OSError):
            os.write(supervised.ready, b".")
    return application


def observed(application: WSGIApplication, settings: Settings, parts: Context) -> WSGIApplication:
    """The application with ids, log lines and metrics for its requests, which a thread of its own sees to."""
    formatter = lines.Formatter("web", as_json=settings.log.format == "json")
    info = settings.log.level in {"debug", "info"}
    reporter = Reporter(formatter=formatter, access=settings.log.access and info, count=bool(settings.metrics.listen))
    lines.configure("web", level=settings.log.level, as_json=settings.log.format == "json", sink=reporter.line)
    made = Observed(
        application,
        proxies=Proxies(settings.http.proxies, settings.http.forwarded_header),
        reporter=reporter,
        proxies_only=settings.http.certificate is None and not is_loopback(settings.http.listen),
    )
    reporter.shown += (
        (metrics.IN_FLIGHT, lambda: len(made.under_way)),
        (metrics.BODIES, parts.bodies.count),
        (metrics.READS_WAITING, parts.reads.waiting),
        (metrics.CONNECTIONS.labels("used"), lambda: parts.catalogue.connections()[0]),
        (metrics.CONNECTIONS.labels("idle"), lambda: parts.catalogue.connections()[1]),
    )
    reporter.start()
    # In this order: reads that were answered and are not recorded yet, what was said of it, and spans. A process of
    # multiprocessing runs no atexit functions.
    for refused in (parts.refusals, parts.identity.failures):
        Finalize(None, refused.flush, exitpriority=4)
    Finalize(None, parts.reads.flush, exitpriority=3)
    Finalize(None, reporter.flush, exitpriority=2)
    Finalize(None, traces.close, exitpriority=1)
    return made


def main(prepared: Prepared | None = None) -> int:
    """The command line of this module; a process that was forked is given what was `prepared`."""
    processes.log_to_stderr("web")
    processes.die_with_parent(signal.SIGTERM)
    path, *given = sys.argv[1:]
    try:
        settings = prepared.settings if prepared is not None else load(Path(path))
        processes.log_to_stderr("web", settings.log)
        supervised = Supervised(listener=int(given[0]), ready=int(given[1])) if given else None
        serve_web(settings, supervised, prepared)
    except (RegistryError, OSError) as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
