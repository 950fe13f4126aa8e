"""What a 401 asks for (distribution, "Token Authentication Specification"), and what a token has to be for.

Where clients are sent for a token stands in the settings and nowhere in the request: a Host header is anybody's.
"""

from __future__ import annotations

from typing import Final

from flask import request

from ocispec.errors import SpecError
from ocispec.reference import check_repository
from registry.access import Principal, Right
from registry.context import context
from registry.errors import UnauthorizedError
from registry.identity.identity import Identity
from registry.tokens.scopes import ANYWHERE

TOKEN_PATH: Final = "/token"  # noqa: S105 -- a path
CATALOG: Final = "registry:catalog:*"
API: Final = "registry:api:*"

READS: Final = frozenset({"GET", "HEAD"})


def challenges(error: UnauthorizedError) -> tuple[str, ...]:
    """The WWW-Authenticate headers of the answer to this request: a token where there are tokens, else Basic."""
    settings = context().settings
    basic = f'Basic realm="{settings.name}", charset="UTF-8"'
    if request.path == TOKEN_PATH:
        return (basic,)
    scope = wanted_scope()
    bearer = f'Bearer realm="{settings.token_url}",service="{settings.name}"'
    if scope:
        bearer += f',scope="{scope}"'
    if error.insufficient:
        bearer += ',error="insufficient_scope"'
    # Docker would fetch a token and then send Basic if both were offered.
    return (bearer,) if request.path.startswith("/v2/") else (bearer, basic)


def speaks_for(identity: Identity) -> Principal:
    """The principal of this request.

    Raises:
        UnauthorizedError: a token that its account could have, but that was asked for less than this request needs.
    """
    principal, account = identity.principal, identity.account
    if not principal.is_narrowed:
        return principal
    if request.endpoint == "catalog.get_catalog":
        if identity.lists_catalog:
            return account
        raise UnauthorizedError(f"token: it is not for {CATALOG}", insufficient=True)
    repository, rights = _needed()
    lacking = repository and not _any(principal, rights, repository) and _any(account, rights, repository)
    if lacking or _lacks_source(principal, account):
        raise UnauthorizedError(f"token: it is not for {wanted_scope()}", insufficient=True)
    return principal


def wanted_scope() -> str:
    """The scopes of a token that this request would need, "" if any will do."""
    if not request.path.startswith("/v2/"):
        return API
    if request.path.startswith("/v2/_catalog"):
        return CATALOG
    repository, rights = _needed()
    if not repository:
        return ""
    actions = "pull" if Right.PULL in rights else "delete" if Right.DELETE in rights else "pull,push"
    scopes = [f"repository:{repository}:{actions}"]
    if source := _mount_source():
        scopes.append(f"repository:{source}:pull")
    if _mounts_from_anywhere():
        scopes.append(str(ANYWHERE))
    return " ".join(scopes)


def _lacks_source(principal: Principal, account: Principal) -> bool:
    """True of a mount from where the account may read, and its token may not."""
    if _mounts_from_anywhere():
        # Who may read nowhere is given no such token, and would be asked for it again and again.
        return all(account.patterns(Right.PULL)) and not all("*" in at for at in principal.patterns(Right.PULL)[1:])
    source = _mount_source()
    return bool(source) and not principal.in_scope(source) and account.in_scope(source)


def _mount_source() -> str:
    return _repository(request.args.get("from", "")) if request.method == "POST" and "mount" in request.args else ""


def _mounts_from_anywhere() -> bool:
    """A blob is to be mounted from whatever repository it is in."""
    return request.method == "POST" and "mount" in request.args and not request.args.get("from")


def _needed() -> tuple[str, tuple[Right, ...]]:
    """The repository of this request, "" if it has none, and the rights there of which it needs one."""
    repository = _repository(str((request.view_args or {}).get("name", "")))
    if request.method in READS and "upload_id" not in (request.view_args or {}):
        return repository, (Right.PULL,)
    if request.method == "DELETE" and "upload_id" not in (request.view_args or {}):
        return repository, (Right.DELETE,)
    return repository, (Right.CREATE, Right.UPDATE)


def _any(principal: Principal, rights: tuple[Right, ...], repository: str) -> bool:
    return any(principal.may(right, repository) for right in rights)


def _repository(text: str) -> str:
    try:
        return check_repository(text) if text else ""
    except SpecError:
        return ""
