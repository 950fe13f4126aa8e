"""The token endpoint: distribution, "Token Authentication Specification" and "Oauth2 Token Authentication".

GET /token?service=&scope= with Basic or a bearer token of an issuer, or with a client certificate where TLS asks for
one; POST /token with a form (RFC 6749 section 4.3), or a token of an issuer to exchange (RFC 8693). What is asked for
and not allowed is left out of the token; nobody gets a token for a token of ours, so none can be renewed by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs

from flask import Blueprint, Response, request

from policy.times import format_time
from registry.access import Principal, Role
from registry.api.base import json_response, open_to_all
from registry.api.body import whole_body
from registry.catalogue.accounts import ANONYMOUS
from registry.certificates import from_header
from registry.context import context, peer, source
from registry.errors import UnauthorizedError, UnsupportedRequestError
from registry.identity.identity import Identity, Method, known
from registry.tokens.scopes import REPOSITORY, allowed, parse_scopes

blueprint = Blueprint("token", __name__)

MAX_FORM: Final = 64 * 1024
MAX_FIELDS: Final = 64
CERTIFICATE: Final = "pratique.client_certificate"
"""In the environment of requests to our own listener (`registry.certificate_listener`): the client's, DER."""

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_FORM: Final = "application/x-www-form-urlencoded"

Fields = Mapping[str, Sequence[str]]


@blueprint.get("/token")
@open_to_all
def get_token() -> Response:
    """A token for what the query asks for."""
    return _answer(_who({}), request.args.to_dict(flat=False))


@blueprint.post("/token")
@open_to_all
def post_token() -> Response:
    """A token for what the form asks for."""
    if request.mimetype != _FORM:
        raise UnsupportedRequestError(f"token: got content type {request.mimetype[:80]!r}, expected {_FORM}")
    try:
        form = parse_qs(whole_body(limit=MAX_FORM).decode(), max_num_fields=MAX_FIELDS, strict_parsing=False)
    except ValueError as error:
        raise UnsupportedRequestError(f"token: its form cannot be read: {str(error)[:120]}") from None
    return _answer(_who(form), form)


def _answer(identity: Identity | None, fields: Fields) -> Response:
    parts = context()
    if identity is None:
        raise UnauthorizedError("unknown account or wrong secret")
    parts.rates.account(identity.principal.name, source(), reads=False)
    service = _one(fields, "service")
    if service not in {"", parts.settings.name}:
        raise UnsupportedRequestError(f"token: service {service[:120]!r}, expected {parts.settings.name}")
    access = allowed(identity.account, parse_scopes(fields.get("scope", ())))
    if identity.method is Method.NOTHING:
        access = tuple(scope for scope in access if scope.type == REPOSITORY)
    made = parts.identity.tokens.issue(identity, access, withdrawals=parts.identity.generation.current())
    response = json_response(
        {
            "token": made.token,
            "access_token": made.token,
            "token_type": "Bearer",
            "expires_in": made.expires_in,
            "issued_at": format_time(made.issued),
            "scope": " ".join(map(str, made.access)),
        }
    )
    response.headers["Cache-Control"] = "no-store"
    return response


def _who(form: Fields) -> Identity | None:
    """Who asks: by the Authorization header, by the form, or by the certificate, the first of them that is there."""
    parts = context()
    header = request.headers.get("Authorization")
    if header:
        found = parts.authenticator.identify(header, source())
    elif form:
        found = _by_form(form)
    else:
        found = _by_certificate()
    if found is not None and found.method is Method.TOKEN:
        raise UnauthorizedError("a token is not given for a token")
    return found


def _by_certificate() -> Identity | None:
    """By the certificate; whoever shows none may be nobody, where the settings let nobody read."""
    parts = context()
    certificate = _certificate()
    if certificate is not None and parts.identity.certificates is not None:
        return parts.identity.certificates.identify(certificate, source())
    if parts.settings.tokens.anonymous:
        nobody = Principal(name=ANONYMOUS, role=Role.HOST, grants=parts.settings.tokens.anonymous)
        return known(nobody, Method.NOTHING, version=None, ends=None)
    raise UnauthorizedError("authentication required")


def _by_form(form: Fields) -> Identity | None:
    authenticator = context().authenticator
    match _one(form, "grant_type"):
        case "password":
            name, secret = _one(form, "username"), _one(form, "password")
            return authenticator.login(name, secret, source()) if name and secret else None
        case grant if grant == EXCHANGE:
            return authenticator.identify(f"Bearer {_one(form, 'subject_token')}", source())
        case grant:
            raise UnsupportedRequestError(f"token: grant_type {grant[:80]!r}, expected password or {EXCHANGE}")


def _certificate() -> bytes | None:
    """The client's certificate as our own listener saw it, or as a proxy that is believed passes it on."""
    seen = request.environ.get(CERTIFICATE)
    if isinstance(seen, bytes):
        return seen
    settings = context().settings
    if (
        settings.certificates is None
        or not settings.certificates.header
        or not context().identity.proxies.believes(peer())
    ):
        return None
    return from_header(request.headers.get(settings.certificates.header, ""))


def _one(fields: Fields, name: str) -> str:
    values = fields.get(name, ())
    if len(values) > 1:
        raise UnsupportedRequestError(f"token: {name} is there {len(values)} times")
    return values[0] if values else ""
