"""When manifests were last sent to anybody, for retention (`pulled`): found in the reads that are recorded anyway."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from ocispec.digest import Digest
from ocispec.errors import SpecError
from registry.catalogue.running import Image

AGAIN: Final = timedelta(hours=1)
"""How long a time that was written down is good enough."""

REMEMBERED: Final = 50_000
"""Manifests of which it is remembered; beyond that all is forgotten, and written down again."""

_NEVER: Final = datetime.min.replace(tzinfo=UTC)


class Pulls:
    """The pulls among the reads of one process that are worth to be written down; called by one thread at a time."""

    def __init__(self) -> None:
        """None yet."""
        self._written: dict[tuple[str, str], datetime] = {}

    def among(self, reads: Iterable[tuple[str, str, datetime]]) -> dict[Image, datetime]:
        """The newest time of each manifest among reads: subject `repository:reference`, what was answered, when."""
        found: dict[tuple[str, str], datetime] = {}
        for subject, answered, time in reads:
            key = (subject.partition(":")[0], answered)
            if answered and time - self._written.get(key, _NEVER) >= AGAIN:
                found[key] = max(time, found.get(key, time))
        images = ((_image(*key), time) for key, time in found.items())
        return {image: time for image, time in images if image is not None}

    def written(self, pulls: Mapping[Image, datetime]) -> None:
        """These were written down."""
        if len(self._written) + len(pulls) > REMEMBERED:
            self._written.clear()
        self._written.update({(repository, str(digest)): time for (repository, digest), time in pulls.items()})


def _image(repository: str, answered: str) -> Image | None:
    """None of a blob, whose subject is `repository@digest`, and of what was answered with no digest."""
    if "@" in repository:
        return None
    try:
        return repository, Digest.parse(answered)
    except SpecError:
        return None
