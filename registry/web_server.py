"""Granian on a socket that is there already, with a certificate that is in memory.

Imported once the supervisor has said how its allocator is to behave: that is read as the library is loaded.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from granian._granian import SocketHolder  # the server makes one itself where it is given a Unix socket
from granian.constants import SSLProtocols
from granian.server.mp import MPServer

from registry.accepting import HEAR_SECONDS, Accepting
from registry.listening import BACKLOG, Certificate

if TYPE_CHECKING:
    import socket


class Server(MPServer):
    """Granian on a socket that is there already."""

    listener: socket.socket | None = None
    accepting: Accepting | None = None
    _retired = False

    def listen_at(self, listener: socket.socket) -> None:
        """Serve at this socket; nothing of it is closed for other processes."""
        self.listener = listener
        self.accepting = Accepting(listener)

    def retire(self, *_: object) -> None:
        """A signal's handler: stop, as others serve at the same socket now."""
        self._retired = True
        self.signal_handler_interrupt()  # type: ignore[no-untyped-call]

    def present(self, certificate: Certificate) -> None:
        """Serve TLS, from 1.2 on, with this certificate."""
        paths = certificate.paths
        # Not by the constructor, which resolves links; its own fields, in its order.
        told: Any = (True, *paths, None, str(SSLProtocols.tls12), None, [], False)
        self.ssl_ctx = told

    def _init_shared_socket(self) -> None:
        if self.listener is None:
            super()._init_shared_socket()  # type: ignore[no-untyped-call]
            return
        self.listener.setblocking(False)
        self._ssp, self._sso = None, None
        held = SocketHolder(self.listener.fileno(), False, BACKLOG)  # type: ignore[call-arg]  # its stub lags behind
        self._shd = held  # type: ignore[assignment]  # untyped there: mypy takes the first value's

    def _drop_shared_socket(self) -> None:
        """At the stop: with the last copy closed, the kernel refuses whoever connects. A worker closes its own."""
        super()._drop_shared_socket()  # type: ignore[no-untyped-call]
        if self.listener is not None:
            self.listener.close()

    def _stop_workers(self) -> None:
        if self._retired and self.accepting is not None:
            self.accepting.end()
            time.sleep(HEAR_SECONDS)
        super()._stop_workers()  # type: ignore[no-untyped-call]
