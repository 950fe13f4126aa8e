"""The files of one image: opened once each, none of those that were found changed, and hashed or known by their seals.

files = OpenedFiles(store=host.store, depth=host.settings().depth, owned=owned)
index, digest = files.index(record.root_index)
layers = files.layers(diff_ids)
files.names                     # which files those were: what runs is watched by them
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ocispec.digest import Digest
from runtime.changed import FileName
from runtime.errors import StoreError
from runtime.hashing import at_once, digest_of
from runtime.linux.owned import Owned
from runtime.refused import refuse
from runtime.seals import Seals
from runtime.settings import Depth
from runtime.store import Store


@dataclass(slots=True, kw_only=True)
class OpenedFiles:
    """Opens for one start; `owned` closes what it opened. `names` are the files opened so far."""

    store: Store
    depth: Depth
    owned: Owned
    names: set[FileName] = field(default_factory=set)

    def index(self, digest: Digest) -> tuple[int, Digest]:
        """The root index that should have this digest, and the digest it has.

        Raises:
            RefusalError: `root-index-unusable`, or `root-index-changed` if that was found by a rehash.
        """
        fd = self._open(self.store.open_index, digest, "root-index")
        return fd, self._digests([(fd, digest)], "root-index")[0]

    def layers(self, diff_ids: Sequence[Digest]) -> tuple[int, ...]:
        """The layers with these digests, lowest first.

        Raises:
            RefusalError: `layer-unusable`, or `layer-changed`.
        """
        fds = [self._open(self.store.open_layer, diff_id, "layer") for diff_id in diff_ids]
        found = self._digests(list(zip(fds, diff_ids, strict=True)), "layer")
        for diff_id, digest in zip(diff_ids, found, strict=True):
            if digest != diff_id:
                raise refuse("layer-changed", diff_id, f"its tar in the store is {digest}")
        return tuple(fds)

    def _open(self, opener: Callable[[Digest], int], digest: Digest, what: str) -> int:
        try:
            fd = self.owned.add(opener(digest))
        except StoreError as error:
            raise refuse(f"{what}-unusable", digest, str(error)) from None
        name = (digest, os.fstat(fd).st_ino)
        # Before it is hashed: the page cache may still hold what the disk no longer does.
        if name in self.store.changed():
            raise refuse(f"{what}-changed", digest, "the last rehash found it changed on the disk")
        self.names.add(name)
        return fd

    def _digests(self, files: Sequence[tuple[int, Digest]], what: str) -> list[Digest]:
        seals = Seals(self.store.seals)
        try:
            if self.depth is Depth.SEALED:
                return seals.prove(files)
            found = at_once(lambda file: digest_of(file[0], file[1].algorithm), files)
        except OSError as error:
            raise refuse(f"{what}-unusable", files[0][1] if len(files) == 1 else f"{what}s", str(error)) from None
        for (_, expected), digest in zip(files, found, strict=True):
            if digest != expected:
                seals.drop(expected)  # for the day on which the host's setting is another
        return found
