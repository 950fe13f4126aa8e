"""A lease on a digest, held while its bytes are put into the store: the collector leaves them alone (ADR 0110).

    with leases.held(digest, why="push") as lease:
        size = store.put(digest, chunks)
        with catalogue.write() as conn:
            add_blob(conn, repository, digest, size, by=..., now=..., lease=lease)   # ends it

A digest that is being deleted right now is waited for: its deletion takes moments, and ends by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from ocispec.digest import Digest
from registry.catalogue.database import Catalogue
from registry.catalogue.leases import Lease, add_lease, end_lease, renew_lease
from registry.errors import BlobBusyError, RegistryError

LEASE: Final = timedelta(minutes=15)
"""How long a lease holds without being renewed, and longer for what is large."""

SLOWEST: Final = 4 * 1024 * 1024
"""Bytes a second that a store hashes and copies at the least, while nothing can renew a lease."""

PATIENCE: Final = 20.0
"""Seconds that somebody who wants to store a digest waits for its deletion."""

_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 0.5


class Leases:
    """Takes, renews and gives up leases; for many threads."""

    def __init__(
        self,
        catalogue: Catalogue,
        clock: Callable[[], datetime],
        *,
        patience: float = PATIENCE,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`pause` waits for some seconds."""
        self._catalogue, self._clock, self._patience, self._pause = catalogue, clock, patience, pause

    def end_of(self, size: int = 0) -> datetime:
        """When a lease that is taken or renewed now ends; `size` bytes are to be hashed or copied under it."""
        return self._clock() + LEASE + timedelta(seconds=size / SLOWEST)

    def try_take(self, conn: Connection, digest: Digest, *, why: str, size: int = 0) -> Lease | None:
        """Take a lease in the caller's writing transaction; None while the digest is being deleted."""
        return add_lease(conn, digest, why=why, until=self.end_of(size))

    def take(self, digest: Digest, *, why: str, size: int = 0) -> Lease:
        """Take a lease, waiting while the digest is being deleted.

        Raises:
            BlobBusyError: it still is.
        """
        waited, pause = 0.0, _FIRST_PAUSE
        while True:
            with self._catalogue.write(durable=False) as conn:
                lease = self.try_take(conn, digest, why=why, size=size)
            if lease is not None:
                return lease
            if waited >= self._patience:
                raise BlobBusyError(f"blob {digest}: has been in deletion for {waited:.0f} s; to be sent again later")
            self._pause(pause)
            waited, pause = waited + pause, min(pause * 2, _LONGEST_PAUSE)

    def renew(self, lease: Lease, *, size: int = 0) -> None:
        """Go on holding a lease.

        Raises:
            LeaseLostError: it is over.
        """
        with self._catalogue.write(durable=False) as conn:
            renew_lease(conn, lease, until=self.end_of(size))

    def end(self, lease: Lease) -> None:
        """Give a lease up under which nothing was stored, or nothing that counts; one that is over is no error."""
        with suppress(RegistryError), self._catalogue.write(durable=False) as conn:
            end_lease(conn, lease)

    @contextmanager
    def held(self, digest: Digest, *, why: str, size: int = 0) -> Iterator[Lease]:
        """A lease that is given up if the block fails; if not, the block has recorded the blob with it.

        Raises:
            BlobBusyError: the digest is being deleted, and that does not end.
        """
        lease = self.take(digest, why=why, size=size)
        try:
            yield lease
        except BaseException:
            self.end(lease)
            raise
