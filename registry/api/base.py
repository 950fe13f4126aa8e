"""What all endpoints share: who asks, and the parts of a path parsed into values before anything uses them (R3)."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final
from urllib.parse import quote

from flask import Blueprint, Response, g, request
from werkzeug.datastructures import Headers

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.reference import check_repository, check_tag
from ocispec.strictjson import JsonValue
from registry.access import Right
from registry.again import KEEP_SECONDS, Offer
from registry.api.challenges import READS, speaks_for
from registry.context import caller, context, source
from registry.errors import (
    DeniedError,
    DigestInvalidError,
    ManifestInvalidError,
    ManifestUnknownError,
    NameInvalidError,
    NameUnknownError,
    UnauthorizedError,
    UnsupportedRequestError,
)
from registry.states import Sight, may_read
from registry.telemetry.environ import ACCOUNT, OFFER

blueprint = Blueprint("base", __name__)

API_VERSION: Final = {"Docker-Distribution-API-Version": "registry/2.0"}
"""Docker asks for this header before it speaks the newer protocol."""

JSON: Final = "application/json"

_OPEN: Final[set[object]] = set()


@blueprint.get("/v2/", strict_slashes=False)
def version() -> Response:
    """The specification's end-1: yes, this is a registry, and you are known to it."""
    return json_response({})


def open_to_all(view: Callable[[], Response]) -> Callable[[], Response]:
    """Mark a handler that answers without credentials; all others need them."""
    _OPEN.add(view)
    return view


def is_open(view: object) -> bool:
    """True if `view` was marked by `open_to_all`."""
    return view in _OPEN


def require_principal() -> None:
    """Find out who asks, before any handler runs.

    Raises:
        UnauthorizedError: nobody we know, or by a token that was asked for less than this.
        TooManyRequestsError: too many logins failed of late, or the account asks too often.
    """
    header = request.headers.get("Authorization")
    identity = context().authenticator.identify(header, source()) if header else None
    if identity is None:
        raise UnauthorizedError("authentication required" if not header else "unknown account or wrong secret")
    g.identity, g.principal = identity, identity.principal
    if request.method in READS:
        context().rates.account(identity.principal.name, source(), reads=True)
    else:
        body = bool(request.content_length) or "Transfer-Encoding" in request.headers
        context().rates.account(identity.principal.name, source(), reads=False, body=body)
    g.principal = speaks_for(identity)
    request.environ[ACCOUNT] = g.principal.name


def offer(read: str | None, after: str = "", *, seconds: float = KEEP_SECONDS) -> None:
    """Have the answer to this request, which rests on the request and the catalogue alone, given again (`again.py`).

    `read` is the subject of the read that is recorded each time, None for what is none; `after` what was answered.
    """
    ends = g.identity.ends
    if ends is not None:
        seconds = min(seconds, (ends - context().clock()).total_seconds())
    made = Offer(seconds, caller().name, None if read is None else (read, after))
    request.environ[OFFER] = made


def repository_name(text: str) -> str:
    """The repository that a path names.

    Raises:
        NameInvalidError: none.
    """
    try:
        return check_repository(text)
    except SpecError as error:
        raise NameInvalidError(str(error)) from None


def digest_of(text: str) -> Digest:
    """The digest that a path or query names.

    Raises:
        DigestInvalidError: none.
    """
    try:
        return Digest.parse(text)
    except SpecError as error:
        raise DigestInvalidError(str(error)) from None


def reference_of(text: str, *, pushing: bool) -> Digest | str:
    """The digest or tag that a path names.

    Raises:
        DigestInvalidError: it has a colon and is no digest.
        ManifestInvalidError: pushing to what is no tag.
        ManifestUnknownError: asking for what can be no tag.
    """
    if ":" in text:
        return digest_of(text)
    try:
        return check_tag(text)
    except SpecError as error:
        raise (ManifestInvalidError if pushing else ManifestUnknownError)(str(error)) from None


def require_right(right: Right, repository: str) -> None:
    """Check that the caller may do something to a repository's content.

    Raises:
        DeniedError: it may not.
        NameUnknownError: it may not delete there, nor know of the repository.
    """
    principal = caller()
    if right is not Right.DELETE:
        context().asking.mirrors.check_own(repository)
    if not principal.may(right, repository):
        if right is Right.DELETE:
            require_sight(repository)
        raise DeniedError(f"{principal.name} ({principal.role}) may not {right} in {repository}")


def require_push(repository: str) -> None:
    """Check that the caller may push something; which right it needs shows when it is known what is there already.

    Raises:
        DeniedError: it may not.
    """
    right = Right.UPDATE if caller().may(Right.UPDATE, repository) else Right.CREATE
    require_right(right, repository)


def require_sight(repository: str) -> None:
    """Check that the caller may know of a repository.

    Raises:
        NameUnknownError: it may not.
    """
    principal = caller()
    sight = may_read(principal.role, None, in_scope=principal.in_scope(repository))
    if sight is Sight.HIDDEN:
        raise NameUnknownError(f"repository {repository}: not known")


def page_size() -> int:
    """The `n` of this request, within bounds.

    Raises:
        UnsupportedRequestError: it is no number.
    """
    limit = context().settings.limits.page
    text = request.args.get("n")
    if text is None:
        return limit
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise UnsupportedRequestError(f"n: got {text[:40]!r}, expected a number")
    return min(int(text), limit)


def page_start(check: Callable[[str], str]) -> str:
    """The `last` of this request, after which its page begins; "" for the first page.

    Raises:
        UnsupportedRequestError: it is nothing that stands in such a list.
    """
    text = request.args.get("last", "")
    try:
        return check(text) if text else ""
    except SpecError as error:
        raise UnsupportedRequestError(f"last: {error}") from None


def link_next(path: str, **query: str | int) -> str:
    """A Link header (RFC 8288) to the next page."""
    encoded = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in query.items())
    return f'<{path}?{encoded}>; rel="next"'


def empty_response(status: int, headers: dict[str, str] | None = None) -> Response:
    """An answer without a body."""
    response = Response(None, status=status, headers=headers)
    response.headers.pop("Content-Type", None)
    return response


def json_response(value: JsonValue, *, media_type: str = JSON, **headers: str) -> Response:
    """An answer whose body is a JSON document; `headers` with `_` for `-`."""
    named = Headers([(name.replace("_", "-"), text) for name, text in headers.items()])
    return Response(json.dumps(value), headers=named, content_type=media_type)
