"""The caller's side of the confined reader: starts it, gives it jobs with their descriptors, hears its answers.

    with Readers.start(store.empty) as readers:
        answer = readers.stored(source_fd, descriptor, diff_id, tar_fd, listing_fd)
        ...                       # write to the other end of the pipe `source_fd`, then close it
        answer()                  # what became of the layer

Safe for several threads. Descriptors that are passed stay the caller's.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from ocispec import fields
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from policy.statements import ResolvedUser
from policy.users import MAX_GROUPS
from runtime.confined import MAX_JOB, READY
from runtime.errors import HostError, StoreError

START_TIMEOUT: Final = 60.0
"""Seconds until the helper is confined; it takes about 0.2."""

_PROGRAM: Final = "import sys; sys.path.insert(0, sys.argv[1]); from runtime.confined import main; main(sys.argv[2:])"


class UnreadableError(SpecError):
    """The confined reader refused what it was given; `repair` is what whoever made it can do, or ""."""

    def __init__(self, message: str, repair: str) -> None:
        """Say why."""
        super().__init__(message)
        self.repair = repair


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadLayer:
    """What became of a layer: bytes of its tar, and members in it."""

    size: int
    members: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a file's content lies: the layer, lowest is 0, and bytes of its tar."""

    layer: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeIndex:
    """What else was found when a root index was made: the image's account files, where it has them."""

    passwd: Place | None
    group: Place | None


