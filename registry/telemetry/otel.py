"""Spans by OpenTelemetry: the one module that imports it (`pratique[otel]`).

Sent by OTLP over HTTP from a thread of their own; the endpoint's headers come from the SDK's own variable
OTEL_EXPORTER_OTLP_HEADERS. Proxies and .netrc of the environment are not used.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from contextvars import Token
from importlib.metadata import version
from typing import TYPE_CHECKING, Final

import requests
from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from registry.settings_operation import TraceSettings
from registry.telemetry.origin import MAX_TRACE
from registry.telemetry.traces import Attribute, RequestSpan

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

EXPORT_SECONDS: Final = 5
"""How long one batch may take to be sent, with its repetitions; also what the end of a process waits at most."""

MAX_PATH: Final = 512
_ERROR: Final = 500
_PROPAGATOR: Final = TraceContextTextMapPropagator()


class OpenTelemetry:
    """As `traces.Tracing`."""

    def __init__(self, settings: TraceSettings, *, process: str, registry: str) -> None:
        """Send to the endpoint of `settings`; nothing is connected before the first span."""
        session = requests.Session()
        session.trust_env = False
        exporter = OTLPSpanExporter(
            settings.endpoint,
            certificate_file=str(settings.ca_file) if settings.ca_file is not None else None,
            timeout=EXPORT_SECONDS,
            session=session,
        )
        resource = Resource(
            {
                "service.name": "pratique-registry",
                "service.version": version("pratique"),
                "service.instance.id": registry,
                "process.name": process,
            }
        )
        sampler = ParentBased(TraceIdRatioBased(settings.percent / 100))
        self._provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("pratique")

    def begin(self, environ: WSGIEnvironment, parent: str) -> RequestSpan:
        """See `traces.Tracing`."""
        span = self._tracer.start_span(
            environ["REQUEST_METHOD"][:16],
            context=_context_of(parent),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": environ["REQUEST_METHOD"][:16],
                "url.path": environ["PATH_INFO"][:MAX_PATH],
                "client.address": environ["pratique.source"],
                "pratique.request": environ["pratique.request"],
            },
        )
        return _Request(span)

    def span(
        self, name: str, attributes: Mapping[str, Attribute] | None, parent: str | None
    ) -> AbstractContextManager[object]:
        """See `traces.Tracing`."""
        return self._tracer.start_as_current_span(
            name, context=None if parent is None else _context_of(parent), attributes=attributes
        )

    def close(self) -> None:
        """See `traces.Tracing`."""
        # The SDK waits half a minute for a collector that does not answer.
        closing = threading.Thread(target=self._provider.shutdown, name="traces-close", daemon=True)
        closing.start()
        closing.join(EXPORT_SECONDS)


class _Request:
    """As `traces.RequestSpan`."""

    def __init__(self, span: Span) -> None:
        self._span = span
        self._token: Token[Context] = context.attach(trace.set_span_in_context(span))
        carrier: dict[str, str] = {}
        _PROPAGATOR.inject(carrier)
        self.traceparent = carrier.get("traceparent", "")

    def leave(self) -> None:
        """See `traces.RequestSpan`."""
        context.detach(self._token)

    def end(self, endpoint: str, status: int) -> None:
        """See `traces.RequestSpan`."""
        if endpoint:
            self._span.set_attribute("http.route", endpoint)
        self._span.set_attribute("http.response.status_code", status)
        if status >= _ERROR:
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end()


def _context_of(traceparent: str) -> Context:
    """The context that a traceparent names; an empty one for "" and for what is none."""
    return _PROPAGATOR.extract({"traceparent": traceparent[:MAX_TRACE]}, context=Context())
