"""`docker-archive:FILE[:NAME]`: what `docker save` writes, in its old form and in the one with an OCI layout inside.

The outer tar is read by the one strict reader of tars, never extracted; blobs are read in place. The old
form (moby, image/spec/v1.2.md, "Combined Image JSON + Filesystem Changeset Format") has no manifest: one is
made from its config and layers, Docker's schema 2, as other tools do on reading it. NAME is a tag as listed
there; without it the archive must hold one image.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from ocispec import fields
from ocispec.blobs import StoredImage, choose_image, load_image, parse_as, read_document
from ocispec.config import MAX_CONFIG, parse_config
from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.entry import Entry, Kind, Member
from ocispec.errors import MissingError, SpecError, UnsupportedError
from ocispec.layout import check_header, find_entry
from ocispec.limits import LIMITS
from ocispec.localfile import open_regular, read_all
from ocispec.manifest import MAX_LAYERS, MAX_MANIFEST, Index, Manifest, parse_image_manifest, parse_index
from ocispec.platform import Platform
from ocispec.stream import ChunkStream
from ocispec.strictjson import parse
from ocispec.tar import TarParser
from ocispec.verify import CHUNK, Digester, VerifyingReader

CONTAINERD_NAME: Final = "io.containerd.image.name"
"""Where containerd and `docker save` put the full name of an image in index.json."""

_LAYER_TYPES: Final = (
    (b"\x1f\x8b", MediaType.DOCKER_LAYER_GZIP),
    (b"\x28\xb5\x2f\xfd", MediaType.DOCKER_LAYER_ZSTD),
    (b"", MediaType.DOCKER_LAYER),
)
_LIST: Final = "manifest.json"
_MAX_IMAGES: Final = 1024


class Slice(ChunkStream):
    """`size` bytes of `file` from `offset`; closing closes the file."""

    def __init__(self, file: BinaryIO, offset: int, size: int) -> None:
        super().__init__()
        self._file = file
        self._left = size
        file.seek(offset)

    def chunk(self, size: int) -> bytes:
        """See ChunkStream."""
        chunk = self._file.read(min(size, self._left)) or b""
        self._left -= len(chunk)
        return chunk

    def close(self) -> None:
        """Close the file too."""
        self._file.close()
        super().close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """The members of an archive's outer tar, and the blobs that they are; implements ocispec.blobs.Blobs.

    `places` are (offset, size) by member name, `blobs` the member names by digest.
    """

    path: Path
    places: Mapping[str, tuple[int, int]] = field(repr=False)
    blobs: Mapping[Digest, str] = field(repr=False)

    @classmethod
    def open(cls, path: Path) -> Archive:
        """Read the list of the archive's members; two of one name are refused, for readers differ in which they take.

        Raises:
            MissingError: there is no such file.
            LayerError: its tar is refused.
            UnsupportedError: it is compressed as a whole.
        """
        what = f"archive {path}"
        entries: dict[bytes, Entry] = {}
        for member in _members(path, what):
            if isinstance(member, Entry) and member.kind in (Kind.FILE, Kind.SYMLINK):
                if member.path in entries:
                    raise SpecError(f"{what}: member {member.path[:160]!r} occurs twice")
                entries[member.path] = member
        places: dict[str, tuple[int, int]] = {}
        for name in entries:
            if (file := _resolve(entries, name)) is not None:
                places[name.decode("utf-8", "surrogateescape")] = (file.offset, file.size)
        return cls(path=path, places=places, blobs=_layout_blobs(places))

    def open_member(self, name: str) -> BinaryIO:
        """The bytes of one member.

        Raises:
            MissingError: there is none of this name.
        """
        place = self.places.get(name)
        if place is None:
            raise MissingError(f"archive {self.path}: no member {name[:160]!r}")
        return Slice(open_regular(self.path, what=f"archive {self.path}"), *place)

    def read_member(self, name: str, *, limit: int) -> bytes:
        """The whole of a small member.

        Raises:
            LimitError: it is larger than `limit`.
        """
        with self.open_member(name) as file:
            return read_all(file, limit=limit, what=f"archive {self.path}: {name[:160]}")

    @contextmanager
    def open_blob(self, descriptor: Descriptor) -> Iterator[BinaryIO]:
        """See ocispec.blobs.Blobs."""
        what = f"blob {descriptor.digest}"
        if descriptor.digest not in self.blobs:
            raise MissingError(f"archive {self.path}: no {what}")
        source = self.open_member(self.blobs[descriptor.digest])
        with VerifyingReader(source, digest=descriptor.digest, size=descriptor.size, what=what) as reader:
            yield reader

    def read_manifest(self, descriptor: Descriptor) -> Manifest | Index:
        """See ocispec.blobs.Blobs."""
        what = f"manifest {descriptor.digest}"
        return parse_as(read_document(self, descriptor, limit=MAX_MANIFEST, what=what), descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listed:
    """One image in an archive's manifest.json: member names, and tags."""

    config: str
    layers: tuple[str, ...]
    tags: tuple[str, ...]


