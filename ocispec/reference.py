"""References: `registry/repository[:tag][@digest]`, as the distribution specification names them.

Grammar: distribution specification 1.1, "Pulling manifests": repository
`[a-z0-9]+((\\.|_|__|-+)[a-z0-9]+)*(\\/…)*`, tag `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`. There is no default
registry: a name that does not say where it comes from is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from ocispec.digest import Digest
from ocispec.errors import SpecError

_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", re.ASCII)
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL}){{0,126}}|\[[0-9a-fA-F:.]{{2,45}}\])(?::([0-9]{{1,5}}))?", re.ASCII)

MAX_REPOSITORY = 255
"""Clients limit host and repository together to 255 characters (distribution specification, same section)."""


def check_repository(name: str) -> str:
    """Return `name` if it is a repository name.

    Raises:
        SpecError: it is not, or it is longer than MAX_REPOSITORY.
    """
    if len(name) > MAX_REPOSITORY or _REPOSITORY.fullmatch(name) is None:
        raise SpecError(
            f"repository {name[:80]!r}: expected lower-case path components, {MAX_REPOSITORY} characters at most"
        )
    return name


def check_tag(name: str) -> str:
    """Return `name` if it is a tag.

    Raises:
        SpecError: it is not.
    """
    if _TAG.fullmatch(name) is None:
        raise SpecError(f"tag {name[:140]!r}: expected [a-zA-Z0-9_][a-zA-Z0-9._-]{{0,127}}")
    return name


def check_registry(host: str) -> str:
    """Return `host` if it is a registry's host: a DNS name, an IPv4 or a bracketed IPv6 address, with or without port.

    Raises:
        SpecError: it is not, or the port is none.
    """
    match = _HOST.fullmatch(host) if len(host) <= MAX_REPOSITORY else None
    if match is None or (match[1] is not None and not 0 < int(match[1]) < 65536):
        raise SpecError(f"registry {host[:80]!r}: expected host or host:port")
    return host


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where an image is: a registry's host and port, a repository, and a tag, a digest, or both."""

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    def __post_init__(self) -> None:
        """Check each part, however it was made: a part becomes a URL's path or a folder's name."""
        check_registry(self.registry)
        check_repository(self.repository)
        if self.tag is not None:
            check_tag(self.tag)

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Return the reference that `text` spells; `docker://` in front is allowed.

        Raises:
            SpecError: no registry, a bad host, repository, tag or digest.
        """
        rest = text.removeprefix("docker://")
        rest, at, digest_text = rest.partition("@")
        digest = Digest.parse(digest_text) if at else None
        registry, slash, name = rest.partition("/")
        if not slash or not ("." in registry or ":" in registry or registry == "localhost"):
            raise SpecError(
                f"reference {text[:300]!r}: expected registry/repository[:tag][@digest], with the registry's host"
            )
        repository, colon, tag = name.partition(":")
        return cls(registry=registry, repository=repository, tag=tag if colon else None, digest=digest)

    def at(self, digest: Digest) -> Reference:
        """This reference pinned to `digest`; the tag is kept for people to read."""
        return replace(self, digest=digest)

    @property
    def name(self) -> str:
        """`registry/repository`, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What the manifest endpoint is asked for: the digest if there is one, else the tag, else `latest`."""
        return str(self.digest) if self.digest is not None else (self.tag or "latest")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag is not None else ""
        digest = f"@{self.digest}" if self.digest is not None else ""
        return f"{self.name}{tag}{digest}"
