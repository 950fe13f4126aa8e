"""The local store: what was pulled, in a folder that only its owner can write.

    lock                        shared by whoever reads or pulls, exclusive for removing
    layers/<diff_id>.tar        a layer's uncompressed tar, 0444
    listings/<diff_id>          what the confined reader found in it (ocispec.listing); may be lost
    indexes/<digest>            a root index
    seals/<digest>              that a layer or root index was hashed, and when (runtime.seals); may be lost
    changed                     which files a rehash found changed (runtime.changed)
    images/<key>/               record, manifest, config, clearance; index and index-clearance if there are
    tags/<key>                  the signed statement of what a tag served when it was pulled
    work/RANDOM/                what a pull has not finished; held by its flock
    host/                       trust.json, revocation list, memory and registries (runtime.host)
    empty/                      the root of confined children

A file gets its name when all of it is on disk. What has a name is not proven by that: every start does that again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ocispec.config import MAX_CONFIG
from ocispec.digest import Digest
from ocispec.manifest import MAX_MANIFEST
from ocispec.reference import Reference
from policy.dsse import MAX_ENVELOPE
from runtime import images
from runtime.changed import FileName, read_changed, write_changed
from runtime.errors import StoreError
from runtime.images import ImageRecord
from runtime.linux import verity
from runtime.ownfiles import open_owned, publish, read_owned, replace_file, stamp

DEFAULT_STORE: Final = Path("/var/lib/pratique")
MAX_LISTING: Final = 512 * 1024 * 1024

_FOLDERS: Final = ("layers", "listings", "indexes", "seals", "images", "tags", "work", "host", "empty")


@dataclass(frozen=True, slots=True, kw_only=True)
class Documents:
    """The raw documents of an image, by what they are called in its folder."""

    manifest: bytes
    config: bytes
    clearance: bytes
    index: bytes | None = None
    index_clearance: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed: images, layers, root indexes, and bytes that this freed."""

    images: tuple[str, ...]
    layers: int
    indexes: int
    freed: int


