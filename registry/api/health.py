"""Is the process alive, and can it work: for supervisors and load balancers, without credentials or details."""

from __future__ import annotations

from flask import Blueprint, Response

from registry.api.base import open_to_all
from registry.context import context

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@open_to_all
def healthz() -> Response:
    """The process answers."""
    return Response("ok\n", content_type="text/plain")


@blueprint.get("/readyz")
@open_to_all
def readyz() -> Response:
    """Store and catalogue can be used."""
    ready = context().readiness.look()
    return Response("ready\n" if ready else "not ready\n", status=200 if ready else 503, content_type="text/plain")
