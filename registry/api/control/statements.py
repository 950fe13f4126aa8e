"""Statements that people and builds hand in, and what is in force of them.

| endpoint | who |
| --- | --- |
| POST /api/v1/statements | officer: any; pusher: approvals |
| GET /api/v1/statements | pusher, scanner, officer, auditor |
| GET /api/v1/floors | everybody known |
| GET /api/v1/policy, /api/v1/policy/<digest> | everybody known |
| GET /api/v1/revocations | everybody known |
"""

from __future__ import annotations

from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import Connection, or_, select

from ocispec.manifest import MAX_LAYERS
from policy import dsse, wire
from policy.errors import PolicyError, TrustError
from policy.statements import (
    ImageApproval,
    LayerApproval,
    PolicyFloor,
    PolicyStatement,
    RevocationList,
    Statement,
    Waiver,
)
from registry import statements as kept
from registry.access import Role
from registry.api.base import digest_of, json_response
from registry.api.body import whole_body
from registry.api.control.shared import MAX_ENVELOPE, as_json, refused, require_role
from registry.audit import Event
from registry.catalogue import schema
from registry.context import caller, context, source
from registry.errors import DeniedError, InUseError, NameUnknownError, UnsupportedRequestError
from registry.judge.jobs import JobKind, Priority, enqueue
from registry.revoking import revoke_now

blueprint = Blueprint("statements", __name__)

_TEAM: Final = (ImageApproval, LayerApproval)


@blueprint.post("/api/v1/statements")
def post_statement() -> Response:
    """Take a statement in: proven, stored, recorded, and what it touches judged again."""
    require_role(Role.OFFICER, Role.PUSHER)
    envelope = whole_body(limit=MAX_ENVELOPE)
    try:
        _check_kind(envelope)
        return context().catalogue.change(lambda conn: _accept(conn, envelope))
    except PolicyError as error:
        return refused(error, "statement")
    finally:
        context().judge.wake()


def _check_kind(envelope: bytes) -> None:
    """A pusher hands in its team's approvals, and nothing else."""
    statement = wire.decode(dsse.parse(envelope, what="statement").payload, what="statement")
    if caller().role is Role.PUSHER and not isinstance(statement, _TEAM):
        raise DeniedError(f"{caller().name} (pusher) may hand in approvals, got a {type(statement).__name__}")


def _accept(conn: Connection, envelope: bytes) -> Response:
    now, principal = context().clock(), caller()
    kept.lock_statements(conn)
    trust = kept.trust_in_force(conn, now)
    if trust is None:
        raise InUseError("this registry has no trust.json yet, so no statement can be proven")
    accepted = kept.accept(conn, trust, envelope, by=principal.name, now=now)
    statement, digest = accepted.signed.statement, accepted.signed.digest
    kind = type(statement).__name__
    signers = ", ".join(sorted({signer.owner for signer in accepted.signed.signers}))
    revoked = 0
    if accepted.new:
        event = Event.POLICY if isinstance(statement, PolicyStatement | PolicyFloor) else Event.STATEMENT
        context().audit.append(
            conn,
            event,
            principal=principal.name,
            source=source(),
            subject=f"{kind} {digest}",
            before=kept.superseded(conn, accepted.signed),
            after=f"signed by {signers}: {_said(statement)}",
        )
        urgent = isinstance(statement, RevocationList)
        if isinstance(statement, RevocationList):
            revoked = len(revoke_now(conn, context().audit, statement, by=principal.name, source=source(), now=now))
            enqueue(conn, JobKind.LIST, now=now, priority=Priority.URGENT)
        subject = f"urgent statement {digest}" if urgent else f"statement {digest}"
        enqueue(conn, JobKind.REJUDGE, subject, now=now, priority=Priority.URGENT if urgent else Priority.PUSH)
    response = json_response(
        {"digest": str(digest), "type": kind, "new": accepted.new, "signedBy": signers, "revoked": revoked}
    )
    response.status_code = 201 if accepted.new else 200
    return response


