"""`dir:FOLDER`: an image as containers-transports(5)'s dir: writes it, or a plain root file system.

The first holds a file `version`, `manifest.json`, and blobs named by their hex digits. Anything else is taken
as a tree of files, which becomes one uncompressed layer (`foldertar.py`) under a config that says nothing
but the platform.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from ocispec.blobs import StoredImage, choose_image, load_image, parse_as
from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.errors import MissingError, SpecError
from ocispec.foldertar import FolderTar
from ocispec.localfile import open_regular, read_all, read_small
from ocispec.manifest import MAX_MANIFEST, Index, Manifest, guess_media_type, parse_image_manifest, parse_manifest
from ocispec.platform import Platform
from ocispec.strictjson import JsonValue
from ocispec.verify import CHUNK, Digester, VerifyingReader

VERSION: Final = "version"
_VERSION_LINE: Final = "Directory Transport Version: 1."


def open_directory(folder: Path, platform: Platform) -> StoredImage:
    """The image in `folder`; `platform` chooses a child of an index, and names what a plain tree is for.

    Raises:
        MissingError: there is no such folder.
        SpecError: it is in the dir: form, and malformed.
        SourceError: it is a tree of files, and cannot be read or cannot be a layer.
    """
    if not folder.is_dir():
        raise MissingError(f"folder {folder}: no such folder")
    if not ((folder / VERSION).is_file() and (folder / "manifest.json").is_file()):
        return _root_image(folder, platform)
    what = f"folder {folder}"
    version = read_small(folder / VERSION, limit=256, what=what).decode("utf-8", "replace").strip()
    if not version.startswith(_VERSION_LINE):
        raise SpecError(f"{what}: version is {version[:80]!r}, expected {_VERSION_LINE!r} and a number")
    raw = read_small(folder / "manifest.json", limit=MAX_MANIFEST, what=what)
    return choose_image(BlobFolder(folder=folder), parse_manifest(raw, guess_media_type(raw)), platform)


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobFolder:
    """A folder in the dir: form; implements ocispec.blobs.Blobs."""

    folder: Path

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """See ocispec.blobs.Blobs."""
        digest = descriptor.digest
        name = digest.hex if digest.algorithm == "sha256" else f"{digest.algorithm}-{digest.hex}"
        with _verified(self.folder / name, descriptor, f"blob {digest}") as reader:
            yield reader

    def read_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """See ocispec.blobs.Blobs; an index's children are called HEX.manifest.json."""
        what = f"manifest {descriptor.digest}"
        with _verified(self.folder / f"{descriptor.digest.hex}.manifest.json", descriptor, what) as reader:
            return parse_as(read_all(reader, limit=MAX_MANIFEST, what=what), descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootFolder:
    """A tree of files as an image's one layer; implements ocispec.blobs.Blobs."""

    folder: Path
    config: bytes = field(repr=False)

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """See ocispec.blobs.Blobs. The layer is written anew: if the tree changed since, its digest is another one."""
        is_config = descriptor.media_type == MediaType.OCI_CONFIG
        source: BinaryIO = io.BytesIO(self.config) if is_config else FolderTar(self.folder)
        what = f"folder {self.folder}: {'config' if is_config else 'its tar'}"
        with VerifyingReader(source, digest=descriptor.digest, size=descriptor.size, what=what) as reader:
            yield reader

    def read_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """See ocispec.blobs.Blobs; there is no other manifest."""
        raise MissingError(f"folder {self.folder}: no manifest {descriptor.digest}")


@contextmanager
def _verified(path: Path, descriptor: Descriptor, what: str) -> Iterator[BinaryIO]:
    source = open_regular(path, what=what)
    with VerifyingReader(source, digest=descriptor.digest, size=descriptor.size, what=what) as reader:
        yield reader


def _root_image(folder: Path, platform: Platform) -> StoredImage:
    layer = _measure(folder)
    rootfs: dict[str, JsonValue] = {"type": "layers", "diff_ids": [str(layer.digest)]}
    config = json.dumps({**platform.to_json(), "config": {}, "rootfs": rootfs}, separators=(",", ":")).encode()
    described = Descriptor(media_type=MediaType.OCI_CONFIG, digest=Digest.of(config), size=len(config))
    document: dict[str, JsonValue] = {
        "schemaVersion": 2,
        "mediaType": str(MediaType.OCI_MANIFEST),
        "config": described.to_json(),
        "layers": [layer.to_json()],
    }
    raw = json.dumps(document, separators=(",", ":")).encode()
    manifest = parse_image_manifest(raw, MediaType.OCI_MANIFEST)
    return load_image(RootFolder(folder=folder, config=config), manifest)


def _measure(folder: Path) -> Descriptor:
    digester, size = Digester("sha256"), 0
    try:
        with FolderTar(folder) as tar:
            while chunk := tar.read(CHUNK):
                digester.feed(chunk)
                size += len(chunk)
        digest = Digest("sha256", digester.hexdigest())
    finally:
        digester.close()
    return Descriptor(media_type=MediaType.OCI_LAYER, digest=digest, size=size)
