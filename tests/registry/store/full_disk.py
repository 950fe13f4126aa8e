"""Run by test_files.py in a mount namespace of its own, in a folder of 3 MiB: what a store does when it is full."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ocispec.digest import Digest
from registry.errors import StorageFullError
from registry.store.files import FilesStore
from registry.store.keys import DerivedKey


def main(folder: Path) -> None:
    """Fill the store three ways; each time nothing may be left but what was acknowledged."""
    store = FilesStore(folder / "store")
    content = os.urandom(4 * 2**20)
    with pytest.raises(StorageFullError, match="no room left in the store"):
        store.put(Digest.of(content), [content])
    upload = store.append(store.begin(), [b"fits"])
    with pytest.raises(StorageFullError, match=upload.id):
        store.append(upload, [content])
    with pytest.raises(StorageFullError, match="listing"):
        store.put_derived(DerivedKey(Digest.of(b""), "listing"), content)
    assert list(store.digests()) == []
    assert list((folder / "store" / "tmp").iterdir()) == []
    assert store.commit(upload, Digest.of(b"fits")) == 4


if __name__ == "__main__":
    main(Path(sys.argv[1]))
