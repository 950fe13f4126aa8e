"""Which advisory data a judge matches by: the snapshot that the catalogue names, in a copy of its own.

Of all judges on a catalogue the one that has the job imports what was handed in, puts the snapshot into the store, and
names it in the catalogue; the others fetch it. A judge whose copy is another judges nothing meanwhile: two registries
never decide by different data. Copies go through a thread, and the import is forked while no thread runs.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, update

from ocispec.digest import Digest
from registry.catalogue.advisories import (
    Current,
    current_uploads,
    newest_records,
    note_import,
    note_newest,
    snapshot_in_use,
    use_snapshot,
)
from registry.catalogue.database import Catalogue
from registry.catalogue.leases import Lease, hold_digest
from registry.catalogue.schema import advisories
from registry.collect.leases import Leases
from registry.errors import RegistryError
from registry.judge.importing import AdvisoryFolder, ImportProcess, begin_import
from registry.store.hashing import CHUNK
from registry.store.interface import Blobs
from scanner.advisories.store import AdvisoryStore, file_digest
from scanner.errors import ScanError

RETRY_SECONDS: Final = 5.0
"""How long a copy that failed is left alone."""

_log = logging.getLogger("pratique.judge")


@dataclass(slots=True)
class _Copy:
    """A copy under way in a thread of its own."""

    action: Callable[[], None]
    error: str = ""
    thread: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.thread = threading.Thread(target=self._run, name="advisory copy", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.action()
        except (RegistryError, ScanError, OSError) as error:
            self.error = str(error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """How an import ended: the snapshot made, its size in bytes and the lease on it, or why there is none."""

    snapshot: Digest | None
    size: int
    error: str
    lease: Lease | None = None


class Advising:
    """The advisory data of one judge. One thread; `step` is called by whoever owns it."""

    def __init__(
        self, *, folder: AdvisoryFolder, store: Blobs, catalogue: Catalogue, clock: Callable[[], datetime]
    ) -> None:
        """`folder` has the copies; nothing is read yet."""
        self.folder, self._store, self._catalogue, self._clock = folder, store, catalogue, clock
        self._copy: _Copy | None = None
        self._fetching = False
        self._importing: ImportProcess | None = None
        self._uploads: tuple[Current, ...] = ()
        self._newest: dict[str, str] = {}
        self._made: tuple[Digest, int] | None = None
        self._leases = Leases(catalogue, clock)
        self._lease: Lease | None = None
        self._not_before = 0.0

    # ---- the snapshot in use -----------------------------------------------------------------------------------

    def current(self, conn: Connection) -> bool:
        """True if the copy is the snapshot that the catalogue names; else `step` sees to it."""
        wanted = snapshot_in_use(conn)
        if wanted is None:
            return True
        try:
            have = self.folder.digest()
        except ScanError as error:
            _log.error("%s", error)
            have = None
        if have == wanted:
            return True
        self._fetch(wanted)
        return False

    def publish(self, conn: Connection) -> None:
        """Have the catalogue name the copy that an earlier release left here, if it names none (`conn` writes)."""
        with suppress(ScanError):
            have = self.folder.digest()
            if have is not None and snapshot_in_use(conn) is None:
                hold_digest(conn, have)
                size = self._put(self.folder.snapshot, have)
                use_snapshot(conn, have, size, now=self._clock())

    def _fetch(self, wanted: Digest) -> None:
        if self._copy is not None or self._importing is not None or time.monotonic() < self._not_before:
            return
        _log.info("advisory data: fetching snapshot %s", wanted)
        self._fetching = True

        def fetch() -> None:
            partial = self._get(wanted)
            try:
                AdvisoryStore.open(partial, digest=wanted).close()
                partial.replace(self.folder.snapshot)
            finally:
                partial.unlink(missing_ok=True)

        self._copy = _Copy(fetch)

    # ---- an import -------------------------------------------------------------------------------------------------

    @property
    def importing(self) -> bool:
        """True while an import goes on."""
        return bool(self._uploads)

    @property
    def busy(self) -> bool:
        """True while anything goes on."""
        return self.importing or self._copy is not None

    def begin(self) -> bool:
        """Begin to import what is current; False if nothing is."""
        with self._catalogue.read() as conn:
            self._uploads, self._newest = current_uploads(conn), newest_records(conn)
        return bool(self._uploads)

    def step(self) -> Imported | None:
        """Go on; how the import ended, once it has."""
        if self._copy is not None and not self._copy.thread.is_alive():
            done, self._copy = self._copy, None
            if self._fetching:
                self._end_fetch(done)
            elif done.error:
                return self._ended(error=done.error)
            elif self._made is not None:
                return self._ended(made=self._made)
            else:
                self._importing = begin_import(self.folder, self._uploads, newest=self._newest, now=self._clock())
        if self._importing is not None:
            return self._look_after_import(self._importing)
        if self._uploads and self._copy is None:
            self._copy = _Copy(self._get_uploads)
        return None

    def record(self, conn: Connection, ended: Imported) -> None:
        """Write into the catalogue how an import ended."""
        if ended.snapshot is None:
            note_import(conn, "failed", at=self._clock(), detail=ended.error)
            return
        use_snapshot(conn, ended.snapshot, ended.size, now=self._clock(), lease=ended.lease)
        note_import(conn, "imported", at=self._clock())
        with AdvisoryStore.open(self.folder.snapshot) as store:
            note_newest(conn, store.newest)
            for source in store.sources:
                conn.execute(
                    update(advisories)
                    .where(advisories.c.name == source.name, advisories.c.current)
                    .values(records=source.records, date=datetime.fromisoformat(source.date))
                )

    def _end_fetch(self, done: _Copy) -> None:
        self._fetching = False
        if done.error:
            _log.error("advisory data: %s", done.error)
            self._not_before = time.monotonic() + RETRY_SECONDS

    def _look_after_import(self, process: ImportProcess) -> Imported | None:
        said = process.ended()
        if said is None:
            return None
        self._importing = None
        if said:
            return self._ended(error=said)
        try:
            self._made = (file_digest(self.folder.made), self.folder.made.stat().st_size)
        except (ScanError, OSError) as error:
            return self._ended(error=str(error))
        digest, _ = self._made

        def put() -> None:
            self._lease = self._leases.take(digest, why="advisories", size=self.folder.made.stat().st_size)
            self._put(self.folder.made, digest)
            self.folder.made.chmod(0o640)
            self.folder.made.replace(self.folder.snapshot)

        self._copy = _Copy(put)
        return None

    def _ended(self, *, error: str = "", made: tuple[Digest, int] | None = None) -> Imported:
        keep = {self.folder.incoming(digest, kind) for digest, kind, *_ in self._uploads}
        for path in (self.folder.root / "incoming").iterdir():
            if path not in keep:
                path.unlink(missing_ok=True)
        lease, self._lease = self._lease, None
        self._uploads, self._made = (), None
        digest, size = made if made is not None else (None, 0)
        return Imported(snapshot=digest, size=size, error=error, lease=lease)

    def _get_uploads(self) -> None:
        for digest, kind, *_ in self._uploads:
            target = self.folder.incoming(digest, kind)
            if not target.exists():
                self._get(digest).replace(target)

    # ---- copies ----------------------------------------------------------------------------------------------------

    def _get(self, digest: Digest) -> Path:
        """A copy of a blob in the folder, under a name of its own; its digest is checked.

        Raises:
            StorageError, OSError: it cannot be had.
            ScanError: it has another digest.
        """
        partial = self.folder.root / f".{digest.hex}.{os.getpid()}"
        with self._store.open(digest) as source, partial.open("wb") as target:
            while chunk := source.read(CHUNK):
                target.write(chunk)
            target.flush()
            os.fsync(target.fileno())
        found = file_digest(partial)
        if found != digest:
            partial.unlink()
            raise ScanError(f"advisory data {digest}: the store gave {found}")
        return partial

    def _put(self, path: Path, digest: Digest) -> int:
        """Put a file into the store as a blob, if it is not there; its size."""
        size = path.stat().st_size
        if self._store.size(digest) != size:
            with path.open("rb") as file:
                self._store.put(digest, iter(lambda: file.read(CHUNK), b""), size=size)
        return size
