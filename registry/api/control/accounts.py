"""Accounts, and the one-time token with which the first admin is made.

| endpoint | who |
| --- | --- |
| POST, GET /api/v1/accounts, DELETE /api/v1/accounts/<name> | admin |
| POST /api/v1/bootstrap | whoever has the one-time token |
"""

from __future__ import annotations

import hmac
from datetime import datetime

from flask import Blueprint, Response
from sqlalchemy import Connection, delete, select

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue
from policy.errors import PolicyError
from policy.times import format_time, parse_time
from registry.access import EVERYTHING, Grant, Role
from registry.api.base import json_response, open_to_all
from registry.api.control.shared import json_body, require_role
from registry.audit import Event
from registry.authenticate import hash_secret, new_secret
from registry.catalogue import schema
from registry.catalogue.accounts import (
    MAX_GRANTS,
    Account,
    add_account,
    count_accounts,
    list_accounts,
    remove_account,
)
from registry.context import caller, context, source
from registry.errors import DeniedError, NameUnknownError, UnauthorizedError, UnsupportedRequestError
from registry.first import BOOTSTRAP

blueprint = Blueprint("accounts", __name__)


@blueprint.post("/api/v1/accounts")
def post_account() -> Response:
    """Make an account; its secret is in the answer, and nowhere else."""
    require_role(Role.ADMIN)
    wanted = _wanted(json_body())
    with context().catalogue.write() as conn:
        secret = _add(conn, wanted, by=caller().name)
    return _made(wanted, secret)


@blueprint.get("/api/v1/accounts")
def get_accounts() -> Response:
    """All accounts, without their secrets."""
    require_role(Role.ADMIN)
    with context().catalogue.read() as conn:
        found = list_accounts(conn)
    return json_response({"accounts": [_shown(account) for account in found]})


@blueprint.delete("/api/v1/accounts/<name>")
def delete_account(name: str) -> Response:
    """Remove an account; the last admin stays."""
    require_role(Role.ADMIN)
    with context().catalogue.write() as conn:
        found = next((account for account in list_accounts(conn) if account.name == name), None)
        if found is None:
            raise NameUnknownError(f"account {name[:80]}: not known")
        if found.role is Role.ADMIN and count_accounts(conn, Role.ADMIN) == 1:
            raise DeniedError(f"account {name}: the last admin is not removed")
        remove_account(conn, name)
        context().audit.append(
            conn,
            Event.ACCOUNT,
            principal=caller().name,
            source=source(),
            subject=name,
            before=_told(found),
            after="removed",
        )
    return Response(status=204)


@blueprint.post("/api/v1/bootstrap")
@open_to_all
def post_bootstrap() -> Response:
    """Make the first admin with the one-time token; it counts once, and only while there is no admin (R7)."""
    members = json_body()
    token = _text(members, "token")
    wanted = _wanted({"name": members.get("name"), "role": str(Role.ADMIN)})
    with context().catalogue.write() as conn:
        stored = conn.scalar(select(schema.meta.c.value).where(schema.meta.c.name == BOOTSTRAP))
        right = hmac.compare_digest(hash_secret(token), stored or "0" * 64)
        if stored is None or not right or count_accounts(conn, Role.ADMIN):
            raise UnauthorizedError("bootstrap: no such token, or it was used")
        secret = _add(conn, wanted, by="bootstrap")
        conn.execute(delete(schema.meta).where(schema.meta.c.name == BOOTSTRAP))
    return _made(wanted, secret)


def _wanted(members: dict[str, JsonValue]) -> Account:
    """The account that a request describes, without a secret yet."""
    try:
        role = Role(_text(members, "role"))
        expires = fields.text(members, "expires", what="account", default="")
        return Account(
            name=_text(members, "name"),
            role=role,
            grants=_grants(members),
            secret="",
            created=context().clock(),
            created_by="",
            expires=_time(expires),
        )
    except (ValueError, SpecError, PolicyError) as error:
        raise UnsupportedRequestError(f"account: {error}") from None


def _grants(members: dict[str, JsonValue]) -> tuple[Grant, ...]:
    """`grants` as `Grant.parse` has them; `repositories` are those with every right. Neither: the role everywhere."""
    texts = [
        text
        for name in ("grants", "repositories")
        for text in fields.texts(members, name, what="account", limit=MAX_GRANTS)
    ]
    return tuple(map(Grant.parse, texts)) or EVERYTHING


def _told(account: Account) -> str:
    """An account's role, grants and end, for the audit."""
    ends = f" until {format_time(account.expires)}" if account.expires is not None else ""
    return f"{account.role}: {' '.join(map(str, account.grants))}{ends}"


def _time(text: str) -> datetime | None:
    return parse_time(text, what="account: expires") if text else None


def _text(members: dict[str, JsonValue], name: str) -> str:
    try:
        return fields.text(members, name, what="request")
    except SpecError as error:
        raise UnsupportedRequestError(str(error)) from None


def _add(conn: Connection, wanted: Account, *, by: str) -> str:
    secret = new_secret()
    account = Account(
        name=wanted.name,
        role=wanted.role,
        grants=wanted.grants,
        secret=hash_secret(secret),
        created=wanted.created,
        created_by=by,
        expires=wanted.expires,
    )
    add_account(conn, account)
    context().audit.append(
        conn,
        Event.ACCOUNT,
        principal=by,
        source=source(),
        subject=wanted.name,
        after=_told(wanted),
    )
    return secret


def _made(wanted: Account, secret: str) -> Response:
    response = json_response({"name": wanted.name, "role": str(wanted.role), "secret": secret})
    response.status_code = 201
    response.headers["Cache-Control"] = "no-store"
    return response


def _shown(account: Account) -> JsonValue:
    return {
        "name": account.name,
        "role": str(account.role),
        "grants": [str(grant) for grant in account.grants],
        "created": format_time(account.created),
        "createdBy": account.created_by,
        "expires": format_time(account.expires) if account.expires is not None else None,
    }
