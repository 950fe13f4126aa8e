"""What every request handler is given: settings, store, catalogue and the rest, made once in `create_app`.

Handlers ask `context()`, `caller()` and `source()`; nothing else of Flask's globals is used to pass things.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, cast

from flask import Flask, current_app, g, request

from registry.access import Principal
from registry.artifacts import ServedArtifacts
from registry.audit import Audit
from registry.authenticate import Authenticator
from registry.catalogue.database import Catalogue
from registry.collect.leases import Leases
from registry.counted import CountedLog
from registry.identity.open import IdentityParts
from registry.judge.queue import JudgeQueue
from registry.limits import Bodies, Shares
from registry.mirror.asking import Asking
from registry.placement import Placement
from registry.proven import ProvenManifests
from registry.rates import Rates
from registry.readiness import Readiness
from registry.reads import ReadLog
from registry.settings import Settings
from registry.store.interface import BlobStore
from registry.telemetry.environ import SOURCE

_EXTENSION: Final = "pratique"


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The registry as its handlers see it. `clock` gives aware times in UTC, in whole seconds."""

    settings: Settings
    store: BlobStore
    catalogue: Catalogue
    authenticator: Authenticator
    identity: IdentityParts
    audit: Audit
    reads: ReadLog
    judge: JudgeQueue
    bodies: Bodies
    downloads: Shares
    placement: Placement
    rates: Rates
    refusals: CountedLog
    readiness: Readiness
    artifacts: ServedArtifacts
    proven: ProvenManifests
    asking: Asking
    leases: Leases
    clock: Callable[[], datetime]


def install(app_extensions: dict[str, object], context: Context) -> None:
    """Give an application its context."""
    app_extensions[_EXTENSION] = context


def context_of(app: Flask) -> Context:
    """The context of an application."""
    return cast("Context", app.extensions[_EXTENSION])


def context() -> Context:
    """The context of the application that handles this request."""
    return cast("Context", current_app.extensions[_EXTENSION])


def caller() -> Principal:
    """Who this request comes from; set before any handler runs."""
    return cast("Principal", g.principal)


def source() -> str:
    """The address that this request comes from, also behind proxies that are believed: for audit and limits."""
    return str(request.environ.get(SOURCE) or request.remote_addr or "")


def peer() -> str:
    """The address at the other end of this request's connection: a proxy's, where one stands in front."""
    return request.remote_addr or ""
