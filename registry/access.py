"""Who asks, and in which role: the seam between a request's credentials and everything that decides.

An `Authenticator` turns an Authorization header into a `Principal` or None; it never decides what that
principal may do. `may_push`, `in_scope` and the state rules of `states.py` do. Accounts have a secret of 256
random bits, so one SHA-256 is enough to store it; it is compared in constant time (R7: no default account).
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request comes from; `repositories` are globs over repository names."""

    name: str
    role: Role
    repositories: tuple[str, ...] = ("*",)

    def in_scope(self, repository: str) -> bool:
        """True if one of the principal's globs matches; `*` also crosses slashes."""
        return any(glob == "*" or fnmatch.fnmatchcase(repository, glob) for glob in self.repositories)

    def may_push(self, repository: str) -> bool:
        """True if it may create, change and delete content of `repository`."""
        return self.role is Role.PUSHER and self.in_scope(repository)


REGISTRY: Final = Principal(name="registry", role=Role.REGISTRY)
"""The registry itself, where it stores clearances and signatures as artifacts."""
