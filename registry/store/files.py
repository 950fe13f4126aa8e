"""The store in a folder: written beside, synced, renamed, and the folder synced (the default engine).

A file is complete once it has its name, so a crash leaves at most files in tmp/ and uploads/, which `expire`
drops. The last component of every path is opened with O_NOFOLLOW, and paths come from `keys.py` alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import io
import os
import secrets
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from ocispec.digest import Digest
from ocispec.errors import SpecError
from registry.errors import (
    BlobUnknownError,
    StorageError,
    StorageFullError,
    UploadBusyError,
    UploadUnknownError,
)
from registry.store import keys
from registry.store.hashing import CHUNK, RunningHashes, check_digest, verified
from registry.store.interface import StoredBlob, StoredDerived, Upload
from registry.store.keys import DerivedKey

if TYPE_CHECKING:
    from hashlib import _Hash

    from _typeshed import WriteableBuffer

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FILE_MODE: Final = 0o640
_WRITE_OUT: Final = 16 * 1024 * 1024
_SYNC_FILE_RANGE_WRITE: Final = 2  # linux/fs.h
_libc = ctypes.CDLL(None)
_libc.sync_file_range.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
_FOLDER_MODE: Final = 0o770


class FilesStore:
    """A `BlobStore` in the folder `root`, which web and judge processes may share."""

    def __init__(self, root: Path) -> None:
        """Use `root`, made if it is not there.

        Raises:
            StorageError: it cannot be made.
        """
        self._root = root
        self._hashes = RunningHashes()
        with _translated(f"store {root}"):
            for name in ("", "blobs", "uploads", "derived", "tmp"):
                self._folder(root / name)

    # Blobs

    def size(self, digest: Digest) -> int | None:
        """See `Blobs`."""
        with _translated(f"blob {digest}"):
            try:
                found = self._path(keys.blob_key(digest)).lstat()
            except FileNotFoundError:
                return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `Blobs`."""
        with _translated(f"blob {digest}"):
            try:
                file = _opened(self._path(keys.blob_key(digest)), os.O_RDONLY)
            except FileNotFoundError:
                raise BlobUnknownError(f"blob {digest}: not in the store") from None
            file.seek(start)
        return file if length is None else io.BufferedReader(_Window(file, length), CHUNK)

    def redirect(self, digest: Digest) -> str | None:
        """See `Blobs`: there is none."""
        return None

    def put(self, digest: Digest, chunks: Iterable[bytes], *, size: int | None = None) -> int:
        """See `Blobs`."""
        with self._written(keys.blob_key(digest), f"blob {digest}") as file:
            total = 0
            out = _WriteOut(file)
            for chunk in verified(chunks, digest, size):
                _write_all(file, chunk)
                total += len(chunk)
                out.reached(total)
        return total

    def delete(self, digest: Digest) -> bool:
        """See `Blobs`."""
        path = self._path(keys.blob_key(digest))
        with _translated(f"blob {digest}"):
            try:
                path.unlink()
            except FileNotFoundError:
                return False
            _sync_folder(path.parent)
        return True

    def digests(self) -> Iterator[Digest]:
        """See `Blobs`."""
        for found in self.listing():
            yield found.digest

    def listing(self) -> Iterator[StoredBlob]:
        """See `Blobs`."""
        for key, found in self._walk("blobs", 3):
            with suppress(SpecError):
                digest = keys.parse_blob_key(key)
                if digest is not None:
                    yield StoredBlob(digest, found.st_size, _changed(found))

    # Uploads

    def begin(self) -> Upload:
        """See `Uploads`."""
        upload = Upload(id=keys.new_upload_id(), digest=Digest.of(b""))
        path = self._path(keys.upload_key(upload.id))
        with _translated(f"upload {upload.id}"):
            path.parent.mkdir(mode=_FOLDER_MODE)
            _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL).close()
        return upload

    def append(self, upload: Upload, chunks: Iterable[bytes]) -> Upload:
        """See `Uploads`; two processes never write one session at a time, the file is locked."""
        with self._session(upload) as file, _translated(f"upload {upload.id}"):
            running = self._hashes.take(upload.id, upload.size) or _hash_file(file, upload.size, "sha256")
            file.seek(upload.size)
            size = upload.size
            out = _WriteOut(file, size)
            try:
                for chunk in chunks:
                    _write_all(file, chunk)
                    running.update(chunk)
                    size += len(chunk)
                    out.reached(size)
                # What the digest vouches for must be on the disk: a commit only compares it.
                os.fsync(file.fileno())
            except BaseException:
                # Room for others at once: on a full disk, even the record of this failure needs some.
                with suppress(OSError):
                    file.truncate(upload.size)
                raise
            self._hashes.keep(upload.id, size, running)
        return replace(upload, size=size, digest=Digest("sha256", running.hexdigest()))

    def commit(self, upload: Upload, digest: Digest) -> int:
        """See `Uploads`."""
        path = self._path(keys.upload_key(upload.id))
        with self._session(upload) as file, _translated(f"upload {upload.id}"):
            found = upload.digest
            if found is None or found.algorithm != digest.algorithm:
                found = Digest(digest.algorithm, _hash_file(file, upload.size, digest.algorithm).hexdigest())
            try:
                check_digest(found, digest)
            except Exception:
                self.cancel(upload.id)
                raise
            os.fsync(file.fileno())
            self._rename(path, keys.blob_key(digest))
        self.cancel(upload.id)
        return upload.size

    def cancel(self, upload_id: str) -> None:
        """See `Uploads`."""
        path = self._path(keys.upload_key(upload_id))
        self._hashes.forget(upload_id)
        with _translated(f"upload {upload_id}"):
            path.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                path.parent.rmdir()

    def expire(self, before: datetime) -> tuple[str, ...]:
        """See `Uploads`."""
        old = before.timestamp()
        dropped: list[str] = []
        with _translated("expired uploads"):
            for path in (self._root / "uploads").iterdir():
                if _last_change(path) < old:
                    with suppress(UploadUnknownError):
                        self.cancel(path.name)
                        dropped.append(path.name)
            for path in (self._root / "tmp").iterdir():
                if _last_change(path) < old:
                    path.unlink(missing_ok=True)
        return tuple(dropped)

    def growing_file(self, upload_id: str) -> Path | None:
        """See `Uploads`."""
        return self._path(keys.upload_key(upload_id))

    # Derived objects

    def put_derived(self, key: DerivedKey, content: bytes) -> None:
        """See `DerivedObjects`."""
        with self._written(keys.derived_key(key), f"derived object {key.subject} {key.name}") as file:
            _write_all(file, content)

    def get_derived(self, key: DerivedKey) -> bytes | None:
        """See `DerivedObjects`."""
        with _translated(f"derived object {key.subject} {key.name}"):
            try:
                with _opened(self._path(keys.derived_key(key)), os.O_RDONLY) as file:
                    return file.read()
            except FileNotFoundError:
                return None

    def delete_derived(self, key: DerivedKey) -> None:
        """See `DerivedObjects`."""
        with _translated(f"derived object {key.subject} {key.name}"):
            self._path(keys.derived_key(key)).unlink(missing_ok=True)

    def derived(self) -> Iterator[DerivedKey]:
        """See `DerivedObjects`."""
        for found in self.derived_listing():
            yield found.key

    def derived_listing(self) -> Iterator[StoredDerived]:
        """See `DerivedObjects`."""
        for key, found in self._walk("derived", 4):
            with suppress(SpecError, StorageError):
                derived = keys.parse_derived_key(key)
                if derived is not None:
                    yield StoredDerived(derived, found.st_size, _changed(found))

    def check(self) -> None:
        """See `BlobStore`."""
        with _translated(f"store {self._root}"):
            path = self._root / "tmp" / f"check-{secrets.token_hex(8)}"
            try:
                with _opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
                    file.write(b"pratique")
                    os.fsync(file.fileno())
            finally:
                path.unlink(missing_ok=True)

    # How

    def _path(self, key: str) -> Path:
        return self._root / key

    def _walk(self, key: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
        """The regular files so many folders below `key`, by key; what goes meanwhile is left out."""
        gone = suppress(FileNotFoundError, NotADirectoryError)
        with _translated(f"store {self._root}"), gone, os.scandir(self._root / key) as entries:
            for entry in entries:
                below = f"{key}/{entry.name}"
                if depth > 1:
                    if entry.is_dir(follow_symlinks=False):
                        yield from self._walk(below, depth - 1)
                    continue
                with suppress(FileNotFoundError):
                    found = entry.stat(follow_symlinks=False)
                    if stat.S_ISREG(found.st_mode):
                        yield below, found

    def _folder(self, path: Path) -> None:
        """Make a folder whose name is on the disk before anything is put in it."""
        try:
            path.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            return
        except FileNotFoundError:
            self._folder(path.parent)
            self._folder(path)
            return
        _sync_folder(path.parent)

    def _rename(self, path: Path, key: str) -> None:
        target = self._path(key)
        self._folder(target.parent)
        path.rename(target)
        _sync_folder(target.parent)

    @contextmanager
    def _written(self, key: str, what: str) -> Iterator[io.FileIO]:
        """A new file that gets its name when the block ends, and is removed when the block raises."""
        path = self._root / "tmp" / secrets.token_hex(16)
        with _translated(what):
            try:
                with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as file:
                    yield file
                    os.fsync(file.fileno())
                self._rename(path, key)
            except BaseException:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
                raise

    @contextmanager
    def _session(self, upload: Upload) -> Iterator[io.FileIO]:
        """A session's file, locked and cut to what was acknowledged."""
        what = f"upload {upload.id}"
        with _translated(what):
            try:
                file = _opened(self._path(keys.upload_key(upload.id)), os.O_RDWR)
            except FileNotFoundError:
                raise UploadUnknownError(f"{what}: not known") from None
        with file:
            with _translated(what):
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UploadBusyError(f"{what}: another request is sending to it") from None
                held = os.fstat(file.fileno()).st_size
                if held < upload.size:
                    raise UploadUnknownError(f"{what}: holds {held} bytes, {upload.size} were acknowledged")
                file.truncate(upload.size)
            yield file


class _WriteOut:
    """Has the kernel begin to write a file to the disk while more of it comes, so that the sync at its end is short.

    Nothing rests on it: what it starts, `fsync` waits for, and what it cannot start, `fsync` does.
    """

    def __init__(self, file: io.FileIO, size: int = 0) -> None:
        self._descriptor, self._begun = file.fileno(), size

    def reached(self, size: int) -> None:
        """The file has that many bytes now."""
        if size - self._begun >= _WRITE_OUT:
            _libc.sync_file_range(self._descriptor, self._begun, size - self._begun, _SYNC_FILE_RANGE_WRITE)
            self._begun = size


class _Window(io.RawIOBase):
    """A file that ends after `length` bytes."""

    def __init__(self, file: io.FileIO, length: int) -> None:
        self._file = file
        self._left = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")[: self._left]
        count = self._file.readinto(view)
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def _opened(path: Path, flags: int) -> io.FileIO:
    return io.FileIO(os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC, _FILE_MODE), "r+" if flags & 3 else "r")


def _write_all(file: io.FileIO, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        view = view[file.write(view) :]


def _hash_file(file: io.FileIO, size: int, algorithm: str) -> _Hash:
    running = hashlib.new(algorithm)
    file.seek(0)
    while size:
        chunk = file.read(min(CHUNK, size))
        if not chunk:
            raise StorageError(f"store: a file ended {size} bytes early while it was hashed")
        running.update(chunk)
        size -= len(chunk)
    return running


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _changed(found: os.stat_result) -> datetime:
    """When a file got its name or its bytes: a rename dates only the inode (rename(2))."""
    return datetime.fromtimestamp(max(found.st_ctime, found.st_mtime), UTC)


def _last_change(path: Path) -> float:
    for candidate in (path / "data", path):
        with suppress(FileNotFoundError, NotADirectoryError):
            return candidate.lstat().st_mtime
    return time.time()


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The one place where this engine's errors become ours."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(f"{what}: no room left in the store ({error.strerror})") from error
        raise StorageError(f"{what}: {error.strerror or error}") from error
