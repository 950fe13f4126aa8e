"""Who asks, and what their role and grants let them do: the seam between credentials and everything that decides.

A role is what an account is for, and the most that it can have; grants say which of that, and in which repositories.
What a role sees of an image in which state is `states.may_read`. An `Authenticator` (`authenticate.py`) turns a
request's credentials into a `Principal`.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import lru_cache
from typing import Final

from ocispec.digest import HEX_LENGTH, Digest
from registry.errors import AccountError


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
    """What can be done to a repository's content, each apart from the others (R5).

    To create is to bring what was not there: a blob, a manifest, a tag. To update is to point a tag that is there
    at another manifest. To delete is to take a tag, a manifest or a blob away. To pull is to read what the role and
    the image's state allow to be read.
    """

    PULL = "pull"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


ALL_RIGHTS: Final = frozenset(Right)

BOUNDS: Final[dict[Role, frozenset[Right]]] = {
    Role.PUSHER: ALL_RIGHTS,
    Role.REGISTRY: ALL_RIGHTS,
    Role.HOST: frozenset({Right.PULL}),
    Role.SCANNER: frozenset({Right.PULL}),
    Role.OFFICER: frozenset({Right.PULL}),
    Role.AUDITOR: frozenset({Right.PULL}),
    Role.ADMIN: frozenset(),
}
"""The most that any grant gives to a role."""

_GLOB: Final = re.compile(r"[a-z0-9*?./_-]{1,255}", re.ASCII)


def is_glob(text: str) -> bool:
    """True for a glob over the names of repositories; `*` crosses slashes, `?` is any one character."""
    return _GLOB.fullmatch(text) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """Some rights in the repositories that a glob (`is_glob`) matches."""

    pattern: str
    rights: frozenset[Right] = ALL_RIGHTS

    def __str__(self) -> str:
        """The grant as `parse` reads it: `shop/*:pull,create`; without a colon where it gives every right."""
        if self.rights == ALL_RIGHTS:
            return self.pattern
        return f"{self.pattern}:{','.join(right for right in Right if right in self.rights)}"

    @classmethod
    def parse(cls, text: str) -> Grant:
        """The grant that `shop/*:pull,create` says; `shop/*` alone is every right there.

        Raises:
            AccountError: it says none.
        """
        pattern, colon, names = text.partition(":")
        if not is_glob(pattern):
            raise AccountError(f"grant {text[:80]!r}: {pattern[:80]!r} is not a glob over repository names")
        if not colon:
            return cls(pattern=pattern)
        known = {str(right): right for right in Right}
        given = names.split(",")
        for name in given:
            if name not in known:
                raise AccountError(f"grant {text[:80]!r}: right {name[:40]!r}, expected some of {', '.join(known)}")
        return cls(pattern=pattern, rights=frozenset(known[name] for name in given))


EVERYTHING: Final = (Grant(pattern="*"),)
"""The grants of an account that was made without any: its role alone bounds it."""

Match = Callable[[str], object]
"""Of the name of a repository: something, or None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who a request comes from, and what it may do.

    `grants` are the account's. `layers` are those of the credentials in between, as of a token that was asked for one
    repository: each layer has to give a right too.
    """

    name: str
    role: Role
    grants: tuple[Grant, ...] = EVERYTHING
    layers: tuple[tuple[Grant, ...], ...] = ()
    _matches: dict[Right, Match] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out what is asked on every request."""
        object.__setattr__(self, "_matches", _matches(self.role, (self.grants, *self.layers)))

    @property
    def is_narrowed(self) -> bool:
        """True if its credentials give less than its account has, so that they speak for some repositories only."""
        return bool(self.layers)

    def narrowed(self, grants: Iterable[Grant]) -> Principal:
        """This principal, as far as `grants` give the same; never more than it has itself."""
        return replace(self, layers=(*self.layers, tuple(grants)))

    def patterns(self, right: Right) -> tuple[tuple[str, ...], ...]:
        """The globs of the repositories where it has a right: one of each tuple must match, so an empty one is none."""
        bound = BOUNDS[self.role]
        return tuple(
            tuple(grant.pattern for grant in layer if right in grant.rights & bound)
            for layer in (self.grants, *self.layers)
        )

    @property
    def reads_everywhere(self) -> bool:
        """True if it may read in every repository that there could be."""
        return all("*" in patterns for patterns in self.patterns(Right.PULL))

    def overlaps(self, name: str) -> bool:
        """True if a glob of `policy.globs` could match a repository in which it may read; never wrongly false."""
        fixed = name.partition("*")[0]
        if fixed == name:
            return self.in_scope(name)
        return all(
            any(_fixed(pattern).startswith(fixed) or fixed.startswith(_fixed(pattern)) for pattern in patterns)
            for patterns in self.patterns(Right.PULL)
        )

    def in_scope(self, repository: str) -> bool:
        """True if it may read in `repository` at all; what of it is `states.may_read`'s to say."""
        match = self._matches.get(Right.PULL)
        return match is not None and match(repository) is not None

    def may(self, right: Right, repository: str) -> bool:
        """True if it may do that to what is in `repository`."""
        match = self._matches.get(right)
        return match is not None and match(repository) is not None


def _fixed(pattern: str) -> str:
    """What every name that a grant's glob matches begins with."""
    return pattern.partition("*")[0].partition("?")[0]


@lru_cache(maxsize=4096)
def _matches(role: Role, layers: tuple[tuple[Grant, ...], ...]) -> dict[Right, Match]:
    """For each right that there is at all, what finds the repositories in which it is given."""
    found: dict[Right, Match] = {}
    for right in BOUNDS[role]:
        patterns = [tuple(grant.pattern for grant in layer if right in grant.rights) for layer in layers]
        if all(patterns):
            found[right] = matching(*patterns)
    return found


@lru_cache(maxsize=4096)
def matching(*layers: tuple[str, ...]) -> Match:
    """What finds the names that a glob of every layer matches.

    fnmatch makes of each `*` an atomic group, so no name takes more than one pass over each glob.
    """
    needed = [layer for layer in layers if "*" not in layer]
    ahead = "".join(f"(?={'|'.join(map(fnmatch.translate, layer))})" for layer in needed)
    return re.compile(ahead).match


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
