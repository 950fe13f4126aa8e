"""The store in a bucket of an S3-compatible engine.

A blob whose digest is known is sent to its own key, as a multipart upload that is completed only after the
digest was right. A session's bytes go to a multipart upload under uploads/ and are copied by the engine when
they are complete. Parts cannot be read before that, so what does not fill a part is kept as an object of its
own (the tail) until more comes, and a session that moved to another process is hashed at its commit.
At most one part is held in memory, and nothing on the local disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from ocispec.digest import Digest
from ocispec.errors import SpecError
from registry.errors import BlobMismatchError, BlobUnknownError, StorageError, UploadUnknownError
from registry.settings_storage import S3Settings
from registry.store import keys
from registry.store.hashing import CHUNK, RunningHashes, check_digest, verified
from registry.store.interface import StoredBlob, StoredDerived, Upload
from registry.store.keys import DerivedKey
from registry.store.s3_bucket import Bucket, Unfinished
from registry.store.s3_engine import Engine


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What `Upload.parts` holds: the multipart upload's id, its parts' tags in order, and the tail's bytes."""

    multipart: str = ""
    tags: tuple[str, ...] = ()
    tail: int = 0

    @classmethod
    def parse(cls, text: str) -> _Parts:
        if not text:
            return cls()
        multipart, tags, tail = json.loads(text)  # our own text, from the catalogue
        return cls(multipart=multipart, tags=tuple(tags), tail=tail)

    def __str__(self) -> str:
        return json.dumps([self.multipart, self.tags, self.tail])


