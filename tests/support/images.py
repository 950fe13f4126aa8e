"""Builds real images from dicts of files, in memory or as an OCI layout, docker archive or `dir:` folder.

    base = image(layers=[{"etc/os-release": b"ID=debian\n", "bin/sh": File(b"...", mode=0o755)}])
    app = image(layers=[{"srv/app.py": "print()"}], parent=base, entrypoint=["/bin/sh"], env=["A=1"])
    base.write_layout(folder, "base:1")

The tars are made by the standard library's tarfile, so a fault in our own reader or writer cannot agree
with itself. Everything is deterministic: the same arguments give the same digests.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from backports import zstd

from ocispec.config import ImageConfig, parse_config
from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.manifest import Index, Manifest, parse_manifest
from ocispec.platform import Platform

MTIME = 1_700_000_000
"""The modification time of every file that says nothing else."""

LAYER_TYPES = {
    ("oci", "none"): MediaType.OCI_LAYER,
    ("oci", "gzip"): MediaType.OCI_LAYER_GZIP,
    ("oci", "zstd"): MediaType.OCI_LAYER_ZSTD,
    ("docker", "none"): MediaType.DOCKER_LAYER,
    ("docker", "gzip"): MediaType.DOCKER_LAYER_GZIP,
    ("docker", "zstd"): MediaType.DOCKER_LAYER_ZSTD,
}


@dataclass(frozen=True, slots=True)
class File:
    """A regular file."""

    data: bytes = b""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: int = MTIME
    xattrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dir:
    """A directory."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = MTIME
    xattrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link, or with `hard` a second name for an earlier member."""

    target: str
    hard: bool = False


@dataclass(frozen=True, slots=True)
class Node:
    """A FIFO, or a device: `kind` is `fifo`, `chr` or `blk`."""

    kind: str
    major: int = 0
    minor: int = 0
    mode: int = 0o644


Content = bytes | str | File | Dir | Link | Node
"""What stands at a path; bytes and str are a file with mode 0644."""

LayerSpec = Mapping[str, Content] | bytes
"""A layer: paths with their contents (in this order; missing parents are not added), or a finished tar."""


def tar(files: Mapping[str, Content], *, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002 - tarfile's own word
    """The uncompressed tar of `files`; a path ending in `/` is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as archive:
        for path, content in files.items():
            info, data = _member(path, content)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def _member(path: str, content: Content) -> tuple[tarfile.TarInfo, bytes]:
    if isinstance(content, str):
        content = content.encode()
    if isinstance(content, bytes):
        content = Dir() if path.endswith("/") else File(content)
    info = tarfile.TarInfo(path.rstrip("/") or ".")
    info.mtime = MTIME
    match content:
        case File():
            info.size = len(content.data)
        case Dir():
            info.type = tarfile.DIRTYPE
        case Link():
            info.type = tarfile.LNKTYPE if content.hard else tarfile.SYMTYPE
            info.linkname, info.mode = content.target, 0o777
        case Node():
            info.type = {"fifo": tarfile.FIFOTYPE, "chr": tarfile.CHRTYPE, "blk": tarfile.BLKTYPE}[content.kind]
            info.devmajor, info.devminor, info.mode = content.major, content.minor, content.mode
    if isinstance(content, File | Dir):
        info.mode, info.uid, info.gid, info.mtime = content.mode, content.uid, content.gid, content.mtime
        info.pax_headers = {f"SCHILY.xattr.{name}": value for name, value in content.xattrs.items()}
    return info, content.data if isinstance(content, File) else b""


