"""What accounts are known by: secrets, invitations and passwords, and the keys that tokens are signed with.

| endpoint | who |
| --- | --- |
| POST /api/v1/accounts/<name>/secret | admin, and the robot itself by its newest secret |
| POST /api/v1/accounts/<name>/invitation | admin |
| POST /api/v1/password | whoever has the person's invitation, or password |
| GET /api/v1/token-keys | admin, auditor |
| DELETE /api/v1/token-keys | admin |

Secrets and invitations are 256 random bits, shown once and kept as their SHA-256. An admin never learns a password.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from flask import Blueprint, Response, request
from sqlalchemy import Connection

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue
from policy.times import format_time
from registry.access import Role
from registry.api.base import json_response, open_to_all
from registry.api.control.shared import json_body, require_role
from registry.audit import Event
from registry.authenticate import hash_secret, new_secret
from registry.catalogue.accounts import Account, Kind, find_account, invite, is_account_name, set_password, set_secret
from registry.catalogue.locks import Lock, hold
from registry.catalogue.token_keys import list_keys, withdraw_keys
from registry.context import caller, context, source
from registry.errors import DeniedError, NameUnknownError, UnauthorizedError, UnsupportedRequestError
from registry.identity.basic import read_basic
from registry.identity.identity import Method

blueprint = Blueprint("credentials", __name__)

INVITED: Final = timedelta(days=7)
"""How long an invitation counts."""

MAX_OVERLAP: Final = 7 * 86_400
"""Seconds that an old secret may count beside the new one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An account, and what is told of it this once: its secret or invitation."""

    account: Account
    once: str = field(repr=False)


@blueprint.post("/api/v1/accounts/<name>/secret")
def post_secret(name: str) -> Response:
    """Give a robot another secret; the old one counts for `overlap` seconds more (0 without that)."""
    itself = caller().name == name and not caller().is_narrowed
    if not itself:
        require_role(Role.ADMIN)
    overlap = _overlap(json_body())
    secret = new_secret()
    with changing() as conn:
        account = account_named(conn, name)
        if itself and account.role is not Role.ADMIN and not _shows_newest_secret(account):
            raise DeniedError(f"account {name}: only its newest secret renews it, neither an older one nor a token")
        if account.kind is not Kind.ROBOT:
            raise UnsupportedRequestError(f"account {name}: a person has a password, expected a robot")
        until = context().clock() + timedelta(seconds=overlap) if overlap else None
        changed = replace(account, secret=hash_secret(secret), old_until=until)
        set_secret(conn, name, changed.secret, old=account.secret, old_until=until)
        after = f"new secret, the old one {f'until {format_time(until)}' if until else 'ends'}"
        _record(conn, name, before=_known_by(account), after=after)
    return made_response(Made(account=changed, once=secret))


@blueprint.post("/api/v1/accounts/<name>/invitation")
def post_invitation(name: str) -> Response:
    """Invite a person anew, to set a password; an older one and its tokens end."""
    require_role(Role.ADMIN)
    with changing() as conn:
        account = account_named(conn, name)
        if account.kind is not Kind.PERSON:
            raise UnsupportedRequestError(f"account {name}: a robot has a secret, expected a person")
        changed, invitation = new_credentials(account)
        invite(conn, name, changed.invitation, changed.invited_until or context().clock())
        _record(conn, name, before=_known_by(account), after=_known_by(changed))
    return made_response(Made(account=changed, once=invitation))


@blueprint.post("/api/v1/password")
@open_to_all
def post_password() -> Response:
    """Set a person's password, with an invitation or the password before; it is judged and hashed here."""
    members = json_body()
    name, invitation, old, new = (_text(members, key) for key in ("name", "invitation", "password", "new"))
    if not name or not new or bool(invitation) == bool(old):
        raise UnsupportedRequestError("password: expected name, new, and either invitation or password")
    stored = _proven(name, invitation, old)
    parts = context()
    parts.identity.passwords.check(new, account=name)
    hashed = parts.identity.passwords.hash(new)
    with changing() as conn:
        account = find_account(conn, name)
        # What was proven must still hold: of two with one invitation, one sets a password.
        if account is None or account.version != stored.version:
            raise _unknown(name, "changed meanwhile")
        set_password(conn, name, hashed)
        how = "by invitation" if invitation else "by the one before"
        _record(conn, name, before=_known_by(account), after=f"new password, {how}", by=name)
    return Response(status=204)


@blueprint.get("/api/v1/token-keys")
def get_token_keys() -> Response:
    """The public halves of the keys whose tokens count."""
    require_role(Role.ADMIN, Role.AUDITOR)
    with context().catalogue.read() as conn:
        found = list_keys(conn)
    now = context().clock()
    return json_response(
        {
            "keys": [
                {
                    "id": key.id,
                    "public": key.public.hex(),
                    "made": format_time(key.made),
                    "madeBy": key.made_by,
                    "ends": format_time(key.ends),
                }
                for key in found
                if now < key.ends
            ]
        }
    )


