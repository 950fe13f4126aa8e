"""Granian on a socket that is there already, with a certificate that is in memory.

Imported once the supervisor has said how its allocator is to behave: that is read as the library is loaded.
"""

from __future__ import annotations

import socket
from typing import Any

from granian._granian import SocketHolder  # the server makes one itself where it is given a Unix socket
from granian.constants import SSLProtocols
from granian.server.mp import MPServer

from registry.listening import BACKLOG, Certificate


class Server(MPServer):
    """Granian on a socket that is there already."""

    listener: socket.socket | None = None

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
