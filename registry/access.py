"""Who asks, and what their role lets them do: the seam between credentials and everything that decides.

Roles and rights are one table here; what a role sees of an image in which state is `states.may_read`. An
`Authenticator` (`authenticate.py`) turns a request's credentials into a `Principal`.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from ocispec.digest import HEX_LENGTH, Digest


class Role(StrEnum):
    """What an account is for."""

    PUSHER = "pusher"
    HOST = "host"
    SCANNER = "scanner"
    OFFICER = "officer"
    AUDITOR = "auditor"
    ADMIN = "admin"
    REGISTRY = "registry"
    """The registry's own signer and judge, inside the registry; no account can have it."""


class Right(StrEnum):
    """What can be done to a repository's content; reading depends on states too, and is not among them (R5)."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


_RIGHTS: Final[dict[Role, frozenset[Right]]] = {
    Role.PUSHER: frozenset(Right),
    Role.REGISTRY: frozenset(Right),
    Role.HOST: frozenset(),
    Role.SCANNER: frozenset(),
    Role.OFFICER: frozenset(),
    Role.AUDITOR: frozenset(),
    Role.ADMIN: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request comes from; `repositories` are globs over repository names, in which `*` crosses slashes."""

    name: str
    role: Role
    repositories: tuple[str, ...] = ("*",)

    def in_scope(self, repository: str) -> bool:
        """True if one of the principal's globs matches."""
        return any(glob == "*" or fnmatch.fnmatchcase(repository, glob) for glob in self.repositories)

    def may(self, right: Right, repository: str) -> bool:
        """True if it may do that to what is in `repository`."""
        return right in _RIGHTS[self.role] and self.in_scope(repository)


REGISTRY: Final = Principal(name="registry", role=Role.REGISTRY)
"""The registry itself, where it stores clearances and signatures as artifacts."""

_OF_DIGEST: Final = re.compile(r"(sha256|sha512)-([0-9a-f]{64,128})(\..+)?", re.ASCII)


def tag_subject(tag: str) -> Digest | None:
    """The digest of the image that a tag `sha256-<hex>[.suffix]` speaks of, or None for another tag.

    Without a suffix it is the referrers fallback tag (distribution specification 1.1, "Referrers Tag Schema");
    with one, cosign's and podman's `.sig`, `.att` and so on.
    """
    found = _OF_DIGEST.fullmatch(tag)
    if found is None or len(found[2]) != HEX_LENGTH[found[1]]:
        return None
    return Digest(found[1], found[2])


def is_protected_tag(tag: str) -> bool:
    """True for `sha256-<hex>.<suffix>`: what clients believe as signatures is written by the signer alone."""
    found = _OF_DIGEST.fullmatch(tag)
    return found is not None and found[3] is not None
