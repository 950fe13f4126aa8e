"""Which repository is a copy of which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ocispec.errors import SpecError
from ocispec.reference import check_repository
from registry.errors import DeniedError
from registry.settings_mirror import MirrorSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A repository of this registry, and the one at `mirror.registry` that it is a copy of."""

    repository: str
    upstream: str
    mirror: MirrorSettings

    @property
    def origin(self) -> str:
        """The upstream repository as references have it."""
        return f"{self.mirror.registry}/{self.upstream}"


class Mirrors:
    """The mirrors of the settings."""

    def __init__(self, mirrors: Sequence[MirrorSettings]) -> None:
        """Take them as they were checked."""
        self._mirrors = tuple(mirrors)

    def __bool__(self) -> bool:
        return bool(self._mirrors)

    def find(self, repository: str) -> Copy | None:
        """What a repository is a copy of, or None."""
        for mirror in self._mirrors:
            if repository.startswith(mirror.prefix):
                try:
                    upstream = check_repository(mirror.below + repository.removeprefix(mirror.prefix))
                except SpecError:
                    return None  # longer than a name may be
                return Copy(repository=repository, upstream=upstream, mirror=mirror)
        return None

    def check_own(self, repository: str) -> None:
        """Check that a repository is no copy, so that something may be pushed to it.

        Raises:
            DeniedError: it is.
        """
        copy = self.find(repository) if self._mirrors else None
        if copy is not None:
            raise DeniedError(f"repository {repository}: a copy of {copy.origin}, to which nothing is pushed")
