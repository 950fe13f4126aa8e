"""A collector of OpenTelemetry traces: OTLP over HTTP (opentelemetry-proto decodes what comes), as a thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

PATH: Final = "/v1/traces"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One span, with the process that sent it."""

    process: str
    name: str
    trace: str
    span: str
    parent: str
    kind: int
    failed: bool
    attributes: dict[str, str]


@dataclass(slots=True)
class Collector:
    """What came, by all connections."""

    port: int
    spans: list[Seen] = field(default_factory=list)
    services: set[str] = field(default_factory=set)

    @property
    def endpoint(self) -> str:
        """For `traces.endpoint`."""
        return f"http://127.0.0.1:{self.port}{PATH}"

    def take(self, body: bytes) -> None:
        """Keep the spans of one request.

        Raises:
            DecodeError: it is none.
        """
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        request = ExportTraceServiceRequest()
        request.ParseFromString(body)
        for each in request.resource_spans:
            resource = {pair.key: pair.value.string_value for pair in each.resource.attributes}
            self.services.add(resource["service.name"])
            self.spans += [
                Seen(
                    process=resource["process.name"],
                    name=span.name,
                    trace=span.trace_id.hex(),
                    span=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=span.kind,
                    failed=span.status.code == span.status.STATUS_CODE_ERROR,
                    attributes={pair.key: str(_value(pair.value)) for pair in span.attributes},
                )
                for scope in each.scope_spans
                for span in scope.spans
            ]


def _value(value: object) -> object:
    return getattr(value, str(value.WhichOneof("value")))  # type: ignore[attr-defined]  # generated code


class _Handler(BaseHTTPRequestHandler):
    collector: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        good = self.path == PATH and self.headers["Content-Type"] == "application/x-protobuf"
        if good:
            self.collector.take(body)
        self.send_response(200 if good else 400)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- its name in the base class
        pass


@contextmanager
def collector(port: int = 0) -> Iterator[Collector]:
    """One that listens."""
    made = Collector(port)
    handler = type("Handler", (_Handler,), {"collector": made})
    with ThreadingHTTPServer(("127.0.0.1", port), handler) as server:
        made.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield made
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def silent(port: int) -> Iterator[None]:
    """In its place, something that takes connections and never answers."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen(64)
        yield