def open_archive(path: Path, name: str | None, platform: Platform) -> StoredImage:
    """The image called `name` (None: the only one) in the archive at `path`, for `platform`.

    Raises:
        SpecError: the archive, its lists or the image are refused, or the two lists name different images.
    """
    archive = Archive.open(path)
    what = f"archive {path}"
    listed = _read_list(archive, what)
    if "index.json" not in archive.places:
        return _from_list(archive, _choose_listed(listed, name, what), what)
    check_header(archive.read_member("oci-layout", limit=4096), what=what)
    index = parse_index(archive.read_member("index.json", limit=MAX_MANIFEST), MediaType.OCI_INDEX)
    image = choose_image(archive, archive.read_manifest(_find(index, name, what)), platform)
    configs = {item.config for item in listed}
    if listed and archive.blobs[image.config.digest] not in configs:
        # Tools of Docker read index.json, tools of containers/image read manifest.json.
        raise SpecError(f"{what}: {_LIST} does not list the config {image.config.digest} that index.json leads to")
    return image


def _members(path: Path, what: str) -> Iterator[Member]:
    parser = TarParser(what=what, limits=LIMITS)
    buffer = bytearray(CHUNK)
    with open_regular(path, what=what) as file:
        start = file.read(4)
        if start.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zX")):
            raise UnsupportedError(f"{what}: it is compressed as a whole, expected a plain tar")
        file.seek(0)
        while length := _fill(file, buffer):
            if length % 512:
                raise SpecError(f"{what}: its length is not a multiple of 512")
            parser.feed(buffer, length)
    parser.finish()
    yield from parser.members


def _fill(file: BinaryIO, buffer: bytearray) -> int:
    view, done = memoryview(buffer), 0
    while done < len(buffer):
        chunk = file.read(len(buffer) - done)
        if not chunk:
            break
        view[done : done + len(chunk)] = chunk
        done += len(chunk)
    return done


def _resolve(entries: Mapping[bytes, Entry], name: bytes) -> Entry | None:
    # docker save once wrote a layer that occurs twice as a symlink ../ID/layer.tar: one step, inside the archive.
    entry = entries[name]
    if entry.kind is Kind.FILE:
        return entry
    parts = name.split(b"/")[:-1]
    for part in entry.target.split(b"/"):
        if part == b"..":
            parts = parts[:-1]
        elif part not in (b"", b"."):
            parts.append(part)
    target = entries.get(b"/".join(parts))
    return target if target is not None and target.kind is Kind.FILE else None


def _layout_blobs(places: Mapping[str, tuple[int, int]]) -> dict[Digest, str]:
    blobs: dict[Digest, str] = {}
    for name in places:
        match name.split("/"):
            case ["blobs", algorithm, encoded]:
                blobs[Digest(algorithm, encoded)] = name
            case _:
                pass
    return blobs