@blueprint.delete("/api/v1/token-keys")
def delete_token_keys() -> Response:
    """Withdraw all token keys: every token ends within a second, everywhere; the processes make new ones."""
    require_role(Role.ADMIN)
    with context().catalogue.write() as conn:
        before = [key.id for key in list_keys(conn)]
        withdraw_keys(conn)
        context().audit.append(
            conn,
            Event.TOKEN_KEY,
            principal=caller().name,
            source=source(),
            subject="token keys",
            before=" ".join(before),
            after="withdrawn",
        )
    return Response(status=204)


def _shows_newest_secret(account: Account) -> bool:
    """True if this request was made by the secret itself: what ends soon must not become what does not."""
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    given = read_basic(encoded) if scheme.lower() == "basic" else None
    return given is not None and hmac.compare_digest(hash_secret(given[1]), account.secret)


@contextmanager
def changing() -> Iterator[Connection]:
    """A transaction that alone changes accounts, on all instances: what it reads of them stays true until its end."""
    with context().catalogue.write() as conn:
        hold(conn, Lock.ACCOUNTS)
        yield conn


def account_named(conn: Connection, name: str) -> Account:
    """The account of that name.

    Raises:
        NameUnknownError: there is none.
    """
    found = find_account(conn, name) if is_account_name(name) else None
    if found is None:
        raise NameUnknownError(f"account {name[:80]}: not known")
    return found


def new_credentials(account: Account) -> tuple[Account, str]:
    """The account with a new secret, a person's with a new invitation, and what is shown once."""
    once = new_secret()
    if account.kind is Kind.ROBOT:
        return replace(account, secret=hash_secret(once)), once
    until = context().clock() + INVITED
    return replace(account, password="", invitation=hash_secret(once), invited_until=until), once


def made_response(made: Made) -> Response:
    """The answer that shows what is shown once."""
    account = made.account
    shown: dict[str, JsonValue] = {"name": account.name, "kind": str(account.kind), "role": str(account.role)}
    if account.kind is Kind.ROBOT:
        shown |= {"secret": made.once, "oldSecretUntil": moment(account.old_until)}
    else:
        shown |= {"invitation": made.once, "invitedUntil": moment(account.invited_until)}
    response = json_response(shown)
    response.status_code = 201
    response.headers["Cache-Control"] = "no-store"
    return response


def moment(when: datetime | None) -> JsonValue:
    """A moment for JSON."""
    return format_time(when) if when is not None else None


def _proven(name: str, invitation: str, old: str) -> Account:
    """The person's account, if the invitation or password is right.

    Raises:
        UnauthorizedError: it is not. TooManyRequestsError: too many failed of late.
    """
    parts = context()
    if old:
        found = parts.authenticator.login(name, old, source())
        if found is None or found.method is not Method.PASSWORD:
            raise _unknown(name)
        with parts.catalogue.look() as conn:
            account = find_account(conn, name)
        if account is None or account.version != found.version:
            raise _unknown(name)
        return account
    charge = parts.identity.attempts.begin(name, source())
    with parts.catalogue.look() as conn:
        account = find_account(conn, name) if is_account_name(name) else None
    now = parts.clock()
    expected = account.invitation if account is not None else ""
    right = hmac.compare_digest(hash_secret(invitation), expected or "0" * 64)
    if account is None or not right or not expected or account.has_ended(now):
        raise _unknown(name, "no such invitation")
    if account.invited_until is None or account.invited_until <= now:
        raise _unknown(name, "the invitation has ended")
    parts.identity.attempts.succeeded(charge)
    return account


def _unknown(name: str, noted: str = "") -> UnauthorizedError:
    """The one answer to everything that is wrong; what was wrong is counted for the audit."""
    if noted:
        context().identity.failures.note(account=name, source=source(), reason=f"password: {noted}")
    return UnauthorizedError("password: unknown account, or wrong invitation or password")


def _overlap(members: dict[str, JsonValue]) -> int:
    try:
        overlap = fields.integer(members, "overlap", what="secret", default=0)
    except SpecError as error:
        raise UnsupportedRequestError(str(error)) from None
    if members.keys() - {"overlap"} or not 0 <= overlap <= MAX_OVERLAP:
        raise UnsupportedRequestError(f"secret: expected overlap from 0 to {MAX_OVERLAP} seconds, and nothing else")
    return overlap


def _text(members: dict[str, JsonValue], name: str) -> str:
    try:
        return fields.text(members, name, what="password", default="")
    except SpecError as error:
        raise UnsupportedRequestError(str(error)) from None


def _known_by(account: Account) -> str:
    """What an account is known by, for the audit: never the thing itself."""
    if account.kind is Kind.ROBOT:
        older = f", an older one until {format_time(account.old_until)}" if account.old_until is not None else ""
        return f"secret{older}"
    if account.invitation and account.invited_until is not None:
        return f"invited until {format_time(account.invited_until)}"
    return "password" if account.password else "nothing"


def _record(conn: Connection, name: str, *, before: str, after: str, by: str = "") -> None:
    context().audit.append(
        conn,
        Event.ACCOUNT,
        principal=by or caller().name,
        source=source(),
        subject=name,
        before=before,
        after=after,
    )
