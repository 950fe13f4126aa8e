"""A store whose calls are timed, counted where the engine failed, and spans where traces are sent."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, TypeVar

from ocispec.digest import Digest
from registry.errors import StorageError
from registry.store.interface import BlobStore, StoredBlob, StoredDerived, Upload
from registry.store.keys import DerivedKey
from registry.telemetry import metrics, traces

OPERATIONS: Final = (
    *("size", "open", "put", "delete", "begin", "append", "commit", "cancel"),
    *("put_derived", "get_derived", "delete_derived", "check"),
)
"""What is timed, by the names of `BlobStore`; what lists the store takes as long as whoever reads the list."""

P = ParamSpec("P")
R = TypeVar("R")


class MeasuredStore:
    """A `BlobStore` in front of another."""

    def __init__(self, store: BlobStore) -> None:
        """Pass all calls on to `store`."""
        self._store = store
        # Found once: to look a histogram up by its labels costs more than to observe.
        self._observe = {name: metrics.STORE_SECONDS.labels(name).observe for name in OPERATIONS}

    def size(self, digest: Digest) -> int | None:
        """See `BlobStore`."""
        return self._call("size", self._store.size, digest)

    def open(self, digest: Digest, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See `BlobStore`."""
        return self._call("open", self._store.open, digest, start=start, length=length)

    def redirect(self, digest: Digest) -> str | None:
        """See `BlobStore`."""
        return self._store.redirect(digest)

    def put(self, digest: Digest, chunks: Iterable[bytes], *, size: int | None = None) -> int:
        """See `BlobStore`."""
        return self._call("put", self._store.put, digest, chunks, size=size)

    def delete(self, digest: Digest) -> bool:
        """See `BlobStore`."""
        return self._call("delete", self._store.delete, digest)

    def digests(self) -> Iterator[Digest]:
        """See `BlobStore`."""
        return self._store.digests()

    def listing(self) -> Iterator[StoredBlob]:
        """See `BlobStore`."""
        return self._store.listing()

    def begin(self) -> Upload:
        """See `BlobStore`."""
        return self._call("begin", self._store.begin)

    def append(self, upload: Upload, chunks: Iterable[bytes]) -> Upload:
        """See `BlobStore`."""
        return self._call("append", self._store.append, upload, chunks)

    def commit(self, upload: Upload, digest: Digest) -> int:
        """See `BlobStore`."""
        return self._call("commit", self._store.commit, upload, digest)

    def cancel(self, upload_id: str) -> None:
        """See `BlobStore`."""
        self._call("cancel", self._store.cancel, upload_id)

    def expire(self, before: datetime) -> tuple[str, ...]:
        """See `BlobStore`."""
        return self._store.expire(before)

    def growing_file(self, upload_id: str) -> Path | None:
        """See `BlobStore`."""
        return self._store.growing_file(upload_id)

    def put_derived(self, key: DerivedKey, content: bytes) -> None:
        """See `BlobStore`."""
        self._call("put_derived", self._store.put_derived, key, content)

    def get_derived(self, key: DerivedKey) -> bytes | None:
        """See `BlobStore`."""
        return self._call("get_derived", self._store.get_derived, key)

    def delete_derived(self, key: DerivedKey) -> None:
        """See `BlobStore`."""
        self._call("delete_derived", self._store.delete_derived, key)

    def derived(self) -> Iterator[DerivedKey]:
        """See `BlobStore`."""
        return self._store.derived()

    def derived_listing(self) -> Iterator[StoredDerived]:
        """See `BlobStore`."""
        return self._store.derived_listing()

    def check(self) -> None:
        """See `BlobStore`."""
        self._call("check", self._store.check)

    def _call(self, name: str, function: Callable[P, R], *args: P.args, **named: P.kwargs) -> R:
        began = time.perf_counter()
        try:
            with traces.span(f"store {name}"):
                return function(*args, **named)
        except StorageError as error:
            metrics.STORE_ERRORS.labels(name, type(error).__name__).inc()
            raise
        finally:
            self._observe[name](time.perf_counter() - began)
