"""Layers and root index of an image brought into the store: what `pull.py` does once the clearance was proven.

Each layer flows from the registry through a pipe into a confined reader, which checks both digests, and from
there into a file that gets its name when it is whole. Several layers at once; the first that fails stops all.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ocispec.blobs import StoredImage
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.errors import SourceError
from ocispec.remote import BlobStream, Repository
from ocispec.verify import CHUNK
from policy.statements import ResolvedUser
from runtime.errors import StoreError
from runtime.hashing import digest_of
from runtime.ownfiles import replace_file
from runtime.readers import MadeIndex, Place, Readers, UnreadableError
from runtime.store import Store

PARALLEL: Final = 4
"""Layers fetched at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a layer is: bytes of `total` fetched; `state` is `fetching`, `there` (in the store already) or `done`."""

    layer: Digest
    done: int
    total: int
    state: str


class StoppedError(SourceError):
    """This layer was given up because another one failed."""


@dataclass(frozen=True, slots=True)
class Unfinished:
    """A file that has no name in the store yet."""

    fd: int
    path: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class RootIndex:
    """A root index that has no name yet, the digest that its bytes have here, and the image's user."""

    file: Unfinished
    digest: Digest
    user: ResolvedUser


@dataclass(slots=True, kw_only=True)
class Fetcher:
    """Fetches for one pull. `progress` is called from several threads, one at a time."""

    store: Store
    repository: Repository
    work: Path
    readers: Callable[[], Readers]
    progress: Callable[[Progress], None]
    fetched: int = 0
    _tell: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)

    def layers(self, image: StoredImage) -> None:
        """Have every layer of the image in the store.

        Raises:
            SourceError, UnreadableError, StoreError: of the first layer that failed.
        """
        wanted = dict(zip(image.config.diff_ids, image.manifest.layers, strict=True))
        missing = {}
        for diff_id, descriptor in wanted.items():
            if self._has(diff_id):
                self._say(Progress(layer=diff_id, done=descriptor.size, total=descriptor.size, state="there"))
            else:
                missing[diff_id] = descriptor
        if not missing:
            return
        self.readers()  # started here, in one thread
        with ThreadPoolExecutor(min(PARALLEL, len(missing)), thread_name_prefix="layer") as pool:
            futures = [pool.submit(self._layer, descriptor, diff_id) for diff_id, descriptor in missing.items()]
            try:
                errors = [error for future in futures if (error := future.exception()) is not None]
            except BaseException:
                self._stop.set()  # somebody interrupts us: the pool waits for its threads
                raise
        # The others were only stopped because this one failed.
        telling = [error for error in errors if not isinstance(error, StoppedError)]
        for error in telling or errors:
            raise error

    @contextmanager
    def index(self, diff_ids: tuple[Digest, ...], user: str) -> Iterator[RootIndex]:
        """A root index of these layers, and who `user` of the config is in it.

        Raises:
            UnreadableError: the layers do not fit on each other, or there is no such user.
            StoreError: e.g. the disk is full.
        """
        with _unfinished(self.work, "index") as made:
            try:
                found = self._write_index(diff_ids, made.fd, again=False)
            except UnreadableError:
                # A listing that was kept may be damaged: it is no evidence, and is made again from the tar.
                os.ftruncate(made.fd, 0)
                os.lseek(made.fd, 0, os.SEEK_SET)
                found = self._write_index(diff_ids, made.fd, again=True)
            yield RootIndex(file=made, digest=digest_of(made.fd, "sha256"), user=self._user(diff_ids, user, found))

    def _user(self, diff_ids: tuple[Digest, ...], user: str, found: MadeIndex) -> ResolvedUser:
        with contextlib.ExitStack() as held:
            tars: list[tuple[int, Place] | None] = []
            for place in (found.passwd, found.group):
                if place is None:
                    tars.append(None)
                    continue
                tar = self.store.open_layer(diff_ids[place.layer])
                held.callback(os.close, tar)
                tars.append((tar, place))
            return self.readers().user(user, *tars)

    def _write_index(self, diff_ids: tuple[Digest, ...], target: int, *, again: bool) -> MadeIndex:
        listings = [self._listing(diff_id, again=again) for diff_id in diff_ids]
        joined = self.work / "listings"
        replace_file(joined, b"".join(listings))
        with joined.open("rb") as file:
            sizes = [len(listing) for listing in listings]
            return self.readers().index(file.fileno(), sizes, diff_ids, target)

    def _listing(self, diff_id: Digest, *, again: bool) -> bytes:
        kept = None if again else self.store.listing(diff_id)
        if kept is not None:
            return kept
        with _unfinished(self.work, diff_id.hex) as listed:
            tar = self.store.open_layer(diff_id)
            try:
                self.readers().tar(tar, diff_id, listed.fd)
            finally:
                os.close(tar)
            self.store.add_listing(listed.fd, listed.path, diff_id)
        made = self.store.listing(diff_id)
        if made is None:
            raise StoreError(f"listing {diff_id}: gone as soon as it was written")
        return made

    def _has(self, diff_id: Digest) -> bool:
        try:
            fd = self.store.open_layer(diff_id)
        except StoreError:
            return False
        try:
            # What a rehash found changed may still be right in the page cache.
            found_changed = (diff_id, os.fstat(fd).st_ino) in self.store.changed()
            return not found_changed and digest_of(fd, diff_id.algorithm) == diff_id
        finally:
            os.close(fd)

    def _layer(self, descriptor: Descriptor, diff_id: Digest) -> None:
        try:
            self._check_stop(descriptor)
            with (
                self.repository.remote.open_blob(self.repository.name, descriptor) as stream,
                _unfinished(self.work, f"{diff_id.hex}.tar") as tar,
                _unfinished(self.work, diff_id.hex) as listed,
            ):
                self._read(stream, descriptor, diff_id, tar, listed)
                self.store.add_layer(tar.fd, tar.path, diff_id)
                self.store.add_listing(listed.fd, listed.path, diff_id)
        except BaseException:
            self._stop.set()
            raise
        self._say(Progress(layer=diff_id, done=descriptor.size, total=descriptor.size, state="done"))

    def _read(
        self, stream: BlobStream, descriptor: Descriptor, diff_id: Digest, tar: Unfinished, listed: Unfinished
    ) -> None:
        source, sink = os.pipe()
        broke: SourceError | None = None
        with os.fdopen(sink, "wb", buffering=0) as pipe:
            try:
                answer = self.readers().stored(source, descriptor, diff_id, tar.fd, listed.fd)
            finally:
                os.close(source)  # the reader's is the only one now: when it ends, writing fails
            try:
                self._pump(stream, pipe.fileno(), descriptor, diff_id)
            except SourceError as error:
                broke = error
        try:
            answer()
        except UnreadableError:
            # What the reader saw of a download that broke is a layer cut short.
            if broke is not None:
                raise broke from None
            raise
        if broke is not None:
            raise broke

    def _pump(self, stream: BlobStream, sink: int, descriptor: Descriptor, diff_id: Digest) -> None:
        done = 0
        while done <= descriptor.size and (chunk := stream.read(CHUNK)):
            self._check_stop(descriptor)
            done += len(chunk)
            try:
                _write_all(sink, chunk)
            except BrokenPipeError:
                return  # the reader has an answer already
            self._say(Progress(layer=diff_id, done=done, total=descriptor.size, state="fetching"))
            with self._tell:
                self.fetched += len(chunk)

    def _check_stop(self, descriptor: Descriptor) -> None:
        if self._stop.is_set():
            raise StoppedError(f"layer {descriptor.digest}: given up, because another layer failed")

    def _say(self, progress: Progress) -> None:
        with self._tell:
            self.progress(progress)


@contextmanager
def _unfinished(work: Path, name: str) -> Iterator[Unfinished]:
    path = work / name
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    try:
        yield Unfinished(fd, path)
    finally:
        os.close(fd)
        with contextlib.suppress(FileNotFoundError):
            path.unlink()


def _write_all(fd: int, content: bytes) -> None:
    rest = memoryview(content)
    while rest:
        rest = rest[os.write(fd, rest) :]
