"""Manifests are proven again whenever they are served: hashed each time, and parsed once in each process.

What was pushed had been parsed strictly; but what stands in the database now may have been put there by somebody
else, with a digest that fits. An ambiguous document is not served either (R1, R2).
"""

from __future__ import annotations

import threading
from typing import Final

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.manifest import parse_manifest
from registry.catalogue.manifests import Found
from registry.errors import CorruptError

MAX_KNOWN: Final = 65_536
"""Digests that are remembered; when there are more, all are forgotten and parsed again."""


class ProvenManifests:
    """Remembers which documents could be read in one way only; for many threads."""

    def __init__(self) -> None:
        """None is known yet."""
        self._lock = threading.Lock()
        self._known: set[tuple[Digest, str]] = set()

    def check(self, repository: str, found: Found) -> None:
        """Return if `found` is what its digest and media type say.

        Raises:
            CorruptError: it is not.
        """
        what = f"manifest {found.digest} of {repository}"
        got = Digest.of(found.content, found.digest.algorithm)
        if got != found.digest:
            raise CorruptError(f"{what}: digest mismatch: stored bytes have {got}")
        key = (found.digest, found.media_type)
        if key in self._known:
            return
        try:
            parse_manifest(found.content, found.media_type, algorithm=found.digest.algorithm)
        except SpecError as error:
            raise CorruptError(f"{what}: stored, but not to be served: {error}") from error
        with self._lock:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known.add(key)
