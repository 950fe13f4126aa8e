"""Accounts, and the one-time token with which the first admin is made.

| endpoint | who |
| --- | --- |
| POST, GET /api/v1/accounts, PATCH, DELETE /api/v1/accounts/<name> | admin |
| POST /api/v1/bootstrap | whoever has the one-time token |

What an account is known by - secrets, invitations, passwords, token keys - is in `credentials.py`.
"""

from __future__ import annotations

import hmac
from dataclasses import replace
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
from registry.api.control.credentials import Made, account_named, changing, made_response, moment, new_credentials
from registry.api.control.shared import json_body, require_role
from registry.audit import Event
from registry.authenticate import hash_secret
from registry.catalogue import schema
from registry.catalogue.accounts import (
    MAX_CERTIFICATES,
    MAX_GRANTS,
    Account,
    Kind,
    add_account,
    bind_certificates,
    certificates_of,
    change_account,
    count_accounts,
    list_accounts,
    remove_account,
    unbind_certificates,
)
from registry.context import caller, context, source
from registry.errors import DeniedError, UnauthorizedError, UnsupportedRequestError
from registry.first import BOOTSTRAP

blueprint = Blueprint("accounts", __name__)

_CHANGEABLE = frozenset({"grants", "repositories", "expires", "certificates"})


@blueprint.post("/api/v1/accounts")
def post_account() -> Response:
    """Make an account; its secret, or a person's invitation, is in the answer and nowhere else."""
    require_role(Role.ADMIN)
    members = json_body()
    wanted, certificates = _wanted(members), _certificates(members)
    with changing() as conn:
        made = _add(conn, wanted, certificates, by=caller().name)
    return made_response(made)


@blueprint.get("/api/v1/accounts")
def get_accounts() -> Response:
    """All accounts, without their secrets."""
    require_role(Role.ADMIN)
    with context().catalogue.read() as conn:
        found, certificates = list_accounts(conn), certificates_of(conn)
    return json_response({"accounts": [_shown(account, certificates.get(account.name, ())) for account in found]})


@blueprint.patch("/api/v1/accounts/<name>")
def patch_account(name: str) -> Response:
    """Change what an account may, when it ends, or which certificates speak for it; what is not named stays."""
    require_role(Role.ADMIN)
    members = json_body()
    if not members or members.keys() - _CHANGEABLE:
        raise UnsupportedRequestError(f"account {name[:80]}: expected some of {', '.join(sorted(_CHANGEABLE))}")
    with changing() as conn:
        before = account_named(conn, name)
        bound = certificates_of(conn).get(name, ())
        after = _changed(before, members)
        if after.expires is not None and _is_last_admin(conn, before):
            raise DeniedError(f"account {name}: the last admin does not end")
        certificates = _certificates(members) if "certificates" in members else bound
        change_account(conn, after)
        if certificates != bound:
            unbind_certificates(conn, name)
            bind_certificates(conn, name, certificates)
        _record(conn, name, before=_told(before, bound), after=_told(after, certificates), by=caller().name)
    return json_response(_shown(after, certificates))


@blueprint.delete("/api/v1/accounts/<name>")
def delete_account(name: str) -> Response:
    """Remove an account; the last admin stays."""
    require_role(Role.ADMIN)
    with changing() as conn:
        found = account_named(conn, name)
        if _is_last_admin(conn, found):
            raise DeniedError(f"account {name}: the last admin is not removed")
        bound = certificates_of(conn).get(name, ())
        remove_account(conn, name)
        _record(conn, name, before=_told(found, bound), after="removed", by=caller().name)
    return Response(status=204)


@blueprint.post("/api/v1/bootstrap")
@open_to_all
def post_bootstrap() -> Response:
    """Make the first admin with the one-time token; it counts once, and only while there is no admin (R7)."""
    members = json_body()
    token = _text(members, "token")
    wanted = _wanted({"name": members.get("name"), "role": str(Role.ADMIN)})
    with changing() as conn:
        stored = conn.scalar(select(schema.meta.c.value).where(schema.meta.c.name == BOOTSTRAP))
        right = hmac.compare_digest(hash_secret(token), stored or "0" * 64)
        if stored is None or not right or count_accounts(conn, Role.ADMIN):
            context().identity.failures.note(account=wanted.name, source=source(), reason="bootstrap: no such token")
            raise UnauthorizedError("bootstrap: no such token, or it was used")
        made = _add(conn, wanted, (), by="bootstrap")
        conn.execute(delete(schema.meta).where(schema.meta.c.name == BOOTSTRAP))
    return made_response(made)


