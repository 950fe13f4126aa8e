"""The storage seam: blobs by digest, upload sessions, and derived objects by key.

Three small protocols make one `BlobStore`. What an implementation promises, and the contract suite checks:

- A blob is visible only once it is whole, verified against its digest, and durable (files: fsync of the file
  and of its folder; S3: the engine's answer). A process killed at any point leaves no visible half.
- Nothing relies on conditional PUT: blobs are content-addressed, so two writers of one key write the same.
- An `Upload` is a value. Its record is kept by the caller (the catalogue's `uploads` table), which also sees
  to it that only one request at a time appends to a session. What was written beyond `Upload.size`, by a
  request that died, is overwritten by the next append.
- hashlib's state cannot move between processes. The digest so far is in the value; a store that cannot
  continue it leaves None there, and `commit` reads the bytes once more.
- Memory stays bounded: chunks are passed on as they come, at most one S3 part is held.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from ocispec.digest import Digest
from registry.store.keys import DerivedKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """How far an upload session has come; `size` in bytes.

    `digest` is the SHA-256 of the first `size` bytes, or None where it is not known. `parts` is the store's own
    record (S3: multipart id, part tags and the length of the tail), text that nobody else reads.
    """

    id: str
    size: int = 0
    digest: Digest | None = None
    parts: str = ""


class StoredBlob(NamedTuple):
    """A blob as the store lists it.

    `changed` (aware, UTC) is when its bytes were put there last, by the clock of the machine that keeps them. An
    engine may date a large object by when its upload began, so what came within `http.body_deadline` may look as old.
    """

    digest: Digest
    size: int
    changed: datetime


class StoredDerived(NamedTuple):
    """A derived object as the store lists it; `changed` as for `StoredBlob`."""

    key: DerivedKey
    size: int
    changed: datetime


class Blobs(Protocol):
    """Content by digest."""

    def size(self, digest: Digest) -> int | None:
        """The size of a blob in bytes, or None if it is not there."""

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """A stream of `length` bytes of a blob from `start` on (None: to its end); close it, or use `with`.

        Raises:
            BlobUnknownError: it is not there.
            StorageError: the engine failed.
        """

    def redirect(self, digest: Digest) -> str | None:
        """An address that gives the blob, for a minute at most, to whoever knows it; None: `open` is the only way.

        Whether the blob is there is not looked at.
        """

    def put(self, digest: Digest, chunks: Iterable[bytes], *, size: int | None = None) -> int:
        """Store a blob, hashing while it is written, and return its size; nothing is kept if it does not match.

        Raises:
            BlobMismatchError: the bytes have another digest, or not `size` bytes.
            StorageFullError, StorageError: the engine failed.
        """

    def delete(self, digest: Digest) -> bool:
        """Remove a blob; False if it was not there. Whether anybody still needs it is the caller's to know."""

    def digests(self) -> Iterator[Digest]:
        """The digests of all blobs, in no order."""

    def listing(self) -> Iterator[StoredBlob]:
        """All blobs, in no order; one that comes or goes meanwhile may be in it or not.

        Raises:
            StorageError: the engine failed; what was listed so far is no complete list.
        """


class Uploads(Protocol):
    """Blobs whose digest is not known before the last byte."""

    def begin(self) -> Upload:
        """Start a session with a new unguessable id."""

    def append(self, upload: Upload, chunks: Iterable[bytes]) -> Upload:
        """Write `chunks` after the first `upload.size` bytes; returns the session as it is then.

        A cut-off body ends the iterable early: what came is kept. An iterable that raises keeps nothing.

        Raises:
            UploadUnknownError: the session's bytes are gone.
            StorageFullError, StorageError: the engine failed; the session still stands at `upload.size`.
        """

    def commit(self, upload: Upload, digest: Digest) -> int:
        """Make the session's bytes the blob `digest`, and return its size; the session is over.

        Raises:
            BlobMismatchError: the bytes have another digest; the session is dropped.
            UploadUnknownError: the session's bytes are gone.
            StorageFullError, StorageError: the engine failed.
        """

    def cancel(self, upload_id: str) -> None:
        """Drop a session and its bytes; one that is not there is no error."""

    def expire(self, before: datetime) -> tuple[str, ...]:
        """Drop all sessions, and all that dead requests left half-written, last written to before `before`.

        Returns the ids of the sessions.
        """

    def growing_file(self, upload_id: str) -> Path | None:
        """Where the bytes of a session can be read while they arrive, or None if the store has no such file."""


class DerivedObjects(Protocol):
    """What was made from content, and can be made again: entries and facts of layers, root indexes, evidence."""

    def put_derived(self, key: DerivedKey, content: bytes) -> None:
        """Store an object, replacing it as a whole.

        Raises:
            StorageFullError, StorageError: the engine failed.
        """

    def get_derived(self, key: DerivedKey) -> bytes | None:
        """The object's bytes, or None if there is none; not verified, so the caller checks what it reads."""

    def delete_derived(self, key: DerivedKey) -> None:
        """Remove an object; one that is not there is no error."""

    def derived(self) -> Iterator[DerivedKey]:
        """The keys of all derived objects, in no order."""

    def derived_listing(self) -> Iterator[StoredDerived]:
        """All derived objects; as `Blobs.listing`."""


class BlobStore(Blobs, Uploads, DerivedObjects, Protocol):
    """All of a registry's bytes."""

    def check(self) -> None:
        """Prove that the store can be written and read (at start, and for readiness).

        Raises:
            StorageError: it cannot, and why.
        """
