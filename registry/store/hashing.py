"""Hashes of unfinished uploads, kept in this process while a session goes on.

hashlib's state cannot be stored, so a session that comes back to another process, or after a restart, is
hashed from its beginning again (or, where its bytes cannot be read yet, at its commit).
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from ocispec.digest import Digest
from registry.errors import BlobMismatchError

if TYPE_CHECKING:
    from hashlib import _Hash

CHUNK: Final = 1024 * 1024
"""Bytes that are read from a store at a time."""

MAX_SESSIONS: Final = 1024
"""Sessions whose hash is kept; the oldest is forgotten, and hashed again if it comes back."""


class RunningHashes:
    """SHA-256 states by session, each with the number of bytes that it has seen; for many threads."""

    def __init__(self) -> None:
        """Start with none."""
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[int, _Hash]] = OrderedDict()

    def take(self, upload_id: str, size: int) -> _Hash | None:
        """The hash of the first `size` bytes of a session, now the caller's alone, or None if it is not here."""
        with self._lock:
            found = self._known.pop(upload_id, None)
        if size == 0:
            return hashlib.sha256()
        return found[1] if found is not None and found[0] == size else None

    def keep(self, upload_id: str, size: int, running: _Hash) -> None:
        """Keep a hash that has seen `size` bytes."""
        with self._lock:
            self._known[upload_id] = (size, running)
            while len(self._known) > MAX_SESSIONS:
                self._known.popitem(last=False)

    def forget(self, upload_id: str) -> None:
        """The session is over."""
        with self._lock:
            self._known.pop(upload_id, None)


def verified(chunks: Iterable[bytes], digest: Digest, size: int | None = None) -> Iterator[bytes]:
    """Pass `chunks` on, and raise at their end unless they have `digest` (and `size` bytes).

    Raises:
        BlobMismatchError: as above; or as soon as there are more than `size` bytes.
    """
    running = hashlib.new(digest.algorithm)
    total = 0
    for chunk in chunks:
        running.update(chunk)
        total += len(chunk)
        if size is not None and total > size:
            raise BlobMismatchError(f"blob {digest}: size mismatch: got more than {size} bytes")
        yield chunk
    if size is not None and total != size:
        raise BlobMismatchError(f"blob {digest}: size mismatch: got {total} bytes, want {size}")
    check_digest(Digest(digest.algorithm, running.hexdigest()), digest)


def check_digest(found: Digest, wanted: Digest) -> None:
    """Raise BlobMismatchError unless both are the same."""
    if found != wanted:
        raise BlobMismatchError(f"blob {wanted}: digest mismatch: got {found}, want {wanted}")
