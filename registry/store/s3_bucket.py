"""A bucket of an S3-compatible engine: what `s3.py` needs of boto3, with its errors turned into ours.

Names of operations and of error codes are those of the S3 API reference. Conditional requests are not used:
engines differ in whether they know them.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from urllib3.exceptions import HTTPError

from registry.errors import BlobUnknownError, StorageError, StorageFullError, UploadUnknownError
from registry.settings_storage import S3Settings
from registry.store.hashing import CHUNK

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_COPY: Final = 5 * 2**30
"""Bytes that one CopyObject or one UploadPartCopy may copy."""

MAX_PARTS: Final = 10_000
"""Parts of one multipart upload."""

_GONE: Final = frozenset({"404", "NoSuchKey", "NotFound"})
_FULL: Final = frozenset({"507", "InsufficientStorage", "QuotaExceeded", "EntityTooLarge"})


class Listed(NamedTuple):
    """An object as the engine lists it: size in bytes, time of its last change in UTC."""

    key: str
    size: int
    changed: datetime


class Bucket:
    """One bucket under one prefix; for many threads."""

    def __init__(self, settings: S3Settings) -> None:
        """Make the client; nothing is sent yet."""
        self._name = settings.bucket
        self._prefix = settings.prefix
        self._part_size = settings.part_size
        self._client: Any = boto3.client(
            "s3",
            endpoint_url=settings.endpoint or None,
            region_name=settings.region,
            aws_access_key_id=settings.access_key,
            aws_secret_access_key=settings.secret_key,
            verify=str(settings.ca_file) if settings.ca_file is not None else None,
            config=Config(
                connect_timeout=min(10, settings.timeout),
                read_timeout=settings.timeout,
                retries={"mode": "standard", "total_max_attempts": 4},
                s3={"addressing_style": settings.addressing},
                max_pool_connections=64,
                # Other engines do not know the newer trailing checksums, and our digests check more than they do.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def size(self, key: str) -> int | None:
        """The size of an object, or None if there is none."""
        with _translated(key):
            try:
                return int(self._client.head_object(**self._at(key))["ContentLength"])
            except ClientError as error:
                if _code(error) in _GONE:
                    return None
                raise

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """A stream of an object, or of a part of it.

        Raises:
            BlobUnknownError: there is none.
        """
        if length == 0:
            return io.BytesIO()
        wanted: dict[str, str] = {}
        if start or length is not None:
            wanted["Range"] = f"bytes={start}-" + ("" if length is None else str(start + length - 1))
        with _translated(key):
            try:
                found = self._client.get_object(**self._at(key), **wanted)
            except ClientError as error:
                if _code(error) == "InvalidRange":
                    return io.BytesIO()
                if _code(error) in _GONE:
                    raise BlobUnknownError(f"{key}: not in the store") from None
                raise
        return io.BufferedReader(_Body(found["Body"], key), CHUNK)

    def read(self, key: str) -> bytes | None:
        """A whole small object, or None if there is none."""
        try:
            with self.open(key) as stream:
                return stream.read()
        except BlobUnknownError:
            return None

    def put(self, key: str, content: bytes) -> None:
        """Store a small object as a whole."""
        with _translated(key):
            self._client.put_object(**self._at(key), Body=content)

    def delete(self, *found: str) -> None:
        """Remove objects; one that is not there is no error."""
        for key in found:
            with _translated(key):
                self._client.delete_object(**self._at(key))

    def list(self, prefix: str) -> Iterator[Listed]:
        """The objects under `prefix`."""
        with _translated(prefix):
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=self._name, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    yield Listed(item["Key"].removeprefix(self._prefix), item["Size"], item["LastModified"])

    def copy(self, source: str, target: str, size: int) -> None:
        """Copy an object of `size` bytes inside the bucket; the engine does it."""
        origin = {"Bucket": self._name, "Key": self._prefix + source}
        with _translated(target):
            if size <= MAX_COPY:
                self._client.copy_object(**self._at(target), CopySource=origin)
                return
            sender = self.sender(target)
            try:
                for start in range(0, size, MAX_COPY):
                    end = min(start + MAX_COPY, size) - 1
                    sender.send_copy(origin, f"bytes={start}-{end}")
                sender.finish()
            except BaseException:
                sender.abort()
                raise

    def sender(self, key: str, multipart: str = "", tags: tuple[str, ...] = ()) -> Sender:
        """What sends an object in parts, begun now or (with its id and tags) earlier."""
        return Sender(self._client, self._at(key), self._part_size, multipart, tags)

    def unfinished(self, prefix: str) -> Iterator[tuple[str, str, datetime]]:
        """The multipart uploads under `prefix` that were not completed: key, id, time of the newest part."""
        with _translated(prefix):
            pages = self._client.get_paginator("list_multipart_uploads")
            for page in pages.paginate(Bucket=self._name, Prefix=self._prefix + prefix):
                for item in page.get("Uploads", []):
                    key = item["Key"].removeprefix(self._prefix)
                    yield key, item["UploadId"], self._newest_part(key, item["UploadId"]) or item["Initiated"]

    def _newest_part(self, key: str, multipart: str) -> datetime | None:
        newest: datetime | None = None
        pages = self._client.get_paginator("list_parts")
        for page in pages.paginate(**self._at(key), UploadId=multipart):
            for part in page.get("Parts", []):
                newest = max(part["LastModified"], newest or part["LastModified"])
        return newest

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._name, "Key": self._prefix + key}


class Sender:
    """Sends one object as it comes, in parts of the same size but for the last one.

    An object that fits in one part is sent by a single PutObject. Nothing is visible before `finish`.
    """

    def __init__(
        self, client: Any, at: dict[str, str], part_size: int, multipart: str = "", tags: tuple[str, ...] = ()
    ) -> None:
        """Begin, or go on with a multipart upload of that id, whose parts have those tags."""
        self._client = client
        self._at = at
        self._part_size = part_size
        self._rest = bytearray()
        self._sent = 0
        self.multipart = multipart
        self.tags = list(tags)

    def write(self, chunk: bytes) -> None:
        """Take bytes, and send what fills a part."""
        self._rest += chunk
        self._sent += len(chunk)
        while len(self._rest) >= self._part_size:
            part = bytes(memoryview(self._rest)[: self._part_size])
            del self._rest[: self._part_size]
            self._send(part)

    def rest(self) -> bytes:
        """What does not fill a part yet."""
        return bytes(self._rest)

    def send_copy(self, origin: dict[str, str], byte_range: str) -> None:
        """Let the engine make the next part from a range of another object."""
        with _translated(self._at["Key"]):
            self._begin()
            answer = self._client.upload_part_copy(
                **self._at,
                UploadId=self.multipart,
                PartNumber=len(self.tags) + 1,
                CopySource=origin,
                CopySourceRange=byte_range,
            )
            self.tags.append(answer["CopyPartResult"]["ETag"])

    def finish(self) -> int:
        """Send the rest and make the object visible; returns the bytes that were written here.

        Raises:
            UploadUnknownError: the multipart upload is not known to the engine: completed or aborted before.
        """
        with _translated(self._at["Key"]):
            if not self.multipart:
                self._client.put_object(**self._at, Body=bytes(self._rest))
                return self._sent
            if self._rest:
                self._send(bytes(self._rest))
            parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(self.tags, start=1)]
            self._client.complete_multipart_upload(
                **self._at, UploadId=self.multipart, MultipartUpload={"Parts": parts}
            )
        return self._sent

    def abort(self) -> None:
        """Drop what was sent; an engine that fails at this too leaves it to `expire`."""
        if self.multipart:
            try:
                self._client.abort_multipart_upload(**self._at, UploadId=self.multipart)
            except (ClientError, BotoCoreError):
                return

    def _begin(self) -> None:
        if not self.multipart:
            self.multipart = str(self._client.create_multipart_upload(**self._at)["UploadId"])

    def _send(self, part: bytes) -> None:
        with _translated(self._at["Key"]):
            if len(self.tags) == MAX_PARTS:
                raise StorageError(f"{self._at['Key']}: got more than {MAX_PARTS} parts of {self._part_size} bytes")
            self._begin()
            answer = self._client.upload_part(
                **self._at, UploadId=self.multipart, PartNumber=len(self.tags) + 1, Body=part
            )
            self.tags.append(str(answer["ETag"]))


class _Body(io.RawIOBase):
    """The body of an answer as a plain stream; closing it early gives up the connection."""

    def __init__(self, body: Any, what: str) -> None:
        self._body = body
        self._what = what

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        with _translated(self._what):
            chunk = self._body.read(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        self._body.close()
        super().close()


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


@contextmanager
def _translated(what: str) -> Iterator[None]:
    """The one place where boto3's errors become ours."""
    try:
        yield
    except ClientError as error:
        if _code(error) == "NoSuchUpload":
            raise UploadUnknownError(f"{what}: the engine does not know the multipart upload") from error
        if _code(error) in _FULL:
            raise StorageFullError(f"{what}: no room left in the store ({_code(error)})") from error
        raise StorageError(f"{what}: the engine answered {_code(error) or error}") from error
    except (BotoCoreError, HTTPError) as error:
        raise StorageError(f"{what}: {' '.join(str(error).split())[:300]}") from error
