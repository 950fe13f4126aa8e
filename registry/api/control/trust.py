"""trust.json, and the registry's own key.

| endpoint | who |
| --- | --- |
| POST /api/v1/trust | officer, admin |
| GET /api/v1/trust, /api/v1/key | everybody known |
"""

from __future__ import annotations

from flask import Blueprint, Response

from policy import dsse
from policy.errors import PolicyError
from registry import statements as kept
from registry.access import Role
from registry.api.base import json_response
from registry.api.body import whole_body
from registry.api.control.shared import MAX_ENVELOPE, refused, require_role
from registry.audit import Event
from registry.context import caller, context, source
from registry.errors import NameUnknownError
from registry.judge.jobs import JobKind, Priority, enqueue
from registry.places import Places

blueprint = Blueprint("trust", __name__)


@blueprint.post("/api/v1/trust")
def post_trust() -> Response:
    """Take a trust.json: the first as it is, a newer one if enough of the old and the new roots signed it."""
    require_role(Role.OFFICER, Role.ADMIN)
    envelope, now, principal = whole_body(limit=MAX_ENVELOPE), context().clock(), caller()
    try:
        with context().catalogue.write() as conn:
            kept.lock_statements(conn)
            before, told = kept.generation(conn), kept.told_trust(conn)
            trust = kept.accept_trust(conn, envelope, by=principal.name, now=now)
            new = kept.generation(conn) != before
            if new:
                subject = f"trust.json {trust.root.version}"
                context().audit.append(
                    conn,
                    Event.TRUST,
                    principal=principal.name,
                    source=source(),
                    subject=subject,
                    before=told,
                    after=kept.told_trust(conn),
                )
                enqueue(conn, JobKind.REJUDGE, "all", now=now, priority=Priority.PUSH)
                enqueue(conn, JobKind.CHECKPOINT, now=now)
    except PolicyError as error:
        return refused(error, "trust.json")
    context().judge.wake()
    response = json_response({"version": trust.root.version, "digest": str(trust.digest), "new": new})
    response.status_code = 201 if new else 200
    return response


@blueprint.get("/api/v1/trust")
def get_trust() -> Response:
    """The newest trust.json."""
    with context().catalogue.read() as conn:
        envelope = kept.stored_trust(conn)
    if envelope is None:
        raise NameUnknownError("trust.json: none was handed in yet")
    return Response(envelope, content_type=dsse.MEDIA_TYPE)


@blueprint.get("/api/v1/key")
def get_key() -> Response:
    """The registry's public key: what officers put into trust.json."""
    try:
        pem = Places(context().settings).public_key.read_bytes()
    except OSError as error:
        raise NameUnknownError("the registry's key: none was made yet") from error
    return Response(pem, content_type="application/x-pem-file")
