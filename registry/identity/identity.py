"""The answer to "who is it": a value that credentials of any kind become, and that a token is made of."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from registry.access import Principal


class Method(StrEnum):
    """What somebody is known by."""

    SECRET = "secret"  # noqa: S105 -- the name of a method
    PASSWORD = "password"  # noqa: S105 -- the name of a method
    TOKEN = "token"  # noqa: S105 -- the name of a method
    ISSUER = "issuer"
    CERTIFICATE = "certificate"
    NOTHING = "nothing"
    """Nobody in particular, where the settings let nobody read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Somebody whom we know.

    `principal` is who may do what with these credentials, `account` what that somebody may with any: the same, but for
    a token that was asked for less. `version` is the stored account's, None of somebody whom an issuer vouches for.
    `ends` is when the credentials do, if ever; `lists_catalog` if they may list the account's repositories.
    """

    principal: Principal
    account: Principal
    method: Method
    version: int | None = None
    ends: datetime | None = None
    lists_catalog: bool = True


def known(principal: Principal, method: Method, *, version: int | None, ends: datetime | None) -> Identity:
    """Somebody whose credentials speak for all that the account may."""
    return Identity(principal=principal, account=principal, method=method, version=version, ends=ends)


def earliest(*moments: datetime | None) -> datetime | None:
    """The first of these moments that there are."""
    return min((moment for moment in moments if moment is not None), default=None)
