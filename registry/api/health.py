"""Is the process alive, and can it work: for supervisors and load balancers, without credentials or details.

Only an admin is told which part it is, and why: the reasons name folders, addresses and versions.
"""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint, Response, request

from registry.access import Role
from registry.api.base import json_response, open_to_all, require_principal
from registry.context import caller, context
from registry.errors import RegistryError

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
@open_to_all
def healthz() -> Response:
    """The process answers."""
    return Response("ok\n", content_type="text/plain")


@blueprint.get("/readyz")
@open_to_all
def readyz() -> Response:
    """The registry can work, and is not about to stop."""
    failed = context().readiness.look()
    status = 503 if failed else 200
    if _asked_by_admin():
        return _told(failed, status)
    return Response("not ready\n" if failed else "ready\n", status=status, content_type="text/plain")


def _told(failed: Mapping[str, str], status: int) -> Response:
    response = json_response({"ready": not failed, "failed": dict(failed)})
    response.status_code = status
    return response


def _asked_by_admin() -> bool:
    if "Authorization" not in request.headers:
        return False
    try:
        require_principal()
    except RegistryError:
        return False  # unknown, or nobody can be known now
    return caller().role is Role.ADMIN
