"""Settings of what tells operators how the registry does: log lines, metrics, traces."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from registry import settings_checks as checks
from registry.settings_checks import Key, choice, number


@dataclass(frozen=True, slots=True, kw_only=True)
class LogSettings:
    """`log`: what is written to standard error."""

    level: Annotated[
        str,
        Key(
            "Least level of what is logged: `debug`, `info`, `warning` or `error`; SIGHUP changes it.",
            choice("debug", "info", "warning", "error"),
        ),
    ] = "info"
    format: Annotated[
        str, Key("`text` for people, or `json`: one object a line, for programs.", choice("text", "json"))
    ] = "text"
    access: Annotated[bool, Key("Whether each request is a line, at level `info`.", checks.switch)] = True


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricsSettings:
    """`metrics`: what Prometheus is told, by a process of its own."""

    listen: Annotated[
        str, Key("Address and port where GET /metrics is answered; without it nowhere.", checks.address)
    ] = ""
    token: Annotated[
        str,
        Key("Bearer token that it asks for; needed where `listen` is not a loopback address.", checks.secret),
    ] = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceSettings:
    """`traces`: OpenTelemetry, where `pratique[otel]` is installed."""

    endpoint: Annotated[
        str,
        Key(
            "Where spans are sent by OTLP over HTTP, e.g. `http://127.0.0.1:4318/v1/traces`; without it nowhere.",
            checks.url,
        ),
    ] = ""
    percent: Annotated[
        int, Key("Of 100 requests that bring no trace of their own, how many are traced.", number(0, 100))
    ] = 10
    ca_file: Annotated[Path | None, Key("Certificates to check the endpoint's by, not the system's.", checks.path)] = (
        None
    )


LOG: Final = LogSettings()
METRICS: Final = MetricsSettings()
TRACES: Final = TraceSettings()
