"""What a client asks a token for, and what of it an account may (distribution, "Token Scope Documentation").

    repository:team/app:pull,push     repository:*:pull     registry:catalog:*     registry:api:*

The first is what every client asks for. The others are for mounts that name no source, which is looked for wherever
the account may read; for `_catalog`; and for all that the account may beside repositories (our /api/v1). What is not
allowed, not known or not well-formed is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ocispec.errors import SpecError
from ocispec.reference import check_repository
from ocispec.strictjson import JsonValue
from registry.access import Grant, Principal, Right
from registry.errors import TooLargeError

MAX_SCOPES: Final = 32
"""Of one token; clients ask for one repository, or two when they mount a blob from another."""

REPOSITORY: Final = "repository"
REGISTRY: Final = "registry"
CATALOG: Final = "catalog"
API: Final = "api"

_SCOPE: Final = re.compile(r"([a-z]{1,32})(?:\([a-z0-9]{1,32}\))?:(.{1,512}):([A-Za-z*,_-]{1,256})", re.ASCII)
_RIGHTS: Final[dict[str, frozenset[Right]]] = {
    "pull": frozenset({Right.PULL}),
    "push": frozenset({Right.CREATE, Right.UPDATE}),
    "delete": frozenset({Right.DELETE}),
}
"""What docker's actions mean; to push is to create as well as to update."""

_ANYTHING: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Some actions on one thing."""

    type: str
    name: str
    actions: tuple[str, ...]

    def __str__(self) -> str:
        """The scope as it is asked for."""
        return f"{self.type}:{self.name}:{','.join(self.actions)}"

    def to_json(self) -> dict[str, JsonValue]:
        """An element of a token's `access`."""
        return {"type": self.type, "name": self.name, "actions": list(self.actions)}

    @property
    def grant(self) -> Grant:
        """What a scope of a repository gives."""
        rights = frozenset(right for action in self.actions for right in _RIGHTS.get(action, ()))
        return Grant(pattern=self.name, rights=rights)


ANYWHERE: Final = Scope(type=REPOSITORY, name=_ANYTHING, actions=("pull",))
"""To read in all repositories of the account's."""


def parse_scopes(texts: Iterable[str]) -> tuple[Scope, ...]:
    """The scopes of all `scope` parameters, each of which may hold several with spaces between.

    Raises:
        TooLargeError: more than MAX_SCOPES.
    """
    words = [word for text in texts for word in text.split(" ") if word]
    if len(words) > MAX_SCOPES:
        raise TooLargeError(f"scope: got {len(words)} scopes, expected at most {MAX_SCOPES}")
    found = (_SCOPE.fullmatch(word) for word in words)
    return tuple(
        Scope(type=match[1], name=match[2], actions=tuple(match[3].split(","))) for match in found if match is not None
    )


def allowed(principal: Principal, wanted: Iterable[Scope]) -> tuple[Scope, ...]:
    """What of `wanted` the principal may have, each thing once."""
    actions: dict[tuple[str, str], dict[str, None]] = {}
    for scope in wanted:
        given = _allowed_actions(principal, scope)
        if given:
            actions.setdefault((scope.type, scope.name), {}).update(dict.fromkeys(given))
    return tuple(Scope(type=kind, name=name, actions=tuple(each)) for (kind, name), each in actions.items())


def narrow(principal: Principal, access: Iterable[Scope]) -> Principal:
    """The principal as far as a token of this access speaks for it."""
    scopes = tuple(access)
    if any(scope.type == REGISTRY and scope.name == API for scope in scopes):
        return principal
    return principal.narrowed(scope.grant for scope in scopes if scope.type == REPOSITORY)


def lists_catalog(access: Iterable[Scope]) -> bool:
    """True if a token of this access may list the repositories that its account may know of."""
    return any(scope.type == REGISTRY and scope.name in {CATALOG, API} for scope in access)


def _allowed_actions(principal: Principal, scope: Scope) -> tuple[str, ...]:
    if scope.type == REGISTRY and scope.name in {CATALOG, API}:
        return (_ANYTHING,) if _ANYTHING in scope.actions else ()
    if scope.type != REPOSITORY:
        return ()
    if scope == ANYWHERE:
        return ANYWHERE.actions if all(principal.patterns(Right.PULL)) else ()
    try:
        check_repository(scope.name)
    except SpecError:
        return ()
    wanted = tuple(_RIGHTS) if _ANYTHING in scope.actions else scope.actions
    return tuple(
        action for action in wanted if any(principal.may(right, scope.name) for right in _RIGHTS.get(action, ()))
    )
