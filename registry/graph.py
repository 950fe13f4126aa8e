"""Limits of what one index leads to, so that a client that walks all of it comes to an end (R10).

An index can only name what is there already, so there are no cycles. But an index that names one child 512 times, which
does the same, has a quarter of a million ways through it in two small documents. Ways are counted, not manifests: what
is named twice is fetched twice by whoever does not remember.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from ocispec.descriptor import INDEX_TYPES
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.manifest import Index, parse_index
from registry.catalogue.manifests import manifest_by_digest
from registry.errors import ManifestBlobUnknownError, ManifestInvalidError

MAX_DEPTH: Final = 4
"""Indexes on one way from the top to an image, the top included; nested ones are rare, and never cleared for hosts."""

MAX_WAYS: Final = 4096
"""Manifests that a client fetches which follows every descriptor, and fetches again what it has had."""

MAX_BYTES: Final = 64 * 1024 * 1024
"""Bytes of those manifests together."""

MAX_INDEXES: Final = 64
"""Different indexes below one; so many are read at a push."""

MAX_INDEX_BYTES: Final = 16 * 1024 * 1024
"""Bytes of those indexes together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What is below an index: levels of indexes with its own, ways to manifests, and their bytes."""

    depth: int
    ways: int
    size: int


def check_graph(conn: Connection, repository: str, index: Index) -> Reach:
    """Return what is below an index whose children are all in its repository.

    Raises:
        ManifestInvalidError: more than a client should be made to walk.
    """
    walk = _Walk(conn=conn, repository=repository, top=index.digest)
    return walk.reach(index, above=0)


@dataclass(slots=True, kw_only=True)
class _Walk:
    conn: Connection
    repository: str
    top: Digest
    known: dict[Digest, Reach] = field(default_factory=dict)
    read: int = 0

    def reach(self, index: Index, *, above: int) -> Reach:
        """What is below `index`, which has `above` indexes over it."""
        if above >= MAX_DEPTH:
            raise self._refusal(f"indexes in more than {MAX_DEPTH} levels")
        depth, ways, size = 1, 0, 0
        for child in index.manifests:
            ways += 1
            size += child.size
            if child.media_type in INDEX_TYPES:
                below = self.known.get(child.digest) or self._below(child.digest, above + 1)
                if above + 1 + below.depth > MAX_DEPTH:
                    raise self._refusal(f"indexes in more than {MAX_DEPTH} levels")
                depth = max(depth, below.depth + 1)
                ways += below.ways
                size += below.size
            if ways > MAX_WAYS:
                raise self._refusal(f"more than {MAX_WAYS} manifests, counted by the ways to them")
            if size > MAX_BYTES:
                raise self._refusal(f"more than {MAX_BYTES} bytes of manifests, counted by the ways to them")
        return Reach(depth=depth, ways=ways, size=size)

    def _below(self, digest: Digest, above: int) -> Reach:
        found = manifest_by_digest(self.conn, self.repository, digest)
        if found is None:
            raise ManifestBlobUnknownError(f"manifest {digest}: not in {self.repository}", detail=str(digest))
        self.read += len(found.content)
        if len(self.known) >= MAX_INDEXES:
            raise self._refusal(f"more than {MAX_INDEXES} other indexes")
        if self.read > MAX_INDEX_BYTES:
            raise self._refusal(f"more than {MAX_INDEX_BYTES} bytes of other indexes")
        try:
            nested = parse_index(found.content, found.media_type)
        except SpecError as error:
            raise ManifestInvalidError(f"manifest {self.top}: {error}") from None
        self.known[digest] = self.reach(nested, above=above)
        return self.known[digest]

    def _refusal(self, what: str) -> ManifestInvalidError:
        return ManifestInvalidError(f"manifest {self.top}: the index leads to {what}")