def _read_list(archive: Archive, what: str) -> tuple[Listed, ...]:
    if _LIST not in archive.places:
        if "index.json" in archive.places:
            return ()
        raise MissingError(f"{what}: neither {_LIST} nor index.json in it")
    value = parse(archive.read_member(_LIST, limit=MAX_MANIFEST), what=f"{what}: {_LIST}")
    if not isinstance(value, list) or len(value) > _MAX_IMAGES:
        raise SpecError(f"{what}: {_LIST} is not an array of at most {_MAX_IMAGES} images")
    listed: list[Listed] = []
    for position, item in enumerate(value):
        where = f"{what}: {_LIST}[{position}]"
        if not isinstance(item, dict):
            raise SpecError(f"{where}: expected an object")
        listed.append(
            Listed(
                config=fields.text(item, "Config", what=where),
                layers=fields.texts(item, "Layers", what=where, limit=MAX_LAYERS),
                tags=fields.texts(item, "RepoTags", what=where),
            )
        )
    return tuple(listed)


def _choose_listed(listed: tuple[Listed, ...], name: str | None, what: str) -> Listed:
    found = [item for item in listed if name is None or name in item.tags]
    if not found:
        raise MissingError(f"{what}: no image{'' if name is None else f' called {name[:300]!r}'}")
    if len(found) > 1:
        names = ", ".join(repr(item.tags[0] if item.tags else item.config) for item in found[:8])
        raise SpecError(f"{what}: {len(found)} images, expected one: {names}")
    return found[0]


def _find(index: Index, name: str | None, what: str) -> Descriptor:
    if name is not None:
        named = [item for item in index.manifests if (CONTAINERD_NAME, name) in item.annotations]
        if len({item.digest for item in named}) == 1:
            return named[0]
    return find_entry(index, name, what=what)


def _from_list(archive: Archive, listed: Listed, what: str) -> StoredImage:
    raw = archive.read_member(listed.config, limit=MAX_CONFIG)
    config = parse_config(raw)
    if len(listed.layers) != len(config.diff_ids):
        raise SpecError(
            f"{what}: {_LIST} lists {len(listed.layers)} layers, its config {config.digest} {len(config.diff_ids)}"
        )
    blobs = {config.digest: listed.config}
    layers = []
    for name, diff_id in zip(listed.layers, config.diff_ids, strict=True):
        layer = _layer(archive, name, diff_id)
        blobs[layer.digest] = name
        layers.append(layer.to_json())
    described = Descriptor(media_type=MediaType.DOCKER_CONFIG, digest=config.digest, size=len(raw))
    document = {"schemaVersion": 2, "mediaType": str(MediaType.DOCKER_MANIFEST)}
    made = json.dumps({**document, "config": described.to_json(), "layers": layers}, separators=(",", ":")).encode()
    manifest = parse_image_manifest(made, MediaType.DOCKER_MANIFEST)
    return load_image(Archive(path=archive.path, places=archive.places, blobs=blobs), manifest)


def _layer(archive: Archive, name: str, diff_id: Digest) -> Descriptor:
    with archive.open_member(name) as file:
        start = file.read(4)
    media_type = next(kind for magic, kind in _LAYER_TYPES if start.startswith(magic))
    # A plain tar's digest is its diff_id, which reading proves; of a compressed one nobody has said it yet.
    digest = diff_id if media_type is MediaType.DOCKER_LAYER else _hash(archive, name)
    return Descriptor(media_type=media_type, digest=digest, size=archive.places[name][1])


def _hash(archive: Archive, name: str) -> Digest:
    digester = Digester("sha256")
    try:
        with archive.open_member(name) as file:
            while chunk := file.read(CHUNK):
                digester.feed(chunk)
        return Digest("sha256", digester.hexdigest())
    finally:
        digester.close()