def _said(statement: Statement) -> str:
    """One line for the audit."""
    match statement:
        case ImageApproval(level=level, manifest=manifest):
            return f"image {manifest} for level {level}"
        case LayerApproval(level=level, diff_id=diff_id):
            return f"layer {diff_id} for level {level}"
        case PolicyStatement(name=name, version=version) | PolicyFloor(name=name, version=version):
            return f"{name} {version}"
        case RevocationList(number=number, reason=reason):
            return f"number {number}: {reason}"
        case _:
            return getattr(statement, "reason", "")


@blueprint.get("/api/v1/statements")
def get_statements() -> Response:
    """The envelopes that may count for an image, by its `config` and its `diff_id`s: for a check before a push."""
    require_role(Role.PUSHER, Role.SCANNER, Role.OFFICER, Role.AUDITOR)
    diff_ids = request.args.getlist("diff_id")
    if len(diff_ids) > MAX_LAYERS:
        raise UnsupportedRequestError(f"diff_id: got {len(diff_ids)}, expected at most {MAX_LAYERS}")
    config, layers = digest_of(request.args.get("config", "")), [digest_of(text) for text in diff_ids]
    with context().catalogue.read() as conn:
        known = kept.CatalogueStatements(conn=conn, now=context().clock()).concerning(config, layers)
    return json_response({"statements": [as_json(envelope) for envelope in known if _may_know(envelope)]})


def _may_know(envelope: bytes) -> bool:
    """False for a waiver that can only be for repositories out of scope: it names them, and says what is wrong."""
    statement = wire.decode(dsse.parse(envelope, what="statement").payload, what="statement")
    if not isinstance(statement, Waiver) or caller().reads_everywhere:
        return True
    prefix = f"{context().settings.name}/"
    fixed = statement.scope.partition("*")[0]
    if "*" in statement.scope and prefix.startswith(fixed):
        return True
    return statement.scope.startswith(prefix) and caller().overlaps(statement.scope.removeprefix(prefix))


@blueprint.get("/api/v1/policy")
def get_policy() -> Response:
    """The signed policy in force."""
    now = context().clock()
    with context().catalogue.read() as conn:
        trust = kept.trust_in_force(conn, now)
        try:
            policy = kept.current_policy(conn, trust, now) if trust is not None else None
        except TrustError as error:
            raise InUseError(f"the stored policy is not believed any more: {error}") from error
    if policy is None:
        raise NameUnknownError("policy: none was published yet")
    return Response(policy.envelope, content_type=dsse.MEDIA_TYPE)


@blueprint.get("/api/v1/policy/<digest>")
def get_policy_by_digest(digest: str) -> Response:
    """A signed policy by the digest of its statement or of its document."""
    wanted, table = digest_of(digest), schema.statements.c
    with context().catalogue.read() as conn:
        envelope = conn.scalar(
            select(table.envelope).where(
                table.type == PolicyStatement.__name__, or_(table.digest == wanted, table.subject == wanted)
            )
        )
    if envelope is None:
        raise NameUnknownError(f"policy {wanted}: not known")
    return Response(envelope, content_type=dsse.MEDIA_TYPE)


@blueprint.get("/api/v1/floors")
def get_floors() -> Response:
    """The newest floor of each policy's name: below it no clearance counts."""
    with context().catalogue.read() as conn:
        return json_response({"floors": [as_json(envelope) for envelope in kept.newest_floors(conn)]})


@blueprint.get("/api/v1/revocations")
def get_revocations() -> Response:
    """The newest revocation list that has a date, and the date: what a host takes together."""
    with context().catalogue.read() as conn:
        dated = kept.dated_list(conn)
    listed, date = dated if dated is not None else (None, None)
    return json_response({"list": as_json(listed), "date": as_json(date)})