class Readers:
    """A running helper. Use `start`, and as a context manager."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket) -> None:
        """Take over a confined process."""
        self._process = process
        self._channel = channel
        self._lock = threading.Lock()

    @classmethod
    def start(cls, empty: Path) -> Readers:
        """Start the helper, with the folder `empty` as its root.

        Raises:
            HostError: it cannot be confined (it needs root), so nothing may be read.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = str(Path(__file__).resolve().parent.parent)
        arguments = [sys.executable, "-I", "-c", _PROGRAM, folder, str(theirs.fileno()), str(empty), str(os.getpid())]
        with theirs:
            try:
                process = subprocess.Popen(
                    arguments, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),), cwd="/", env={"LC_ALL": "C.UTF-8"}
                )
            except OSError as error:
                ours.close()
                raise HostError(f"confined reader: cannot be started: {error}") from error
        readers = cls(process, ours)
        try:
            readers._wait_ready()
        except HostError:
            readers.close()
            raise
        return readers

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the helper, and with it every job."""
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def stored(
        self, source: int, descriptor: Descriptor, diff_id: Digest, tar: int, listed: int
    ) -> Callable[[], ReadLayer]:
        """Have the stored layer in `source` inflated into `tar`, and its listing written to `listed`.

        The reader has `source` of its own by then; the function that is returned waits for its answer, and raises
        UnreadableError where digests, tar or compression are refused, StoreError where the disk is full.

        Raises:
            HostError: the helper is gone.
        """
        plain = Descriptor(media_type=descriptor.media_type, digest=descriptor.digest, size=descriptor.size)
        job: dict[str, JsonValue] = {"job": "stored", "descriptor": plain.to_json(), "diff_id": str(diff_id)}
        answer = self._begin(job, (source, tar, listed), f"layer {descriptor.digest}")
        return lambda: _read_layer(answer())

    def tar(self, tar: int, diff_id: Digest, listed: int) -> ReadLayer:
        """Have the tar of a layer that is in the store read again, and its listing written to `listed`.

        Raises:
            UnreadableError: it is another one, or is refused.
            StoreError: the disk is full, or reading or writing failed otherwise.
        """
        job: dict[str, JsonValue] = {"job": "tar", "diff_id": str(diff_id)}
        return _read_layer(self._begin(job, (tar, listed), f"layer {diff_id}")())

    def index(self, listings: int, sizes: Sequence[int], diff_ids: Sequence[Digest], target: int) -> MadeIndex:
        """Have a root index written to `target`; its digest is for the caller to compute from the bytes.

        `listings` is a file with the layers' listings behind each other, lowest first, of these `sizes`.

        Raises:
            UnreadableError: the layers do not fit on each other.
            StoreError: the disk is full, or writing failed otherwise.
        """
        job: dict[str, JsonValue] = {
            "job": "index",
            "sizes": list(sizes),
            "diff_ids": [str(diff_id) for diff_id in diff_ids],
        }
        answer = self._begin(job, (listings, target), "root index")()
        return MadeIndex(passwd=_place(answer, "passwd"), group=_place(answer, "group"))

    def user(self, user: str, passwd: tuple[int, Place] | None, group: tuple[int, Place] | None) -> ResolvedUser:
        """Have the config's `user` looked up in account files, each a layer's tar and a place in it.

        Raises:
            UnreadableError: there is no such user or group.
            StoreError: a tar cannot be read.
        """
        found = {name: given for name, given in (("passwd", passwd), ("group", group)) if given is not None}
        job: dict[str, JsonValue] = {"job": "user", "user": user}
        job |= {name: [place.offset, place.size] for name, (_, place) in found.items()}
        answer = self._begin(job, [tar for tar, _ in found.values()], f"config user {user[:80]!r}")()
        groups = fields.items(answer, "groups", what="confined reader", limit=MAX_GROUPS)
        return ResolvedUser(
            uid=fields.integer(answer, "uid", what="confined reader"),
            gid=fields.integer(answer, "gid", what="confined reader"),
            groups=tuple(group for group in groups if isinstance(group, int)),
            home=fields.text(answer, "home", what="confined reader"),
        )

    def _wait_ready(self) -> None:
        self._channel.settimeout(START_TIMEOUT)
        try:
            said = self._channel.recv(MAX_JOB)
        except OSError as error:
            raise HostError(f"confined reader: {error}") from error
        self._channel.settimeout(None)
        if said != READY:
            shown = said.decode("utf-8", "replace")[:500] or "it ended while it was started"
            raise HostError(f"confined reader: {shown}")

    def _begin(self, job: dict[str, JsonValue], given: Sequence[int], what: str) -> Callable[[], dict[str, JsonValue]]:
        message = json.dumps(job).encode()
        if len(message) > MAX_JOB:
            raise SpecError(f"{what}: the job is larger than {MAX_JOB} bytes")
        answers, theirs = os.pipe()
        try:
            with self._lock:
                socket.send_fds(self._channel, [message], [*given, theirs])
        except OSError as error:
            os.close(answers)
            raise HostError(f"confined reader: gone: {error}") from error
        finally:
            os.close(theirs)
        return lambda: _answer(answers, what)


def _answer(pipe_fd: int, what: str) -> dict[str, JsonValue]:
    with os.fdopen(pipe_fd, "rb", buffering=0) as pipe:
        raw = pipe.read(MAX_JOB)
    if not raw:
        raise UnreadableError(f"{what}: its reader was killed by the kernel, e.g. at a limit", "")
    answer = parse_object(raw, what="confined reader")
    if "refused" in answer:
        refused = fields.text(answer, "refused", what="confined reader")
        raise UnreadableError(refused, fields.text(answer, "repair", what="confined reader", default=""))
    if "failed" in answer:
        code = fields.integer(answer, "errno", what="confined reader")
        shown = "disk full" if code == errno.ENOSPC else fields.text(answer, "failed", what="confined reader")
        raise StoreError(f"{what}: {shown}")
    return answer


def _place(answer: dict[str, JsonValue], name: str) -> Place | None:
    match answer.get(name):
        case [int(layer), int(offset), int(size)]:
            return Place(layer=layer, offset=offset, size=size)
        case _:
            return None


def _read_layer(answer: dict[str, JsonValue]) -> ReadLayer:
    return ReadLayer(
        size=fields.integer(answer, "size", what="confined reader"),
        members=fields.integer(answer, "members", what="confined reader"),
    )