@dataclass(frozen=True, slots=True)
class Store:
    """The store in the folder `path`."""

    path: Path

    @classmethod
    def open(cls, path: Path = DEFAULT_STORE) -> Store:
        """Make its folders where they are missing, and drop what dead pulls left.

        Raises:
            StoreError: somebody else can write there, or it cannot be made.
        """
        try:
            for folder in (path, *(path / name for name in _FOLDERS)):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700, parents=folder == path)
                found = folder.lstat()
                if found.st_mode & 0o170022 != 0o040000 or found.st_uid != os.geteuid():
                    raise StoreError(
                        f"store {folder}: got mode {found.st_mode:o} of uid {found.st_uid}, "
                        f"expected a folder of uid {os.geteuid()} that nobody else may write"
                    )
        except OSError as error:
            raise StoreError(f"store {path}: {error.strerror}: {error.filename}") from error
        store = cls(path)
        store._sweep()
        return store

    @property
    def host(self) -> Path:
        """The folder of what this host believes."""
        return self.path / "host"

    @property
    def empty(self) -> Path:
        """An empty folder."""
        return self.path / "empty"

    @property
    def seals(self) -> Path:
        """The folder of seals."""
        return self.path / "seals"

    # Locks

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Nothing is removed meanwhile."""
        with self._locked(fcntl.LOCK_SH):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Nobody pulls or starts meanwhile.

        Raises:
            StoreError: somebody does now.
        """
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            yield

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """A folder of this process for what is not finished; removed at the end, or by the next one if we die.

        Raises:
            StoreError: it cannot be made.
        """
        with contextlib.ExitStack() as held:
            try:
                with self._folder_lock(self.path / "work", fcntl.LOCK_EX):
                    folder = Path(tempfile.mkdtemp(dir=self.path / "work"))
                    held.enter_context(self._folder_lock(folder, fcntl.LOCK_EX))
            except OSError as error:
                raise StoreError(f"store {self.path}: {error.strerror}") from error
            held.callback(shutil.rmtree, folder, ignore_errors=True)
            yield folder

    @contextmanager
    def rehashing(self) -> Iterator[None]:
        """Nobody else writes the list of changed files, and nothing is removed meanwhile."""
        with self.shared(), self._folder_lock(self.seals, fcntl.LOCK_EX):
            yield

    # Layers and root indexes

    def layer(self, diff_id: Digest) -> Path:
        """Where a layer's tar is, or will be."""
        return self.path / "layers" / f"{diff_id.hex}.tar"

    def index(self, digest: Digest) -> Path:
        """Where a root index is, or will be."""
        return self.path / "indexes" / digest.hex

    def open_layer(self, diff_id: Digest) -> int:
        """A descriptor of a layer's tar.

        Raises:
            StoreError: it is not there, or others could have written it.
        """
        return open_owned(self.layer(diff_id), what=f"layer {diff_id}")

    def open_index(self, digest: Digest) -> int:
        """A descriptor of a root index.

        Raises:
            StoreError: as `open_layer`.
        """
        return open_owned(self.index(digest), what=f"root index {digest}")

    def add_layer(self, fd: int, unfinished: Path, diff_id: Digest) -> None:
        """Give a finished layer its place.

        Raises:
            StoreError: e.g. the disk is full.
        """
        publish(fd, unfinished, self.layer(diff_id))

    def add_index(self, fd: int, unfinished: Path, digest: Digest) -> None:
        """Give a finished root index its place.

        Raises:
            StoreError: e.g. the disk is full.
        """
        publish(fd, unfinished, self.index(digest))

    def protect(self, record: ImageRecord) -> None:
        """Have the file system check the image's files as they are read, where it can (fs-verity)."""
        openers = ((self.open_index, record.root_index), *((self.open_layer, diff_id) for diff_id in record.diff_ids))
        for opener, digest in openers:
            fd = opener(digest)
            try:
                verity.enable(fd)
            finally:
                os.close(fd)

    def changed(self) -> frozenset[FileName]:
        """The files that a rehash found changed.

        Raises:
            StoreError: the list is damaged.
        """
        return read_changed(self.path / "changed")

    def write_changed(self, files: Iterable[FileName]) -> None:
        """Keep which files a rehash found changed.

        Raises:
            StoreError: e.g. the disk is full.
        """
        write_changed(self.path / "changed", files)

    def changed_stamp(self) -> tuple[int, int, int]:
        """Changes whenever another file is found changed."""
        return stamp(self.path / "changed")

    def listing(self, diff_id: Digest) -> bytes | None:
        """What the reader found in a layer, if it was kept; to be checked by ocispec.listing.load."""
        path = self.path / "listings" / diff_id.hex
        return read_owned(path, limit=MAX_LISTING, what=f"listing {diff_id}") if path.exists() else None

    def add_listing(self, fd: int, unfinished: Path, diff_id: Digest) -> None:
        """Keep what the reader found in a layer."""
        publish(fd, unfinished, self.path / "listings" / diff_id.hex)

    # Images and tags

    def write_image(self, record: ImageRecord, documents: Documents) -> None:
        """Keep an image's documents; the record comes last, and makes the others count.

        Raises:
            StoreError: e.g. the disk is full; an image that was there before is still there.
        """
        folder = self.path / "images" / record.key
        try:
            folder.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise StoreError(f"image {record.name}: {error.strerror}") from error
        named = {
            "manifest": documents.manifest,
            "config": documents.config,
            "clearance": documents.clearance,
            "index": documents.index,
            "index-clearance": documents.index_clearance,
        }
        for name, content in named.items():
            if content is not None:
                replace_file(folder / name, content)
        replace_file(folder / "record", images.encode(record))

    def write_clearance(self, record: ImageRecord, clearance: bytes) -> None:
        """Replace an image's clearance by a newer one.

        Raises:
            StoreError: e.g. the disk is full; the older one is still there.
        """
        replace_file(self.path / "images" / record.key / "clearance", clearance)

    def clearance(self, record: ImageRecord) -> bytes:
        """An image's clearance, to be proven.

        Raises:
            StoreError: it cannot be read.
        """
        return self._document(record, "clearance", MAX_ENVELOPE)

    def clearance_stamp(self, record: ImageRecord) -> tuple[int, int, int]:
        """Changes whenever the clearance does."""
        return stamp(self.path / "images" / record.key / "clearance")

    def image_stamps(self, reference: Reference, record: ImageRecord) -> object:
        """Changes whenever a reference may lead to another image, or the image has another clearance."""
        folder = self.path / "images"
        return (
            stamp(self._tag(reference)) if reference.digest is None else None,
            *map(stamp, (folder, folder / record.key / "record", folder / record.key / "clearance")),
        )

    def manifest(self, record: ImageRecord) -> bytes:
        """An image's manifest.

        Raises:
            StoreError: it cannot be read.
        """
        return self._document(record, "manifest", MAX_MANIFEST)

    def config(self, record: ImageRecord) -> bytes:
        """An image's config.

        Raises:
            StoreError: it cannot be read.
        """
        return self._document(record, "config", MAX_CONFIG)

    def images(self) -> tuple[ImageRecord, ...]:
        """Every image, by name.

        Raises:
            StoreError: a record is damaged.
        """
        found = [record for folder in self._children("images") if (record := _read_record(folder)) is not None]
        return tuple(sorted(found, key=lambda record: record.name))

    def find(self, registry: str, repository: str, digest: Digest) -> ImageRecord | None:
        """The image whose manifest, or whose index, is `digest` in this repository; the newest if several are.

        Raises:
            StoreError: a record of this repository is damaged.
        """
        place = images.place_of(registry, repository)
        # Only this repository's are read: a damaged record of another one keeps nobody from starting.
        found = (_read_record(folder) for folder in self._children("images") if folder.name.endswith(f"-{place}"))
        matching = [
            record
            for record in found
            if record is not None
            and (record.registry, record.repository) == (registry, repository)
            and digest in (record.manifest, record.index)
        ]
        return max(matching, key=lambda record: record.pulled, default=None)

    def write_tag(self, reference: Reference, statement: bytes) -> None:
        """Keep the signed statement of what a tag serves.

        Raises:
            StoreError: e.g. the disk is full.
        """
        replace_file(self._tag(reference), statement)

    def tag(self, reference: Reference) -> bytes | None:
        """The signed statement of what a tag served when it was last pulled, to be proven; None if it never was."""
        path = self._tag(reference)
        return read_owned(path, limit=MAX_ENVELOPE, what=f"tag {reference}") if path.exists() else None

    # Removing

    def remove(self, record: ImageRecord, *, in_use: Callable[[], Iterable[Digest]]) -> None:
        """Forget an image; its layers go with the next `prune`. `in_use` gives the manifests that run now.

        Raises:
            StoreError: it runs, or somebody pulls or starts at this moment.
        """
        with self.exclusive():
            if record.manifest in set(in_use()):
                raise StoreError(f"image {record.name}: a container of it runs")
            self._discard(record)

    def prune(self, *, in_use: Callable[[], Iterable[Digest]], keep: Iterable[Digest] = ()) -> Pruned:
        """Remove every image that neither runs nor is in `keep` (manifest digests), and all that no image needs.

        Raises:
            StoreError: somebody pulls or starts at this moment.
        """
        with self.exclusive():
            kept_manifests = {*in_use(), *keep}
            records = self.images()
            gone = [record for record in records if record.manifest not in kept_manifests]
            for record in gone:
                self._discard(record)
            kept = [record for record in records if record.manifest in kept_manifests]
            layers = {diff_id.hex for record in kept for diff_id in record.diff_ids}
            indexes = {record.root_index.hex for record in kept}
            freed_layers = self._keep_only("layers", {f"{name}.tar" for name in layers})
            freed_indexes = self._keep_only("indexes", indexes)
            freed_listings = self._keep_only("listings", layers)
            self._keep_only("seals", layers | indexes)
        return Pruned(
            images=tuple(record.name for record in gone),
            layers=len(freed_layers),
            indexes=len(freed_indexes),
            freed=sum((*freed_layers, *freed_indexes, *freed_listings)),
        )

    # Inside

    @contextmanager
    def _locked(self, operation: int) -> Iterator[None]:
        fd = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(fd, operation)
            except BlockingIOError:
                raise StoreError(f"store {self.path}: in use by a pull or a start") from None
            yield
        finally:
            os.close(fd)

    @contextmanager
    def _folder_lock(self, folder: Path, operation: int) -> Iterator[int]:
        # On the folder itself: it ends with whoever has it open, and with the folder.
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, operation)
            yield fd
        finally:
            os.close(fd)

    def _document(self, record: ImageRecord, name: str, limit: int) -> bytes:
        return read_owned(self.path / "images" / record.key / name, limit=limit, what=f"{name} of image {record.name}")

    def _tag(self, reference: Reference) -> Path:
        name = f"{reference.name}:{reference.tag or 'latest'}"
        return self.path / "tags" / Digest.of(name.encode()).hex

    def _children(self, folder: str) -> list[Path]:
        return sorted((self.path / folder).iterdir())

    def _discard(self, record: ImageRecord) -> None:
        folder = self.path / "images" / record.key
        # The record first: without it the rest does not count, if we are killed in between.
        for name in ("record", *(path.name for path in folder.iterdir() if path.name != "record")):
            (folder / name).unlink(missing_ok=True)
        folder.rmdir()

    def _keep_only(self, folder: str, names: set[str]) -> list[int]:
        sizes = []
        for path in self._children(folder):
            if path.name not in names:
                sizes.append(path.lstat().st_size)
                path.unlink()
        return sizes

    def _sweep(self) -> None:
        with self._folder_lock(self.path / "work", fcntl.LOCK_EX):
            for folder in self._children("work"):
                # A pull that lives holds its folder, and one that ends just now has removed it.
                with (
                    contextlib.suppress(BlockingIOError, FileNotFoundError),
                    self._folder_lock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB),
                ):
                    shutil.rmtree(folder, ignore_errors=True)


def _read_record(folder: Path) -> ImageRecord | None:
    path = folder / "record"
    if not path.exists():
        return None  # a pull that was killed before its last step
    what = f"record {folder.name}"
    return images.decode(read_owned(path, limit=images.MAX_RECORD, what=what), what=what)
