"""When manifests were last sent to anybody, for retention (`pulled`): found in the reads that are recorded anyway."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from ocispec.digest import Digest
from ocispec.errors import SpecError
from registry.catalogue.running import Image

AGAIN: Final = timedelta(hours=1)
"""How long a time that was written down is good enough."""

REMEMBERED: Final = 50_000
"""Manifests of which it is remembered; beyond that all is forgotten, and written down again."""


class Pulls:
    """The pulls among the reads of one process that are worth to be written down; called by one thread at a time."""

    def __init__(self) -> None:
        """None yet."""
        self._written: dict[Image, datetime] = {}

    def among(self, reads: Iterable[tuple[str, str, datetime]]) -> dict[Image, datetime]:
        """The newest time of each manifest among reads: subject `repository:reference`, what was answered, when."""
        newest: dict[tuple[str, str], datetime] = {}
        for subject, answered, time in reads:
            newest[subject, answered] = max(time, newest.get((subject, answered), time))
        found: dict[Image, datetime] = {}
        for (subject, answered), time in newest.items():
            image = _image(subject, answered)
            if image is None or time - self._written.get(image, datetime.min.replace(tzinfo=time.tzinfo)) < AGAIN:
                continue
            found[image] = max(time, found.get(image, time))
        return found

    def written(self, pulls: dict[Image, datetime]) -> None:
        """These were written down."""
        if len(self._written) + len(pulls) > REMEMBERED:
            self._written.clear()
        self._written.update(pulls)


def _image(subject: str, answered: str) -> Image | None:
    repository, colon, _ = subject.partition(":")
    if not colon or "@" in repository or not answered:
        return None
    try:
        return repository, Digest.parse(answered)
    except SpecError:
        return None
