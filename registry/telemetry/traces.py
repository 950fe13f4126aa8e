"""Spans of requests, storage, catalogue and judging: nothing at all unless the settings name where they are sent.

OpenTelemetry is imported by `otel.py` alone, and that by `configure` alone. A trace goes from a push to the clearance
by the job's row, which holds the traceparent (W3C Trace Context) of the request.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Final, Protocol

from registry.errors import SettingsError
from registry.settings_operation import TraceSettings

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

Attribute = str | int


class RequestSpan(Protocol):
    """The span of one request; `traceparent` names it to others."""

    @property
    def traceparent(self) -> str:
        """As in W3C Trace Context, section 3.2."""

    def leave(self) -> None:
        """The application has returned: what this thread does now is no part of it."""

    def end(self, endpoint: str, status: int) -> None:
        """All of the answer is sent, or given up."""


class Tracing(Protocol):
    """Makes spans; for many threads."""

    def begin(self, environ: WSGIEnvironment, parent: str) -> RequestSpan:
        """The span of a request, below `parent` (a traceparent, "" for none); what this thread does now is in it."""

    def span(
        self, name: str, attributes: Mapping[str, Attribute] | None, parent: str | None
    ) -> AbstractContextManager[object]:
        """A span for as long as the block runs, below `parent`, or (None) below what this thread does now."""

    def close(self) -> None:
        """Send what is not sent yet, for some seconds at most."""


_NOTHING: Final = nullcontext()
_tracing: Tracing | None = None


def configure(settings: TraceSettings, *, process: str, registry: str) -> None:
    """Have this process send its spans where the settings say, if they say so.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    global _tracing  # noqa: PLW0603 -- one a process, as spans are of the process
    if not settings.endpoint:
        return
    try:
        from registry.telemetry.otel import OpenTelemetry  # noqa: PLC0415 -- an extra, for those who ask for it
    except ImportError as error:
        raise SettingsError(f"setting traces.endpoint: needs pratique[otel] ({error})") from error
    _tracing = OpenTelemetry(settings, process=process, registry=registry)


def on() -> bool:
    """True if spans are sent."""
    return _tracing is not None


def begin(environ: WSGIEnvironment, *, believed: bool) -> RequestSpan | None:
    """The span of a request, or None; whose trace it is part of is told by believed proxies alone."""
    if _tracing is None:
        return None
    return _tracing.begin(environ, environ.get("HTTP_TRACEPARENT", "") if believed else "")


def span(name: str, attributes: Mapping[str, Attribute] | None = None) -> AbstractContextManager[object]:
    """A span for as long as the block runs, below what this thread does now."""
    return _NOTHING if _tracing is None else _tracing.span(name, attributes, None)


def part_of(trace: str, name: str, attributes: Mapping[str, Attribute]) -> AbstractContextManager[object]:
    """A span below the traceparent `trace`, or (if it is "") of a trace of its own."""
    return _NOTHING if _tracing is None else _tracing.span(name, attributes, trace)


def close() -> None:
    """Send what is not sent yet: at the end of a process."""
    if _tracing is not None:
        _tracing.close()
