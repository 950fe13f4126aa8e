"""Which files of the store were found changed beneath the file system: `<store>/changed`, a line each.

A line is the digest that the file should have, and its inode number: what is fetched anew has another inode, and is
believed again, while what was mounted from the old one is still told apart. Only runtime.rehash writes it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from ocispec.digest import Digest
from ocispec.errors import SpecError
from runtime.errors import StoreError
from runtime.ownfiles import read_owned, replace_file

MAX_CHANGED: Final = 16 * 1024 * 1024
FileName = tuple[Digest, int]
"""The digest that a file should have, and its inode number."""


def read_changed(path: Path) -> frozenset[FileName]:
    """The files that were found changed; none if there never were any.

    Raises:
        StoreError: the list is damaged, or others could have written it.
    """
    if not path.exists():
        return frozenset()
    what = f"list of changed files {path}"
    found = set()
    try:
        for line in read_owned(path, limit=MAX_CHANGED, what=what).decode().splitlines():
            digest, _, inode = line.partition(" ")
            found.add((Digest.parse(digest), int(inode)))
    except (SpecError, ValueError) as error:
        raise StoreError(f"{what}: damaged: {error}") from None
    return frozenset(found)


def write_changed(path: Path, files: Iterable[FileName]) -> None:
    """Keep the list.

    Raises:
        StoreError: e.g. the disk is full; the former one is still there.
    """
    replace_file(path, "".join(sorted(f"{digest} {inode}\n" for digest, inode in files)).encode())