class S3Store:
    """A `BlobStore` in a bucket, which many registries may share."""

    def __init__(self, settings: S3Settings, engine: Engine | None = None) -> None:
        """Use the bucket of `settings`; nothing is sent before the first call.

        Raises:
            StorageError: the settings name no engine that can be asked.
        """
        self._bucket = Bucket(settings, engine)
        self._redirects = settings.redirects
        self._hashes = RunningHashes()

    # Blobs

    def size(self, digest: Digest) -> int | None:
        """See `Blobs`."""
        return self._bucket.size(keys.blob_key(digest))

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `Blobs`."""
        try:
            return self._bucket.open(keys.blob_key(digest), start=start, length=length)
        except BlobUnknownError:
            raise BlobUnknownError(f"blob {digest}: not in the store") from None

    def put(self, digest: Digest, chunks: Iterable[bytes], *, size: int | None = None) -> int:
        """See `Blobs`."""
        with self._bucket.sender(keys.blob_key(digest)) as sender:
            try:
                for chunk in verified(chunks, digest, size):
                    sender.write(chunk)
                return sender.finish()
            except BaseException:
                sender.abort()
                raise

    def redirect(self, digest: Digest) -> str | None:
        """See `Blobs`."""
        if not self._redirects:
            return None
        return self._bucket.presigned(keys.blob_key(digest), seconds=self._redirects)

    def delete(self, digest: Digest) -> bool:
        """See `Blobs`."""
        there = self.size(digest) is not None
        self._bucket.delete(keys.blob_key(digest))
        return there

    def digests(self) -> Iterator[Digest]:
        """See `Blobs`."""
        for found in self.listing():
            yield found.digest

    def listing(self) -> Iterator[StoredBlob]:
        """See `Blobs`."""
        for found in self._bucket.list("blobs/"):
            with suppress(SpecError):
                digest = keys.parse_blob_key(found.key)
                if digest is not None:
                    yield StoredBlob(digest, found.size, found.changed)

    # Uploads

    def begin(self) -> Upload:
        """See `Uploads`; the engine hears of a session with its first bytes."""
        return Upload(id=keys.new_upload_id(), digest=Digest.of(b""))

    def append(self, upload: Upload, chunks: Iterable[bytes]) -> Upload:
        """See `Uploads`."""
        parts = _Parts.parse(upload.parts)
        running = self._hashes.take(upload.id, upload.size)
        size = upload.size
        with self._bucket.sender(keys.upload_key(upload.id), parts.multipart, parts.tags) as sender:
            sender.write(self._tail(upload, parts))
            for chunk in chunks:
                sender.write(chunk)
                size += len(chunk)
                if running is not None:
                    running.update(chunk)
            tail = sender.rest()
            if tail:
                # Named by where it ends: the tail that the catalogue knows stays whole until it knows this one.
                self._bucket.put(keys.tail_key(upload.id, size), tail)
        if running is not None:
            self._hashes.keep(upload.id, size, running)
        return replace(
            upload,
            size=size,
            digest=Digest("sha256", running.hexdigest()) if running is not None else None,
            parts=str(_Parts(multipart=sender.multipart, tags=tuple(sender.tags), tail=len(tail))),
        )

    def commit(self, upload: Upload, digest: Digest) -> int:
        """See `Uploads`."""
        parts = _Parts.parse(upload.parts)
        try:
            if parts.multipart:
                self._commit_parts(upload, parts, digest)
            else:
                self.put(digest, [self._tail(upload, parts)], size=upload.size)
        except BlobMismatchError:
            self.cancel(upload.id)
            raise
        self._hashes.forget(upload.id)
        with suppress(StorageError):
            # The blob is there: what is left of the session is for `expire`.
            self._drop_objects(upload.id)
        return upload.size

    def cancel(self, upload_id: str) -> None:
        """See `Uploads`."""
        self._hashes.forget(upload_id)
        for found in self._bucket.unfinished(keys.upload_key(upload_id)):
            self._bucket.sender(found.key, found.multipart).abort()
        self._drop_objects(upload_id)

    def expire(self, before: datetime) -> tuple[str, ...]:
        """See `Uploads`."""
        newest: dict[str, datetime] = {}
        for found in self._bucket.list("uploads/"):
            _note(newest, found.key, found.changed)
        for unfinished in self._bucket.unfinished("uploads/"):
            _note(newest, unfinished.key, self._last_change(unfinished, before))
        for unfinished in self._bucket.unfinished("blobs/"):
            if self._last_change(unfinished, before) < before:
                self._bucket.sender(unfinished.key, unfinished.multipart).abort()
        dropped: list[str] = []
        for upload_id, changed in newest.items():
            if changed < before:
                with suppress(UploadUnknownError):
                    self.cancel(upload_id)
                    dropped.append(upload_id)
        return tuple(dropped)

    def growing_file(self, upload_id: str) -> Path | None:
        """See `Uploads`: there is none."""
        keys.check_upload_id(upload_id)
        return None

    # Derived objects

    def put_derived(self, key: DerivedKey, content: bytes) -> None:
        """See `DerivedObjects`."""
        self._bucket.put(keys.derived_key(key), content)

    def get_derived(self, key: DerivedKey) -> bytes | None:
        """See `DerivedObjects`."""
        return self._bucket.read(keys.derived_key(key))

    def delete_derived(self, key: DerivedKey) -> None:
        """See `DerivedObjects`."""
        self._bucket.delete(keys.derived_key(key))

    def derived(self) -> Iterator[DerivedKey]:
        """See `DerivedObjects`."""
        for found in self.derived_listing():
            yield found.key

    def derived_listing(self) -> Iterator[StoredDerived]:
        """See `DerivedObjects`."""
        for found in self._bucket.list("derived/"):
            with suppress(SpecError, StorageError):
                key = keys.parse_derived_key(found.key)
                if key is not None:
                    yield StoredDerived(key, found.size, found.changed)

    def check(self) -> None:
        """See `BlobStore`."""
        self._bucket.put("tmp/check", b"pratique")
        if self._bucket.read("tmp/check") != b"pratique":
            raise StorageError("store: the bucket does not give back what was just written to it")

    # How

    def _tail(self, upload: Upload, parts: _Parts) -> bytes:
        if not parts.tail:
            return b""
        tail = self._bucket.read(keys.tail_key(upload.id, upload.size))
        if tail is None or len(tail) != parts.tail:
            raise UploadUnknownError(f"upload {upload.id}: its last {parts.tail} bytes are gone")
        return tail

    def _commit_parts(self, upload: Upload, parts: _Parts, digest: Digest) -> None:
        known = upload.digest if upload.digest is not None and upload.digest.algorithm == digest.algorithm else None
        if known is not None:
            check_digest(known, digest)
        key = keys.upload_key(upload.id)
        with self._bucket.sender(key, parts.multipart, parts.tags) as sender:
            sender.write(self._tail(upload, parts))
            try:
                sender.finish()
            except (StorageError, UploadUnknownError):
                # A commit that died after this step: its object is there, and is hashed as any unknown one.
                # Engines differ in how they answer for a multipart upload that is over.
                known = None
                if self._bucket.size(key) != upload.size:
                    raise
        if known is None:
            check_digest(self._hashed(key, digest.algorithm), digest)
        self._bucket.copy(key, keys.blob_key(digest), upload.size)

    def _last_change(self, found: Unfinished, before: datetime) -> datetime:
        """When it got its newest part, which is asked for only where it matters: one request for each upload."""
        return self._bucket.last_change(found) if found.begun < before else found.begun

    def _hashed(self, key: str, algorithm: str) -> Digest:
        running = hashlib.new(algorithm)
        with self._bucket.open(key) as stream:
            while chunk := stream.read(CHUNK):
                running.update(chunk)
        return Digest(algorithm, running.hexdigest())

    def _drop_objects(self, upload_id: str) -> None:
        self._bucket.delete(*[found.key for found in self._bucket.list(keys.upload_prefix(upload_id))])


def _note(newest: dict[str, datetime], key: str, changed: datetime) -> None:
    upload_id = key.split("/")[1]
    newest[upload_id] = max(changed, newest.get(upload_id, changed))
