"""Bytes are bounded and hashed while they are read, never after.

`VerifyingReader` stands between whoever reads a blob and where it comes from: the last byte is handed out
only after size and digest were found right, so nobody can finish reading something else. `Digester` is
the hash behind it, in a thread of its own where that pays: hashlib lets go of the interpreter's lock.
"""

from __future__ import annotations

import hashlib
import io
import os
import queue
import threading
from collections.abc import Callable
from typing import BinaryIO, Final

from ocispec.digest import Digest
from ocispec.errors import DigestMismatchError

CHUNK: Final = 1024 * 1024
"""Bytes read at once where the caller does not say: two threads hand over the interpreter at each chunk."""

_WORTH_A_THREAD: Final = 128 * 1024
"""A chunk from which on a thread pays: starting one costs as much as hashing some 100 KiB."""

_WAITING: Final = 8
"""Chunks handed to the thread and not yet hashed, at most."""


class Stream(io.RawIOBase, BinaryIO):
    """A read-only binary stream; subclasses implement `readinto` or `read`, and inherit the rest."""

    def readable(self) -> bool:
        """Always true."""
        return True


class Digester:
    """Hashes chunks in order and, with `copy_to`, writes them there, in a thread as soon as one is large.

    `feed` returns before the chunk was hashed: it must not change until `after` is called. An error of
    `copy_to` is raised by a later `feed` or by `hexdigest`. `close` ends the thread, and must be called.
    """

    def __init__(self, algorithm: str, *, copy_to: BinaryIO | None = None, threaded: bool = True) -> None:
        self._hash = hashlib.new(algorithm)
        self._copy_to = copy_to
        self._may_thread = threaded and len(os.sched_getaffinity(0)) > 1
        self._thread: threading.Thread | None = None
        self._queue: queue.Queue[tuple[bytes | memoryview, Callable[[], None] | None] | None] = queue.Queue(_WAITING)
        self._error: BaseException | None = None

    def feed(self, chunk: bytes | memoryview, after: Callable[[], None] | None = None) -> None:
        """Hash (and copy) `chunk`, then call `after`, perhaps from the thread."""
        if self._thread is None:
            if not self._may_thread or len(chunk) < _WORTH_A_THREAD:
                self._take(chunk)
                if after is not None:
                    after()
                return
            self._thread = threading.Thread(target=self._work, name="digest", daemon=True)
            self._thread.start()
        self._raise()
        self._queue.put((chunk, after))

    def hexdigest(self) -> str:
        """Wait for all that was fed, end the thread, and return the digest."""
        self.close()
        self._raise()
        return self._hash.hexdigest()

    def close(self) -> None:
        """End the thread; nothing may be fed afterwards. May be called again."""
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()
            self._thread, self._may_thread = None, False

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _take(self, chunk: bytes | memoryview) -> None:
        self._hash.update(chunk)
        if self._copy_to is not None:
            rest = memoryview(chunk)
            while rest:
                # A raw file may take less than it was given.
                rest = rest[self._copy_to.write(rest) :]

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            chunk, after = job
            if self._error is None:
                try:
                    self._take(chunk)
                except BaseException as error:  # handed to the caller's thread, which raises it
                    self._error = error
            if after is not None:
                after()


class VerifyingReader(Stream):
    """The bytes of `source`, which must be `size` bytes that hash to `digest`; `what` names them in errors.

    The read that reaches `size` checks that the source ends there and that the digest is right, before
    it returns. Closing closes the source.

    Raises:
        DigestMismatchError: from `read` and `readinto`: too short, too long, or another digest.
    """

    def __init__(self, source: BinaryIO, *, digest: Digest, size: int, what: str, threaded: bool = False) -> None:
        super().__init__()
        self._source = source
        self._digest = digest
        self._size = size
        self._what = what
        self._done = 0
        self._verified = False
        self._digester = Digester(digest.algorithm, threaded=threaded)

    @property
    def verified(self) -> bool:
        """True once all bytes were read and found right."""
        return self._verified

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes, all that is left if it is negative or None; empty at the end."""
        if size is None or size < 0:
            return self.readall()
        if self._verified or size == 0:
            return b""
        # One byte more than is left, so that a source that goes on is noticed here.
        chunk = self._source.read(min(size, self._size - self._done + 1)) or b""
        self._done += len(chunk)
        if self._done > self._size:
            raise DigestMismatchError(f"{self._what}: size mismatch: got more than {self._size} bytes")
        self._digester.feed(chunk)
        if not chunk or self._done == self._size:
            self._check(at_end=not chunk)
        return chunk

    def readall(self) -> bytes:
        """All that is left."""
        chunks = []
        while chunk := self.read(CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # every writable buffer is a memoryview's source
        """Like `read`, into `buffer`."""
        view = memoryview(buffer).cast("B")
        chunk = self.read(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)

    def release(self) -> None:
        """End the hash's thread and close this reader, but leave the source open."""
        self._digester.close()
        super().close()

    def close(self) -> None:
        """Close the source too."""
        if not self.closed:
            self._source.close()
            self.release()

    def _check(self, *, at_end: bool) -> None:
        if not at_end and self._source.read(1):
            raise DigestMismatchError(f"{self._what}: size mismatch: got more than {self._size} bytes")
        if self._done != self._size:
            raise DigestMismatchError(f"{self._what}: size mismatch: got {self._done}, want {self._size}")
        if (found := self._digester.hexdigest()) != self._digest.hex:
            raise DigestMismatchError(
                f"{self._what}: digest mismatch: got {self._digest.algorithm}:{found}, want {self._digest}"
            )
        self._verified = True
