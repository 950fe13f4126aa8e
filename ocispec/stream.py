"""A stream made of chunks: what sources of bytes have in common."""

from __future__ import annotations

from abc import abstractmethod

from ocispec.verify import CHUNK, Stream


class ChunkStream(Stream):
    """A read-only stream whose subclasses say how to get at most `size` bytes (more than 0); `b""` is the end."""

    @abstractmethod
    def chunk(self, size: int) -> bytes:
        """The next bytes, at most `size`; empty at the end."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes; all that is left if it is negative or None."""
        if size is None or size < 0:
            return b"".join(iter(lambda: self.chunk(CHUNK), b""))
        return self.chunk(size) if size else b""

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # every writable buffer is a memoryview's source
        """Like `read`, into `buffer`."""
        view = memoryview(buffer).cast("B")
        chunk = self.read(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)
