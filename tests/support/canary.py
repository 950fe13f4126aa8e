"""A relay in front of an engine, that remembers what clients brought with them.

with canary("http://127.0.0.1:9000") as bird:
    ...                              # clients are sent to bird.address
    assert bird.seen[0].headers.get("Authorization") is None
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One request, and the status that the engine answered it with."""

    method: str
    path: str
    headers: Message
    status: int


@dataclass(slots=True, kw_only=True)
class Canary:
    """A running relay, under a host name of its own: clients of Go keep credentials as long as the name stays."""

    port: int
    seen: list[Seen] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Where clients are sent."""
        return f"http://localhost:{self.port}"


@contextmanager
def canary(endpoint: str) -> Iterator[Canary]:
    """A relay to `endpoint`."""
    engine = urlsplit(endpoint).netloc
    bird = Canary(port=0)

    class Relay(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            connection = HTTPConnection(engine, timeout=30)
            connection.request(self.command, self.path, headers=dict(self.headers.items()))
            answer = connection.getresponse()
            body = answer.read()
            bird.seen.append(Seen(method=self.command, path=self.path, headers=self.headers, status=answer.status))
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)
            connection.close()

        do_HEAD = do_GET  # noqa: N815 -- http.server calls them so

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its base's name
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True  # clients keep connections open

    with Server(("127.0.0.1", 0), Relay) as server:
        bird.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield bird
        finally:
            server.shutdown()
            thread.join()