def _wanted(members: dict[str, JsonValue]) -> Account:
    """The account that a request describes, without anything that it is known by yet."""
    try:
        role = Role(_text(members, "role"))
        kind = Kind(fields.text(members, "kind", what="account", default=str(Kind.ROBOT)))
        return Account(
            name=_text(members, "name"),
            role=role,
            grants=_grants(members),
            secret="",
            created=context().clock(),
            created_by="",
            expires=_expires(members),
            kind=kind,
        )
    except (ValueError, SpecError, PolicyError) as error:
        raise UnsupportedRequestError(f"account: {error}") from None


def _changed(account: Account, members: dict[str, JsonValue]) -> Account:
    try:
        grants = _grants(members) if members.keys() & {"grants", "repositories"} else account.grants
        expires = _expires(members) if "expires" in members else account.expires
    except (SpecError, PolicyError) as error:
        raise UnsupportedRequestError(f"account {account.name}: {error}") from None
    return replace(account, grants=grants, expires=expires)


def _grants(members: dict[str, JsonValue]) -> tuple[Grant, ...]:
    """`grants` as `Grant.parse` has them; `repositories` are those with every right. Neither: the role everywhere."""
    texts = [
        text
        for name in ("grants", "repositories")
        for text in fields.texts(members, name, what="account", limit=MAX_GRANTS)
    ]
    return tuple(map(Grant.parse, texts)) or EVERYTHING


def _certificates(members: dict[str, JsonValue]) -> tuple[str, ...]:
    try:
        found = fields.texts(members, "certificates", what="account", limit=MAX_CERTIFICATES)
    except SpecError as error:
        raise UnsupportedRequestError(str(error)) from None
    return tuple(sorted(set(found)))


def _expires(members: dict[str, JsonValue]) -> datetime | None:
    if members.get("expires") is None:
        return None
    text = fields.text(members, "expires", what="account", default="")
    return parse_time(text, what="account: expires") if text else None


def _told(account: Account, certificates: tuple[str, ...]) -> str:
    """An account's kind, role, grants, end and certificates, for the audit."""
    person = "person, " if account.kind is Kind.PERSON else ""
    ends = f" until {format_time(account.expires)}" if account.expires is not None else ""
    known_by = f" by certificates {' '.join(certificates)}" if certificates else ""
    return f"{person}{account.role}: {' '.join(map(str, account.grants))}{ends}{known_by}"


def _text(members: dict[str, JsonValue], name: str) -> str:
    try:
        return fields.text(members, name, what="request")
    except SpecError as error:
        raise UnsupportedRequestError(str(error)) from None


def _is_last_admin(conn: Connection, account: Account) -> bool:
    return account.role is Role.ADMIN and count_accounts(conn, Role.ADMIN) == 1


def _add(conn: Connection, wanted: Account, certificates: tuple[str, ...], *, by: str) -> Made:
    account, once = new_credentials(replace(wanted, created_by=by))
    add_account(conn, account)
    bind_certificates(conn, account.name, certificates)
    _record(conn, wanted.name, before="", after=_told(account, certificates), by=by)
    return Made(account=account, once=once)


def _record(conn: Connection, name: str, *, before: str, after: str, by: str) -> None:
    context().audit.append(conn, Event.ACCOUNT, principal=by, source=source(), subject=name, before=before, after=after)


def _shown(account: Account, certificates: tuple[str, ...]) -> JsonValue:
    return {
        "name": account.name,
        "kind": str(account.kind),
        "role": str(account.role),
        "grants": [str(grant) for grant in account.grants],
        "certificates": list(certificates),
        "created": format_time(account.created),
        "createdBy": account.created_by,
        "expires": moment(account.expires),
        "oldSecretUntil": moment(account.old_until),
        "invitedUntil": moment(account.invited_until),
    }
