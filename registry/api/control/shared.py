"""What the control endpoints share: rights by role, short JSON bodies, envelopes as JSON, refusals."""

from __future__ import annotations

from typing import Final

from flask import Response, request

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse, parse_object
from policy.errors import PolicyError, TrustError
from registry.access import Role
from registry.api.body import whole_body
from registry.api.errors import error_response
from registry.audit import Event
from registry.context import caller, context, source
from registry.errors import DeniedError, UnsupportedRequestError

MAX_REQUEST: Final = 64 * 1024
MAX_ENVELOPE: Final = 4 * 1024 * 1024


def require_role(*roles: Role) -> None:
    """Check that the caller has one of these roles.

    Raises:
        DeniedError: it has another, or its credentials are for some repositories only.
    """
    principal = caller()
    if principal.is_narrowed:
        raise DeniedError(f"{principal.name}: these credentials are for repositories only, and do nothing else")
    if principal.role not in roles:
        wanted = ", ".join(roles)
        raise DeniedError(f"{principal.name} ({principal.role}) may not do this, expected role {wanted}")


def json_body(limit: int = MAX_REQUEST) -> dict[str, JsonValue]:
    """The JSON object that this request brings.

    Raises:
        UnsupportedRequestError: it is none.
    """
    try:
        return parse_object(whole_body(limit=limit), what="request", max_bytes=limit)
    except SpecError as error:
        raise UnsupportedRequestError(str(error)) from None


def as_json(envelope: bytes | None) -> JsonValue:
    """An envelope as a JSON object, for embedding; what is signed is the base64 in it, so nothing is lost."""
    return parse(envelope, what="envelope", max_bytes=MAX_ENVELOPE) if envelope is not None else None


def number_argument(name: str, default: int, maximum: int) -> int:
    """A whole number of the query, from 0 to `maximum`.

    Raises:
        UnsupportedRequestError: it is no such number.
    """
    text = request.args.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise UnsupportedRequestError(f"{name}: got {text[:40]!r}, expected a number")
    return min(int(text), maximum)


def refused(error: PolicyError, what: str) -> Response:
    """The answer to a statement that is not believed or cannot be used; the refusal is recorded."""
    principal = caller()
    with context().catalogue.write() as conn:
        context().audit.append(
            conn, Event.REFUSED, principal=principal.name, source=source(), subject=what, after=str(error)
        )
    code = error.code if isinstance(error, TrustError) else "unusable"
    subject = error.subject if isinstance(error, TrustError) else what
    return error_response("STATEMENT_REFUSED", str(error), 422, {"code": code, "subject": subject})


def digest_text(digest: Digest | None) -> JsonValue:
    """A digest for JSON."""
    return str(digest) if digest is not None else None
