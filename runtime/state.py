"""The state folder: one folder a container, who holds it, and what is written there.

    <state>/lock                      taken to make, remove or reconcile a container's folder
    <state>/parts, root, files        empty; mount points inside private namespaces
    <state>/cache/                    compiled filters
    <state>/slots/_ID                 held by a slot of the broker's for as long as its cgroups `_ID` are there
    <state>/containers/NAME/lock      held by the supervisor and its guard for as long as the container lives
    <state>/containers/NAME/state     what `ps` shows, replaced whole
    <state>/containers/NAME/stop      why somebody asked it to stop
    <state>/containers/NAME/log[.N]   output

A folder whose lock nobody holds belongs to a dead supervisor: whoever finds it clears up after it. Locks
are flock(2): they end with their holders, however those end.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from runtime.errors import NameTakenError, NoSuchContainerError, RequestError, StateError
from runtime.linux.cgroups import Group, find_hierarchies
from runtime.model import ContainerId, StopReason
from runtime.record import Container, from_json, reason_from_json, reason_to_json, to_json

FOLDERS: Final = ("cache", "parts", "root", "files", "slots")
DEFAULT_STATE: Final = Path("/run/pratique")


@dataclass(frozen=True, slots=True)
class Claim:
    """A container's folder, held: whoever has `lock_fd` open is responsible for it."""

    store: StateStore
    name: ContainerId
    lock_fd: int

    @property
    def folder(self) -> Path:
        """The container's folder."""
        return self.store.folder(self.name)

    def write(self, container: Container) -> None:
        """Replace the state file."""
        self.store.write(container)

    def release(self, *, remove: bool) -> None:
        """Give the folder up, after removing it if nothing of it is to be kept."""
        with self.store.locked():
            if remove:
                self.store.discard(self.name)
            os.close(self.lock_fd)


@dataclass(frozen=True, slots=True)
class StateStore:
    """The state folder at `path`, which only its owner can enter."""

    path: Path

    @classmethod
    def open(cls, path: Path) -> StateStore:
        """Make the folder if it is missing. A relative path is meant from here: a supervisor works in `/`.

        Raises:
            StateError: it is a link, somebody else's, or open to others.
        """
        path = path.absolute()
        try:
            for folder in (path, path / "containers", *(path / name for name in FOLDERS)):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700, parents=folder == path)
            found = path.lstat()
        except OSError as error:
            raise StateError(f"state folder {path}: {error.strerror}") from error
        if found.st_mode & 0o170077 != 0o040000 or found.st_uid != os.geteuid():
            raise StateError(
                f"state folder {path}: got mode {found.st_mode:o} of uid {found.st_uid}, "
                f"expected a folder of uid {os.geteuid()} that nobody else can enter"
            )
        return cls(path)

    def folder(self, name: ContainerId) -> Path:
        """Where a container's state lies."""
        return self.path / "containers" / str(name)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Be the only one to make, remove or reconcile folders."""
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def claim(self, name: ContainerId) -> Claim:
        """Make a container's folder and hold it. Of several that try, one wins.

        Raises:
            NameTakenError: there is a container of this name, running or kept.
        """
        with self.locked():
            self._reconcile(name)
            folder = self.folder(name)
            try:
                folder.mkdir(mode=0o700)
            except FileExistsError:
                raise NameTakenError(f"container {name}: the name is taken") from None
            fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return Claim(self, name, fd)

    def names(self) -> tuple[ContainerId, ...]:
        """Every container that has a folder, by name."""
        found: list[ContainerId] = []
        for entry in sorted((self.path / "containers").iterdir()):
            with contextlib.suppress(RequestError):
                found.append(ContainerId(entry.name))
        return tuple(found)

    def reconcile(self) -> tuple[ContainerId, ...]:
        """Clear up after supervisors and guards that were killed; return the containers this was needed for."""
        with self.locked():
            found = tuple(name for name in self.names() if self._reconcile(name))
            self._reconcile_slots()
            return found

    def held(self, name: ContainerId) -> bool:
        """True while a supervisor or guard is responsible for the container."""
        return _held(self.folder(name) / "lock")

    def claim_slot(self, name: str, parent: str) -> int:
        """Hold the cgroups `name` below `parent` until `release_slot`; the descriptor is what holds them.

        Raises:
            OSError: a slot of this name is held already.
        """
        with self.locked():
            fd = os.open(self.path / "slots" / name, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.write(fd, parent.encode())
            return fd

    def release_slot(self, name: str, fd: int) -> None:
        """Give up a slot whose cgroups were removed."""
        (self.path / "slots" / name).unlink(missing_ok=True)
        os.close(fd)

    def _reconcile_slots(self) -> None:
        """Under the lock: remove the cgroups of slots that were killed."""
        for entry in (self.path / "slots").iterdir():
            if not _held(entry):
                with contextlib.suppress(FileNotFoundError):
                    parent = str(ContainerId(entry.read_text()))
                    group = Group(hierarchies=find_hierarchies(), parent=parent, name=entry.name)
                    group.clear()
                    entry.unlink()

    def _reconcile(self, name: ContainerId) -> bool:
        """Under the lock: kill and remove what a dead supervisor left. True if there was something."""
        if not self.folder(name).exists() or self.held(name):
            return False
        container = self.read(name) if (self.folder(name) / "state").exists() else None
        if container is None:  # the folder was made and nothing else happened
            self.discard(name)
            return True
        if container.status == "exited":
            return False
        clear(container)
        if not container.keep:
            self.discard(name)
        else:
            gone = StopReason(code="supervisor-died", message="its supervisor and guard were killed")
            self.write(replace(container, status="exited", pid=0, exit_code=137, reason=container.reason or gone))
        return True

    def discard(self, name: ContainerId) -> None:
        """Remove a container's folder, the lock in it last."""
        folder = self.folder(name)
        with contextlib.suppress(FileNotFoundError):
            for entry in sorted(folder.iterdir(), key=lambda path: path.name == "lock"):
                entry.unlink()
            folder.rmdir()

    def write(self, container: Container) -> None:
        """Replace a container's state file whole."""
        path = self.folder(container.name) / "state"
        unfinished = path.with_name("state.new")
        unfinished.write_bytes(to_json(container))
        unfinished.replace(path)

    def read(self, name: ContainerId) -> Container:
        """What is known of a container.

        Raises:
            NoSuchContainerError: nothing is.
            StateError: its state file is damaged.
        """
        try:
            raw = (self.folder(name) / "state").read_bytes()
        except FileNotFoundError:
            raise NoSuchContainerError(f"container {name}: there is none of this name") from None
        return from_json(name, raw)

    def ask_stop(self, name: ContainerId, reason: StopReason) -> None:
        """Leave word why a container is about to be stopped; the first word counts."""
        path = self.folder(name) / "stop"
        with contextlib.suppress(FileExistsError, FileNotFoundError), path.open("xb") as file:
            file.write(reason_to_json(reason))

    def asked_stop(self, name: ContainerId) -> StopReason | None:
        """The word that was left, if any."""
        try:
            return reason_from_json((self.folder(name) / "stop").read_bytes())
        except FileNotFoundError:
            return None


def _held(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: two that look do not see each other
    except OSError as error:
        if error.errno != errno.EWOULDBLOCK:
            raise
        return True
    else:
        return False
    finally:
        os.close(fd)


def clear(container: Container) -> None:
    """Kill what is left of a container, and remove its cgroups."""
    container.group.clear()


def process_start(pid: int) -> int:
    """The start time of a process in clock ticks since boot; 0 if there is none (proc_pid_stat(5), field 22)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.rpartition(")")[2].split()[19])
