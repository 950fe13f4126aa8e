"""Making the snapshot that all matching reads, out of the advisory data that were handed in.

It takes as long as the data are large, so it runs in a process of its own, which says through a pipe how it ended.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from ocispec.digest import Digest
from registry.catalogue.advisories import SNAPSHOT, Current
from registry.processes import die_with_parent
from scanner.advisories.build import import_sources
from scanner.advisories.sources import Source, SourceKind
from scanner.advisories.store import AdvisoryStore, file_digest
from scanner.errors import ScanError

KINDS: Final = (*(str(kind) for kind in SourceKind), SNAPSHOT)
MAX_SAID: Final = 4096


class AdvisoryFolder:
    """Where a judge keeps its copies: uploads in `incoming/` by digest, and the snapshot that it matches by."""

    def __init__(self, root: Path) -> None:
        """`root` is there, with `incoming/` in it."""
        self.root = root
        self._digest: tuple[tuple[int, int, int], Digest] | None = None

    @property
    def snapshot(self) -> Path:
        """The snapshot that this judge matches by."""
        return self.root / "snapshot.sqlite"

    @property
    def made(self) -> Path:
        """A snapshot that was just made, and is not in use yet."""
        return self.root / "made.sqlite"

    def incoming(self, digest: Digest, kind: str) -> Path:
        """Where the copy of an upload lies; OSV exports are zips."""
        suffix = {"osv": ".zip", SNAPSHOT: ".sqlite"}.get(kind, ".json")
        return self.root / "incoming" / f"{digest.hex}{suffix}"

    def digest(self) -> Digest | None:
        """The digest of the snapshot; None if there is none. Hashed when the file is another than before.

        Raises:
            ScanError: it cannot be read.
        """
        try:
            found = self.snapshot.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ScanError(f"advisory data {self.snapshot}: {error.strerror}") from error
        stamp = (found.st_ino, found.st_mtime_ns, found.st_size)
        if self._digest is None or self._digest[0] != stamp:
            self._digest = (stamp, file_digest(self.snapshot))
        return self._digest[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportProcess:
    """The process, and the pipe that it says its error through."""

    pid: int
    said: int

    def ended(self) -> str | None:
        """None while it runs; "" once the snapshot is made; else why it is not."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if pid != self.pid:
            return None
        with os.fdopen(self.said, "rb") as pipe:
            said = pipe.read(MAX_SAID).decode("utf-8", "replace")
        code = os.waitstatus_to_exitcode(status)
        return "" if code == 0 else said or f"the import ended with status {code}"


def begin_import(
    folder: AdvisoryFolder, uploads: Sequence[Current], *, newest: Mapping[str, str], now: datetime
) -> ImportProcess:
    """Make `folder.made` out of the copies in `incoming/`, in a child process.

    It fails if a source's newest record is older than in `newest`. Called by a process with one thread.

    Raises:
        OSError: no process could be made.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid:
        os.close(writer)
        return ImportProcess(pid=pid, said=reader)
    status = 1
    try:
        die_with_parent(signal.SIGKILL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _import(folder, uploads, now)
        _check_newest(folder.made, newest)
        status = 0
    except (ScanError, OSError) as error:
        os.write(writer, str(error).encode("utf-8", "replace")[:MAX_SAID])
    except BaseException as error:  # a forked child never returns into its parent's code
        os.write(writer, f"{type(error).__name__}: {error}".encode("utf-8", "replace")[:MAX_SAID])
    finally:
        os._exit(status)


def _import(folder: AdvisoryFolder, uploads: Sequence[Current], now: datetime) -> None:
    (digest, kind, *_), *_ = uploads
    if kind == SNAPSHOT:
        AdvisoryStore.open(folder.incoming(digest, kind), digest=digest).close()
        shutil.copyfile(folder.incoming(digest, kind), folder.made)
        return
    sources = [
        # What was handed in long ago is no newer because something else comes: hosts' policies ask for its age.
        Source(kind=SourceKind(kind), name=name, path=folder.incoming(digest, kind), date=received)
        for digest, kind, name, received in uploads
    ]
    import_sources(sources, folder.made, now=now)


def _check_newest(path: Path, newest: Mapping[str, str]) -> None:
    """Refuse what takes a source back: older data look as good as the newest to whoever matches by them (L7).

    Raises:
        ScanError: a source's newest record is older than it was.
    """
    with AdvisoryStore.open(path) as store:
        found = store.newest
        for source in store.sources:
            before, now = newest.get(source.name, ""), found.get(source.name, "")
            if now < before:
                raise ScanError(
                    f"{source.name}: its newest record is of {now or 'no time'}, expected {before} or later, as it was"
                )
