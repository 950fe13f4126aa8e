"""Advisory data: what was uploaded becomes the one snapshot file that all matching reads.

Uploads lie in `incoming/` by their digest; the catalogue says which are current. The import runs in a process of its
own, because it takes as long as the data are large, and puts the new snapshot in place of the old one at its end.
"""

from __future__ import annotations

# zipfile decodes names by this codec and finds it when it first meets one; the user that imports may not be able to
# read the interpreter's files, so it is loaded while root still reads them.
import encodings.cp437
import os
import shutil
import signal
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, select, update

from ocispec.digest import Digest
from registry.catalogue.schema import advisories
from registry.errors import RegistryError
from registry.processes import die_with_parent
from scanner.advisories.build import import_sources
from scanner.advisories.sources import Source, SourceKind
from scanner.advisories.store import AdvisoryStore
from scanner.errors import ScanError

SNAPSHOT: Final = "snapshot"
"""The kind of an upload that is a whole snapshot file, made elsewhere."""

KINDS: Final = (*(str(kind) for kind in SourceKind), SNAPSHOT)


_LOADED: Final = (encodings.cp437,)


class ImportFailedError(RegistryError):
    """The uploaded advisory data cannot be used; the snapshot before it stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvisoryFolder:
    """Where advisory data lie."""

    root: Path

    @property
    def snapshot(self) -> Path:
        """The snapshot in use."""
        return self.root / "snapshot.sqlite"

    def incoming(self, digest: Digest, kind: str) -> Path:
        """Where an upload lies; OSV exports are zips."""
        suffix = {"osv": ".zip", SNAPSHOT: ".sqlite"}.get(kind, ".json")
        return self.root / "incoming" / f"{digest.hex}{suffix}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload that is current."""

    digest: Digest
    kind: str
    name: str
    imported: datetime


def current_uploads(conn: Connection) -> tuple[Upload, ...]:
    """The uploads to import: the newest snapshot alone, if nothing is newer, else all sources."""
    rows = conn.execute(select(advisories).where(advisories.c.current).order_by(advisories.c.imported)).all()
    uploads = [Upload(digest=row.digest, kind=row.kind, name=row.name, imported=row.imported) for row in rows]
    if uploads and uploads[-1].kind == SNAPSHOT:
        return (uploads[-1],)
    return tuple(upload for upload in uploads if upload.kind != SNAPSHOT)


def begin_import(folder: AdvisoryFolder, uploads: tuple[Upload, ...], *, now: datetime) -> int:
    """Import in a child process, and return its pid; it exits with 0 if the snapshot was replaced.

    Called by a process with one thread.

    Raises:
        OSError: no process could be made.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        status = _import(folder, uploads, now)
    except BaseException as error:  # a forked child never returns into its parent's code
        os.write(2, f"advisory import: {type(error).__name__}: {error}\n".encode("utf-8", "replace"))
    finally:
        os._exit(status)


def _import(folder: AdvisoryFolder, uploads: tuple[Upload, ...], now: datetime) -> int:
    try:
        if uploads and uploads[0].kind == SNAPSHOT:
            _copy(folder.incoming(uploads[0].digest, SNAPSHOT), folder.snapshot, uploads[0].digest)
        else:
            sources = [
                Source(kind=SourceKind(each.kind), name=each.name, path=folder.incoming(each.digest, each.kind))
                for each in uploads
            ]
            import_sources(sources, folder.snapshot, now=now)
    except (ScanError, OSError) as error:
        os.write(2, f"advisory import: {error}\n".encode("utf-8", "replace"))
        return 2
    return 0


def _copy(source: Path, target: Path, digest: Digest) -> None:
    AdvisoryStore.open(source, digest=digest).close()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with source.open("rb") as incoming, partial.open("wb") as outgoing:
            shutil.copyfileobj(incoming, outgoing)
            outgoing.flush()
            os.fsync(outgoing.fileno())
        partial.chmod(0o644)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def record_import(conn: Connection, folder: AdvisoryFolder) -> None:
    """Write what the snapshot says of its sources into the catalogue.

    Raises:
        ScanError: there is no snapshot, or it cannot be read.
    """
    with AdvisoryStore.open(folder.snapshot) as store:
        for source in store.sources:
            conn.execute(
                update(advisories)
                .where(advisories.c.name == source.name, advisories.c.current)
                .values(records=source.records, date=datetime.fromisoformat(source.date))
            )