def compress(data: bytes, compression: str) -> bytes:
    """`data` as `none`, `gzip` or `zstd`, without a time stamp."""
    match compression:
        case "gzip":
            return gzip.compress(data, compresslevel=6, mtime=0)
        case "zstd":
            return bytes(zstd.compress(data))
        case _:
            return data


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltLayer:
    """A layer in memory; implements ocispec.image.Layer."""

    descriptor: Descriptor
    diff_id: Digest
    blob: bytes = field(repr=False)
    tar: bytes = field(repr=False)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The stored bytes; they are right by construction."""
        yield io.BytesIO(self.blob)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltImage:
    """An image in memory; implements ocispec.image.Image."""

    manifest: Manifest
    config: ImageConfig
    layers: tuple[BuiltLayer, ...]

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.manifest.digest

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        """The layers' diff_ids, lowest first."""
        return self.config.diff_ids

    @property
    def descriptor(self) -> Descriptor:
        """The manifest's descriptor with its platform, as an index lists it."""
        return Descriptor(
            media_type=self.manifest.media_type,
            digest=self.manifest.digest,
            size=len(self.manifest.raw),
            platform=self.config.platform,
        )

    @property
    def blobs(self) -> dict[Digest, bytes]:
        """Config and layer blobs by digest (the manifest is not one)."""
        return {self.config.digest: self.config.raw} | {layer.descriptor.digest: layer.blob for layer in self.layers}

    def write_layout(self, folder: Path, tag: str | None = None) -> Path:
        """Add this image to the OCI layout in `folder` (made if it is not there); returns the folder."""
        return write_layout(folder, [self], tag=tag)

    def write_docker_archive(self, path: Path, tag: str = "example.test/image:1") -> Path:
        """Write what `docker save` of old wrote: manifest.json, <config>.json, <diff_id>/layer.tar."""
        names = [f"{layer.diff_id.hex}/layer.tar" for layer in self.layers]
        listed = [{"Config": f"{self.config.digest.hex}.json", "RepoTags": [tag], "Layers": names}]
        members: dict[str, Content] = {f"{self.config.digest.hex}.json": self.config.raw}
        members |= {name: layer.tar for name, layer in zip(names, self.layers, strict=True)}
        path.write_bytes(tar(members | {"manifest.json": json.dumps(listed)}))
        return path

    def write_dir(self, folder: Path) -> Path:
        """Write containers-transports(5)'s `dir:` form: version, manifest.json, blobs named by their hex."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "version").write_text("Directory Transport Version: 1.1\n")
        (folder / "manifest.json").write_bytes(self.manifest.raw)
        for digest, content in self.blobs.items():
            (folder / digest.hex).write_bytes(content)
        return folder


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIndex:
    """An index in memory, with the images it lists."""

    index: Index
    images: tuple[BuiltImage, ...]

    @property
    def digest(self) -> Digest:
        """The index's digest."""
        return self.index.digest

    @property
    def descriptor(self) -> Descriptor:
        """The index's descriptor."""
        return Descriptor(media_type=self.index.media_type, digest=self.index.digest, size=len(self.index.raw))

    def write_layout(self, folder: Path, tag: str | None = None) -> Path:
        """Add index and images to the OCI layout in `folder`; only the index is listed."""
        write_layout(folder, list(self.images), listed=False)
        _put_blob(folder, self.index.digest, self.index.raw)
        _list(folder, self.descriptor, tag)
        return folder


def image(
    layers: Sequence[LayerSpec] = ({"etc/": b"", "etc/motd": b"hello\n"},),
    *,
    parent: BuiltImage | None = None,
    entrypoint: Sequence[str] | None = None,
    cmd: Sequence[str] | None = None,
    env: Sequence[str] | None = None,
    user: str | None = None,
    working_dir: str | None = None,
    volumes: Sequence[str] | None = None,
    stop_signal: str | None = None,
    labels: Mapping[str, str] | None = None,
    config: Mapping[str, object] | None = None,
    platform: str = "linux/amd64",
    compression: str = "gzip",
    flavour: str = "oci",
    created: str = "2026-01-01T00:00:00Z",
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
) -> BuiltImage:
    """An image of `layers` on top of the layers and config of `parent`.

    `config` holds further top-level members of the config document, or replaces those made here.
    `flavour` is `oci` or `docker`: which media types are written.
    """
    below = parent.layers if parent is not None else ()
    built = below + tuple(layer(spec, compression=compression, flavour=flavour) for spec in layers)
    document = _config_document(built, platform, created, parent)
    _set(document["config"], Entrypoint=entrypoint, Cmd=cmd, Env=env, User=user, WorkingDir=working_dir)
    _set(document["config"], StopSignal=stop_signal, Labels=labels)
    _set(document["config"], Volumes={path: {} for path in volumes} if volumes is not None else None)
    raw_config = _json({**document, **(config or {})})
    config_type = MediaType.OCI_CONFIG if flavour == "oci" else MediaType.DOCKER_CONFIG
    manifest_type = MediaType.OCI_MANIFEST if flavour == "oci" else MediaType.DOCKER_MANIFEST
    members: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": str(manifest_type),
        "config": _described(raw_config, config_type).to_json(),
        "layers": [item.descriptor.to_json() for item in built],
    }
    _set(members, annotations=annotations, subject=subject.to_json() if subject is not None else None)
    manifest = parse_manifest(_json(members), manifest_type)
    assert isinstance(manifest, Manifest)
    return BuiltImage(manifest=manifest, config=parse_config(raw_config), layers=built)


