"""Hash what the store holds again, whatever its seals say: what changed beneath the file system is found by this alone.

To be run by a timer, more often than seals end (runtime.seals.MAX_AGE), so that no start has to hash. What is found
changed loses its seal and is listed (runtime.changed): nothing starts from it, what runs from it is treated as if it
were revoked (runtime.watch), and `pull` fetches it again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from ocispec.digest import Digest
from runtime.changed import FileName
from runtime.errors import StoreError
from runtime.images import ImageRecord
from runtime.linux import verity
from runtime.seals import SECOND, Seals
from runtime.store import Store

DUE: Final = timedelta(hours=12)
"""The age from which on a seal is renewed: half of what it counts for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Damaged:
    """A layer or root index that is not what its name says: `detail` tells what it is, `images` who needs it."""

    digest: Digest
    detail: str
    images: tuple[ImageRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rehashed:
    """What came of it: files that were hashed, files whose seals are young enough, and what is damaged."""

    hashed: int
    sealed: int
    damaged: tuple[Damaged, ...]


def rehash(store: Store, *, due: timedelta = DUE) -> Rehashed:
    """Hash every layer and root index that an image needs and whose seal is older than `due`, or is none.

    Raises:
        StoreError: the list of changed files cannot be read or written, or the record of an image is damaged.
    """
    with store.rehashing():
        return _Rehash(store, due).run()


class _Rehash:
    """One run, under the lock of the store."""

    def __init__(self, store: Store, due: timedelta) -> None:
        self._store = store
        self._due = due
        self._seals = Seals(store.seals)
        self._before = store.changed()
        self._changed: set[FileName] = set(self._before)
        self._hashed = self._sealed = 0

    def run(self) -> Rehashed:
        indexes: dict[Digest, list[ImageRecord]] = {}
        layers: dict[Digest, list[ImageRecord]] = {}
        for record in self._store.images():
            indexes.setdefault(record.root_index, []).append(record)
            for diff_id in dict.fromkeys(record.diff_ids):
                layers.setdefault(diff_id, []).append(record)
        damaged: list[Damaged] = []
        for needed, opener in ((indexes, self._store.open_index), (layers, self._store.open_layer)):
            for digest, images in needed.items():
                try:
                    detail = self._look(opener(digest), digest)
                except StoreError as error:
                    detail = str(error)
                if detail:
                    damaged.append(Damaged(digest=digest, detail=detail, images=tuple(images)))
        return Rehashed(hashed=self._hashed, sealed=self._sealed, damaged=tuple(damaged))

    def _look(self, fd: int, digest: Digest) -> str:
        """What is wrong with the open file, or ""; closes it."""
        try:
            name = (digest, os.fstat(fd).st_ino)
            age = self._seals.age(fd, digest)
            if age is not None and age < self._due.total_seconds() * SECOND and name not in self._before:
                self._sealed += 1
                return ""
            verity.enable(fd)
            self._hashed += 1
            try:
                found = self._seals.hash(fd, digest, on_disk=True)
                detail = "" if found == digest else f"on the disk it is {found}"
            except OSError as error:
                self._seals.drop(digest)
                detail = f"cannot be read: {error.strerror}"
        finally:
            os.close(fd)
        # At once, not at the end: the next file may be one that takes minutes.
        self._list(name, changed=bool(detail))
        return detail

    def _list(self, name: FileName, *, changed: bool) -> None:
        if changed:
            self._changed.add(name)
        else:
            self._changed.discard(name)
        if self._changed != self._before:
            self._store.write_changed(self._changed)
            self._before = frozenset(self._changed)
