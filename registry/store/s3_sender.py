"""Sending one object as it comes: in parts of the same size but for the last one, of which one is held."""

from __future__ import annotations

import threading
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from registry.errors import StorageError, TooLargeError, TooManyRequestsError, UploadUnknownError
from registry.settings_storage import S3Settings
from registry.store.s3_engine import Engine, EngineError


class PartMemory:
    """How many parts one process holds in memory at a time; for many threads."""

    def __init__(self, settings: S3Settings) -> None:
        """As many as `memory` has room for."""
        self._wait = settings.deadline
        self._free: Final = threading.BoundedSemaphore(settings.memory // settings.part_size)

    def take(self) -> None:
        """Take room for a part, when there is some.

        Raises:
            TooManyRequestsError: there was none for too long.
        """
        if not self._free.acquire(timeout=self._wait):
            raise TooManyRequestsError("too many uploads at a time: no room for another part (storage.s3.memory)")

    def give_back(self) -> None:
        """Give it back."""
        self._free.release()


class Sender:
    """Sends one object; use it with `with`, which gives back the room for a part.

    An object that fits in one part is sent by a single PutObject. Nothing is visible before `finish`.
    """

    def __init__(
        self,
        engine: Engine,
        key: str,
        settings: S3Settings,
        memory: PartMemory,
        *,
        made_with: dict[str, str],
        multipart: str = "",
        tags: tuple[str, ...] = (),
    ) -> None:
        """Begin, or go on with a multipart upload of that id, whose parts have those tags.

        `made_with` are the parameters of what makes the object: its encryption.
        """
        self._engine = engine
        self._key = key
        self._part_size = settings.part_size
        self._max_parts = settings.max_parts
        self._memory = memory
        self._made_with = made_with
        self._rest = bytearray()
        self._holds = False
        self._sent = 0
        self.multipart = multipart
        self.tags = list(tags)

    def __enter__(self) -> Self:
        """Nothing is held yet."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hold nothing any more."""
        self._rest = bytearray()
        if self._holds:
            self._holds = False
            self._memory.give_back()

    def write(self, chunk: bytes) -> None:
        """Take bytes, and send what fills a part.

        Raises:
            TooLargeError: there are more than so many parts hold.
            TooManyRequestsError: no room for a part came free in time.
            StorageError: the engine failed.
        """
        if chunk and not self._holds:
            self._memory.take()
            self._holds = True
        view = memoryview(chunk)
        self._sent += len(chunk)
        while len(self._rest) + len(view) >= self._part_size:
            room = self._part_size - len(self._rest)
            self._rest += view[:room]
            view = view[room:]
            self._send()
        self._rest += view

    def rest(self) -> bytes:
        """What does not fill a part yet."""
        return bytes(self._rest)

    def send_copy(self, origin: dict[str, str], start: int, end: int) -> None:
        """Let the engine make the next part from bytes `start` to `end` (not included) of another object."""
        self._begin()
        source = {"CopySource": origin, "CopySourceRange": f"bytes={start}-{end - 1}"}
        part = {**self._next_part(), **source}
        answer = self._engine.call("upload_part_copy", part, size=end - start, patient=True)
        self.tags.append(str(answer["CopyPartResult"]["ETag"]))

    def finish(self) -> int:
        """Send the rest and make the object visible; returns the bytes that were written here.

        Raises:
            UploadUnknownError: the multipart upload is not known to the engine: completed or aborted before.
            StorageError: the engine failed.
        """
        if not self.multipart:
            one = {"Key": self._key, "Body": self._rest, **self._made_with}
            self._engine.call("put_object", one, size=len(self._rest))
            return self._sent
        if self._rest:
            self._send()
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in enumerate(self.tags, start=1)]
        whole = {"Key": self._key, "UploadId": self.multipart, "MultipartUpload": {"Parts": parts}}
        size = len(parts) * self._part_size
        try:
            self._engine.call("complete_multipart_upload", whole, size=size, patient=True)
        except EngineError as error:
            raise _unknown(error) from error
        return self._sent

    def abort(self) -> None:
        """Drop what was sent; an engine that fails at this too leaves it to `expire`."""
        if self.multipart:
            with suppress(StorageError):
                self._engine.call("abort_multipart_upload", {"Key": self._key, "UploadId": self.multipart})

    def _begin(self) -> None:
        if not self.multipart:
            answer = self._engine.call("create_multipart_upload", {"Key": self._key, **self._made_with})
            self.multipart = str(answer["UploadId"])

    def _next_part(self) -> dict[str, object]:
        if len(self.tags) >= self._max_parts:
            raise TooLargeError(
                f"{self._key}: got more than {self._max_parts} parts of {self._part_size} bytes "
                "(storage.s3.max_parts, storage.s3.part_size)"
            )
        return {"Key": self._key, "UploadId": self.multipart, "PartNumber": len(self.tags) + 1}

    def _send(self) -> None:
        self._begin()
        part = {**self._next_part(), "Body": self._rest}
        try:
            answer = self._engine.call("upload_part", part, size=len(self._rest))
        except EngineError as error:
            raise _unknown(error) from error
        self.tags.append(str(answer["ETag"]))
        self._rest.clear()


def _unknown(error: EngineError) -> StorageError | UploadUnknownError:
    if error.code == "NoSuchUpload":
        return UploadUnknownError(f"{error}: completed or dropped before")
    return error
