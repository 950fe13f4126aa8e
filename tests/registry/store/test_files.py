"""The contract on the files engine, and what only files can get wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ocispec.digest import Digest
from registry.errors import StorageError, UploadBusyError, UploadUnknownError
from registry.store import keys
from registry.store.files import FilesStore
from registry.store.interface import BlobStore
from tests.registry.store.contract.whole import StoreContract
from tests.support.tools import need, need_root


@pytest.fixture
def store(tmp_path: Path) -> FilesStore:
    """A store in a new folder."""
    return FilesStore(tmp_path / "store")


class TestFiles(StoreContract):
    """The contract."""

    @pytest.fixture
    def another(self, tmp_path: Path) -> Callable[[], BlobStore]:
        """A store on the same folder, as in another process."""
        return lambda: FilesStore(tmp_path / "store")


def test_r3_a_symlink_in_place_of_a_blob_is_not_followed(store: FilesStore, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host")
    digest = Digest.of(b"of the host")
    path = tmp_path / "store" / keys.blob_key(digest)
    path.parent.mkdir(parents=True)
    path.symlink_to(secret)
    assert store.size(digest) is None
    with pytest.raises(StorageError, match=str(digest)):
        store.open(digest)


def test_r3_a_symlink_in_place_of_a_session_is_not_followed(store: FilesStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"unchanged")
    upload = store.begin()
    growing = store.growing_file(upload.id)
    assert growing is not None
    growing.unlink()
    growing.symlink_to(victim)
    with pytest.raises(StorageError, match=upload.id):
        store.append(upload, [b"over it"])
    assert victim.read_bytes() == b"unchanged"


def test_two_requests_never_write_one_session_at_a_time(store: FilesStore, tmp_path: Path) -> None:
    upload = store.begin()
    other = FilesStore(tmp_path / "store")

    def chunks() -> list[bytes]:
        with pytest.raises(UploadBusyError, match="another request is sending to it"):
            other.append(upload, [b"interleaved"])
        return [b"mine"]

    done = store.append(upload, (chunk for part in [chunks] for chunk in part()))
    assert store.commit(done, Digest.of(b"mine")) == 4


def test_a_session_that_lost_acknowledged_bytes_is_not_known(store: FilesStore) -> None:
    upload = store.append(store.begin(), [b"acknowledged"])
    growing = store.growing_file(upload.id)
    assert growing is not None
    os.truncate(growing, 3)
    with pytest.raises(UploadUnknownError, match="holds 3 bytes, 12 were acknowledged"):
        store.commit(upload, Digest.of(b"acknowledged"))


@pytest.mark.root
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path) -> None:
    need_root()
    script = 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$1" -m tests.registry.store.full_disk "$0"'
    done = subprocess.run(
        [need("unshare"), "--mount", "--propagation", "private", "sh", "-c", script, tmp_path, sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_what_is_no_blob_in_the_folder_is_not_listed(store: FilesStore, tmp_path: Path) -> None:
    for name in ("blobs/sha256/ab/notes.txt", "blobs/md5/ab/abcd", f"blobs/sha256/cd/{'ab' * 32}", "derived/x/y/z/w"):
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert list(store.digests()) == []
    assert list(store.derived()) == []
