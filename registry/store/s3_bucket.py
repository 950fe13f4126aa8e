"""Objects of a bucket under a prefix: what `s3.py` needs of an engine.

Conditional requests are not used: engines differ in whether they know them. Where they differ otherwise (Swift: 1,000
parts at most, a multipart upload completed twice is no error, no encryption), that is said at the place.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, BinaryIO, Final, NamedTuple

from registry.errors import BlobUnknownError, StorageError
from registry.settings_storage import S3Settings
from registry.store.hashing import CHUNK
from registry.store.s3_engine import BotoEngine, Engine, EngineError
from registry.store.s3_sender import PartMemory, Sender
from registry.store.s3_stream import Answer, ObjectStream

MAX_COPY: Final = 5 * 2**30
"""Bytes that one CopyObject or one UploadPartCopy may copy."""

MAX_READ: Final = 2**30
"""Bytes of an object that is read as a whole."""

_GONE: Final = frozenset({"404", "NoSuchKey", "NotFound"})


class Listed(NamedTuple):
    """An object as the engine lists it: size in bytes, time of its last change in UTC."""

    key: str
    size: int
    changed: datetime


class Unfinished(NamedTuple):
    """A multipart upload that was not completed."""

    key: str
    multipart: str
    begun: datetime


class Bucket:
    """One bucket under one prefix; for many threads."""

    def __init__(self, settings: S3Settings, engine: Engine | None = None, *, max_copy: int = MAX_COPY) -> None:
        """Use `engine`, without one that of the settings; nothing is sent yet.

        Raises:
            StorageError: the settings name no engine that can be asked.
        """
        self._settings = settings
        self._engine = engine if engine is not None else BotoEngine(settings)
        self._memory = PartMemory(settings)
        self._max_copy = max_copy

    def size(self, key: str) -> int | None:
        """The size of an object, or None if there is none."""
        try:
            return int(self._engine.call("head_object", {"Key": self._full(key)})["ContentLength"])
        except EngineError as error:
            if error.code in _GONE:
                return None
            raise

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """A stream of an object, or of a part of it.

        Raises:
            BlobUnknownError: there is none.
        """
        if length == 0:
            return io.BytesIO()
        end = None if length is None else start + length
        try:
            first = self._get(key, start, end)
        except EngineError as error:
            if error.code == "InvalidRange":
                return io.BytesIO()
            raise
        stream = ObjectStream(
            lambda at, until: self._get(key, at, until),
            first,
            what=key,
            start=start,
            allowance=self._engine.allowance(),
            rate=self._settings.minimum_rate,
        )
        return io.BufferedReader(stream, CHUNK)

    def read(self, key: str) -> bytes | None:
        """A whole object of at most MAX_READ bytes, or None if there is none."""
        try:
            with self.open(key) as stream:
                content = stream.read(MAX_READ + 1)
        except BlobUnknownError:
            return None
        if len(content) > MAX_READ:
            raise StorageError(f"{key}: expected at most {MAX_READ} bytes")
        return content

    def put(self, key: str, content: bytes) -> None:
        """Store an object as a whole.

        Raises:
            StorageError: the engine failed, or did not encrypt it as it was told.
        """
        parameters = {"Key": self._full(key), "Body": content, **self._encryption()}
        answer = self._engine.call("put_object", parameters, size=len(content))
        wanted, got = self._settings.encryption, answer.get("ServerSideEncryption", "none")
        if wanted not in {"none", got}:
            raise StorageError(f"{key}: the engine did not encrypt it: got {got}, want {wanted}")

    def delete(self, *found: str) -> None:
        """Remove objects; one that is not there is no error."""
        for key in found:
            try:
                self._engine.call("delete_object", {"Key": self._full(key)})
            except EngineError as error:
                if error.code not in _GONE:
                    raise

    def list(self, prefix: str) -> Iterator[Listed]:
        """The objects under `prefix`."""
        at = {"Prefix": self._full(prefix)}
        for page in self._pages("list_objects_v2", at, {"NextContinuationToken": "ContinuationToken"}):
            for item in page.get("Contents", []):
                yield Listed(self._short(item["Key"]), item["Size"], item["LastModified"])

    def copy(self, source: str, target: str, size: int) -> None:
        """Copy an object of `size` bytes inside the bucket; the engine does it."""
        origin = {"Bucket": self._settings.bucket, "Key": self._full(source)}
        if size <= self._max_copy:
            parameters = {"Key": self._full(target), "CopySource": origin, **self._encryption()}
            self._engine.call("copy_object", parameters, size=size, patient=True)
            return
        with self.sender(target) as sender:
            try:
                for start in range(0, size, self._max_copy):
                    sender.send_copy(origin, start, min(start + self._max_copy, size))
                sender.finish()
            except BaseException:
                sender.abort()
                raise

    def sender(self, key: str, multipart: str = "", tags: tuple[str, ...] = ()) -> Sender:
        """What sends an object in parts, begun now or (with its id and tags) earlier."""
        return Sender(
            self._engine,
            self._full(key),
            self._settings,
            self._memory,
            made_with=self._encryption(),
            multipart=multipart,
            tags=tags,
        )

    def unfinished(self, prefix: str) -> Iterator[Unfinished]:
        """The multipart uploads under `prefix` that were not completed."""
        markers = {"NextKeyMarker": "KeyMarker", "NextUploadIdMarker": "UploadIdMarker"}
        for page in self._pages("list_multipart_uploads", {"Prefix": self._full(prefix)}, markers):
            for item in page.get("Uploads", []):
                yield Unfinished(self._short(item["Key"]), item["UploadId"], item["Initiated"])

    def last_change(self, found: Unfinished) -> datetime:
        """When a multipart upload got its newest part."""
        newest = found.begun
        parameters = {"Key": self._full(found.key), "UploadId": found.multipart}
        try:
            for page in self._pages("list_parts", parameters, {"NextPartNumberMarker": "PartNumberMarker"}):
                newest = max([newest, *(part["LastModified"] for part in page.get("Parts", []))])
        except EngineError as error:
            if error.code != "NoSuchUpload":  # completed or dropped meanwhile
                raise
        return newest

    def presigned(self, key: str, *, seconds: int) -> str:
        """An address of an object, good for so many seconds."""
        return self._engine.presigned(self._full(key), seconds=seconds)

    def _get(self, key: str, start: int, end: int | None) -> Answer:
        """Ask for the bytes from `start` to `end` (not included; None: all that there are)."""
        wanted: dict[str, str] = {}
        if start or end is not None:
            wanted["Range"] = f"bytes={start}-" + ("" if end is None else str(end - 1))
        try:
            found = self._engine.call("get_object", {"Key": self._full(key), **wanted})
        except EngineError as error:
            if error.code in _GONE:
                raise BlobUnknownError(f"{key}: not in the store") from None
            raise
        given = str(found.get("ContentRange", ""))
        if wanted and not given.startswith(f"bytes {start}-"):
            found["Body"].close()
            raise StorageError(f"{key}: the engine gave {given[:80] or 'all of it'}, asked for {wanted['Range']}")
        return Answer(body=found["Body"], length=int(found["ContentLength"]), tag=str(found.get("ETag", "")))

    def _pages(
        self, operation: str, parameters: Mapping[str, object], markers: Mapping[str, str]
    ) -> Iterator[dict[str, Any]]:
        """The answers to a listing, each asked for with the `markers` of the one before it."""
        asked = dict(parameters)
        while True:
            page = self._engine.call(operation, asked)
            yield page
            if not page.get("IsTruncated"):
                return
            following = {name: page[given] for given, name in markers.items() if page.get(given)}
            if not following or following.items() <= asked.items():
                raise StorageError(f"{operation}: the engine's list does not go on where its last page ended")
            asked |= following

    def _encryption(self) -> dict[str, str]:
        if self._settings.encryption == "none":
            return {}
        found = {"ServerSideEncryption": self._settings.encryption}
        return found | ({"SSEKMSKeyId": self._settings.kms_key} if self._settings.kms_key else {})

    def _full(self, key: str) -> str:
        return self._settings.prefix + key

    def _short(self, key: str) -> str:
        return key.removeprefix(self._settings.prefix)