def layer(spec: LayerSpec, *, compression: str = "gzip", flavour: str = "oci") -> BuiltLayer:
    """One layer of `spec`."""
    data = spec if isinstance(spec, bytes) else tar(spec)
    blob = compress(data, compression)
    descriptor = _described(blob, LAYER_TYPES[flavour, compression])
    return BuiltLayer(descriptor=descriptor, diff_id=Digest.of(data), blob=blob, tar=data)


def index(images: Sequence[BuiltImage], *, others: Sequence[Descriptor] = (), flavour: str = "oci") -> BuiltIndex:
    """An index of `images`, each under its own platform, then of `others` as they are."""
    kind = MediaType.OCI_INDEX if flavour == "oci" else MediaType.DOCKER_INDEX
    listed = [item.descriptor.to_json() for item in images] + [item.to_json() for item in others]
    parsed = parse_manifest(_json({"schemaVersion": 2, "mediaType": str(kind), "manifests": listed}), kind)
    assert isinstance(parsed, Index)
    return BuiltIndex(index=parsed, images=tuple(images))


def write_layout(folder: Path, images: Sequence[BuiltImage], *, tag: str | None = None, listed: bool = True) -> Path:
    """Add `images` to the OCI layout in `folder`; `tag` goes to the last of them."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    for position, item in enumerate(images, start=1):
        for digest, content in item.blobs.items():
            _put_blob(folder, digest, content)
        _put_blob(folder, item.digest, item.manifest.raw)
        if listed:
            _list(folder, item.descriptor, tag if position == len(images) else None)
    return folder


def _config_document(
    layers: Sequence[BuiltLayer], platform: str, created: str, parent: BuiltImage | None
) -> dict[str, dict[str, object]]:
    inherited = json.loads(parent.config.raw)["config"] if parent is not None else {}
    where = Platform.parse(platform)
    document: dict[str, object] = {"created": created, **where.to_json(), "config": dict(inherited)}
    document["rootfs"] = {"type": "layers", "diff_ids": [str(item.diff_id) for item in layers]}
    document["history"] = [{"created": created, "created_by": f"layer {n}"} for n in range(len(layers))]
    return document  # type: ignore[return-value]  # only its member "config" is used as a dict


def _set(members: dict[str, object], **values: object) -> None:
    for name, value in values.items():
        if value is not None:
            members[name] = list(value) if isinstance(value, tuple) else value


def _described(content: bytes, media_type: str) -> Descriptor:
    return Descriptor(media_type=media_type, digest=Digest.of(content), size=len(content))


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _put_blob(folder: Path, digest: Digest, content: bytes) -> None:
    path = folder / "blobs" / digest.algorithm / digest.hex
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def _list(folder: Path, descriptor: Descriptor, tag: str | None) -> None:
    path = folder / "index.json"
    listed = json.loads(path.read_bytes())["manifests"] if path.exists() else []
    entry = descriptor.to_json()
    if tag is not None:
        entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    listed = [item for item in listed if item != entry] + [entry]
    path.write_bytes(_json({"schemaVersion": 2, "manifests": listed}))
