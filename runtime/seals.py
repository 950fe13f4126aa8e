"""What was hashed once, and that nobody touched it since: how a start need not hash every layer again.

    seals = Seals(store.path / "seals")
    seals.prove([(fd, diff_id), …])        # the digests that the files have: by their seals, else hashed, and sealed

A seal says: when this file had this inode number, these times of change and modification, this size, and this measure
of fs-verity where the file system has that, its content had this digest. The file system changes the time of change
whenever anybody writes, and lets nobody set it, so a file that still has all five has that content: as long as it is
written by way of the file system. What is changed beneath it, on the disk, is found by hashing again: a seal counts for
`MAX_AGE`, and whoever renews it meanwhile (runtime.rehash) reads past the page cache.

Files and seals lie in folders that nobody but their owner can write; who can write a seal could as well replace the
host's `trust.json`. A seal that is damaged, lost, or of another time proves nothing, and the file is hashed.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocispec.digest import Digest
from ocispec.errors import LimitError
from runtime.errors import StoreError
from runtime.hashing import at_once, digest_of, digest_on_disk
from runtime.linux import verity
from runtime.ownfiles import read_owned, replace_file

SECOND: Final = 1_000_000_000
MAX_AGE: Final = 24 * 3600 * SECOND
"""Nanoseconds that a seal counts for after its file was hashed."""
QUIET: Final = 2 * SECOND
"""Nanoseconds that a file must not have changed for before it is hashed, if a seal is to come of it.

The clock that files are stamped with stands still between two ticks, and for up to two seconds on some file systems: a
change in the tick in which a file was hashed would leave the same time.
"""
MAX_SEAL: Final = 1024


@dataclass(frozen=True, slots=True)
class Seals:
    """The seals in `folder`; `clock` is that of the file system, in nanoseconds."""

    folder: Path
    clock: Callable[[], int] = time.time_ns

    def prove(self, files: Sequence[tuple[int, Digest]]) -> list[Digest]:
        """The digests that open files have; each is given with the one that it should have.

        Raises:
            OSError: one cannot be read.
        """
        sealed = [self.age(fd, digest) is not None for fd, digest in files]
        unsealed = [file for file, seal in zip(files, sealed, strict=True) if not seal]
        hashed = iter(at_once(lambda file: self.hash(*file), unsealed))
        return [digest if seal else next(hashed) for (_, digest), seal in zip(files, sealed, strict=True)]

    def age(self, fd: int, digest: Digest) -> int | None:
        """For how many nanoseconds a seal has said that the open file has this digest; None if none counts."""
        try:
            seal = read_owned(self._path(digest), limit=MAX_SEAL, what=f"seal {digest}")
        except (StoreError, LimitError):
            return None
        identity, _, hashed = seal.decode("ascii", "replace").removesuffix("\n").rpartition(" ")
        if identity != _identity(fd, digest) or not seal.endswith(b"\n"):
            return None
        try:
            age = self.clock() - int(hashed)
        except ValueError:
            return None
        return age if 0 <= age <= MAX_AGE else None

    def hash(self, fd: int, digest: Digest, *, on_disk: bool = False) -> Digest:
        """Read the open file, and seal it if it has this digest; `on_disk` reads past the page cache.

        Raises:
            OSError: it cannot be read.
        """
        began, before = self.clock(), _identity(fd, digest)
        found = (digest_on_disk if on_disk else digest_of)(fd, digest.algorithm)
        if found != digest:
            self.drop(digest)
        elif _identity(fd, digest) == before and os.fstat(fd).st_ctime_ns <= began - QUIET:
            # Not synchronised: a seal that is lost costs one hash, and one that is damaged is none.
            with contextlib.suppress(StoreError):
                replace_file(self._path(digest), f"{before} {began}\n".encode(), durable=False)
        return found

    def drop(self, digest: Digest) -> None:
        """Believe no seal of this file any more."""
        self._path(digest).unlink(missing_ok=True)

    def _path(self, digest: Digest) -> Path:
        return self.folder / digest.hex


def _identity(fd: int, digest: Digest) -> str:
    found = os.fstat(fd)
    facts = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size, verity.measure(fd) or "-")
    return " ".join(map(str, ("1", digest, *facts)))
