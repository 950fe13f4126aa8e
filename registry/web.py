"""The web processes: granian (WSGI, blocking threads) over the application.

Run as `python -m registry.web SETTINGS-FILE`, after `prepare`. The parent only watches its workers, and hears nobody;
a worker gives up root before it listens. It ends with its parent, also if that was killed, so that no orphan keeps
the port.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterable
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import TYPE_CHECKING, Final

from granian import Granian
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.log import LogLevels
from werkzeug.wsgi import ClosingIterator

from registry import processes
from registry.app import open_app
from registry.context import context_of
from registry.errors import RegistryError
from registry.housekeeping import start_housekeeping
from registry.settings import Settings, load
from registry.signer.process import warm_signing
from registry.stalled import StalledBodies

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEADER_MILLISECONDS: Final = 20_000
"""How long a client may take for the head of a request, and be idle between two."""

CONNECTIONS: Final = 4096
"""Connections that one worker holds; more wait in the backlog."""

STOP_SECONDS: Final = 20
"""How long a worker may take to finish its requests when it is told to stop."""

SHORT: Final = 64 * 1024
"""Bytes of an answer that is sent in one piece."""

_log = logging.getLogger("pratique.web")


def serve_web(path: Path) -> None:
    """Serve until SIGTERM.

    Raises:
        SettingsError: the settings at `path` cannot be used.
    """
    settings = load(path)
    host, _, port = settings.http.listen.rpartition(":")
    server = Granian(
        "registry",
        address=host.strip("[]"),
        port=int(port),
        interface=Interfaces.WSGI,
        http=HTTPModes.http1,
        workers=settings.http.workers,
        blocking_threads=settings.http.threads,
        backlog=1024,
        backpressure=CONNECTIONS,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_MILLISECONDS),
        websockets=False,
        # Its warnings are advice about the settings that we chose, at every start.
        log_level=LogLevels.error,
        ssl_cert=settings.http.certificate,
        ssl_key=settings.http.key,
        respawn_failed_workers=True,
        workers_kill_timeout=STOP_SECONDS,
    )
    server.serve(target_loader=partial(_load_worker, settings, os.getpid()), wrap_loader=False)


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

        answer = application(environ, start)
        if not short:
            return answer
        try:
            return [b"".join(answer)]
        finally:
            if isinstance(answer, ClosingIterator):
                answer.close()

    return call


def _load_worker(settings: Settings, parent: int) -> WSGIApplication:
    """What each worker begins with; whatever is imported and opened late, before it may no longer read our files."""
    app = open_app(settings)
    app.test_client().get("/readyz")
    warm_signing()
    processes.become(settings.users.web, "users.web", settings)
    processes.die_with_parent(signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    StalledBodies(settings.http, context_of(app).bodies).start()
    start_housekeeping(context_of(app))
    # Reads that were answered and not recorded yet; a process of multiprocessing runs no atexit functions.
    Finalize(None, context_of(app).reads.flush, exitpriority=1)
    return joined(app)


def main() -> int:
    """The command line of this module."""
    processes.log_to_stderr("web")
    processes.die_with_parent(signal.SIGTERM)
    try:
        serve_web(Path(sys.argv[1]))
    except (RegistryError, OSError) as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
