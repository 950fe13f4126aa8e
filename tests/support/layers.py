"""Tars made byte by byte, so that a test can write what no tool would: `archive(member(b"a", data=b"1"), ...)`.

Every field of a header can be set or spoilt; the checksum is made right last unless the test says otherwise.
For ordinary images use `images.py`, whose tars the standard library writes.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from ocispec.entry import Member
from ocispec.layer import LayerContent, read_layer
from ocispec.limits import LIMITS, Limits
from ocispec.tar import Visitor

POSIX = b"ustar\x0000"
GNU = b"ustar  \x00"
V7 = bytes(8)
END = bytes(1024)
MTIME = 1_700_000_000


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    link: bytes = b"",
    magic: bytes = POSIX,
    device: tuple[int, int] = (0, 0),
    prefix: bytes = b"",
    fields: Mapping[int, bytes] | None = None,
    checksum: bytes | None = None,
) -> bytes:
    """One header block; `fields` are bytes to put at offsets, before the checksum is made."""
    block = bytearray(512)
    for offset, value in {
        0: name[:100],
        100: b"%07o\0" % mode,
        108: b"%07o\0" % uid,
        116: b"%07o\0" % gid,
        124: b"%011o\0" % size,
        136: b"%011o\0" % mtime,
        148: b" " * 8,
        156: kind,
        157: link[:100],
        257: magic,
        329: b"%07o\0" % device[0] if kind in (b"3", b"4") else b"",
        337: b"%07o\0" % device[1] if kind in (b"3", b"4") else b"",
        345: prefix,
        **(fields or {}),
    }.items():
        block[offset : offset + len(value)] = value
    block[148:156] = b"%06o\0 " % sum(block) if checksum is None else checksum
    return bytes(block)


def padded(data: bytes) -> bytes:
    """`data` with zeros up to a whole block."""
    return data + bytes(-len(data) % 512)


def record(keyword: bytes, value: bytes) -> bytes:
    """One pax record."""
    rest = b" " + keyword + b"=" + value + b"\n"
    length = len(rest)
    while length != len(rest) + len(str(length)):
        length = len(rest) + len(str(length))
    return str(length).encode() + rest


def pax(records: Mapping[bytes, bytes], kind: bytes = b"x") -> bytes:
    """An extended header."""
    data = b"".join(record(keyword, value) for keyword, value in records.items())
    return header(b"PaxHeaders/x", kind, size=len(data)) + padded(data)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's header for a long name (`L`) or link target (`K`)."""
    return header(b"././@LongLink", kind, size=len(name) + 1, magic=GNU) + padded(name + b"\0")


def member(
    name: bytes,
    kind: bytes = b"0",
    data: bytes = b"",
    *,
    mode: int | None = None,
    uid: int = 0,
    gid: int = 0,
    mtime: int = MTIME,
    link: bytes = b"",
    device: tuple[int, int] = (0, 0),
    xattrs: Mapping[bytes, bytes] | None = None,
    extended: Mapping[bytes, bytes] | None = None,
) -> bytes:
    """A whole member; what does not fit into its header goes into a pax header before it."""
    records = dict(extended or {})
    if len(name) > 100:
        records.setdefault(b"path", name)
    if len(link) > 100:
        records.setdefault(b"linkpath", link)
    for key, value in (("uid", uid), ("gid", gid)):
        if value >= 8**7:
            records.setdefault(key.encode(), str(value).encode())
    if not 0 <= mtime < 8**11:
        records.setdefault(b"mtime", str(mtime).encode())
    for attribute, content in (xattrs or {}).items():
        records[b"SCHILY.xattr." + attribute] = content
    if mode is None:
        mode = 0o755 if kind == b"5" else 0o644
    block = header(
        name,
        kind,
        size=len(data),
        mode=mode,
        uid=uid if uid < 8**7 else 0,
        gid=gid if gid < 8**7 else 0,
        mtime=mtime if 0 <= mtime < 8**11 else 0,
        link=link,
        device=device,
    )
    return (pax(records) if records else b"") + block + padded(data)


def archive(*members: bytes, end: bytes = END) -> bytes:
    """A tar of `members`."""
    return b"".join(members) + end


def content(tar: bytes, *, visitor: Visitor | None = None, limits: Limits = LIMITS) -> LayerContent:
    """What the reader makes of a tar."""
    return read_layer(io.BytesIO(tar), visitor=visitor, limits=limits, what="layer test")


def members(tar: bytes) -> tuple[Member, ...]:
    """The members that the reader sees in a tar."""
    return content(tar).members


def contents(tars: Sequence[bytes]) -> tuple[LayerContent, ...]:
    """What the reader makes of several tars."""
    return tuple(content(tar) for tar in tars)


def oci_layout(folder: Path, tars: Sequence[bytes], *, tag: str = "t") -> None:
    """Write an OCI image layout whose one image has exactly these tars as its layers, uncompressed."""
    blobs = folder / "blobs/sha256"
    blobs.mkdir(parents=True, exist_ok=True)

    def put(blob: bytes, media_type: str) -> dict[str, object]:
        digest = Digest.of(blob)
        (blobs / digest.hex).write_bytes(blob)
        return {"mediaType": media_type, "digest": str(digest), "size": len(blob)}

    layers = [put(tar, MediaType.OCI_LAYER) for tar in tars]
    rootfs = {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MediaType.OCI_MANIFEST,
        "config": put(json.dumps(config).encode(), MediaType.OCI_CONFIG),
        "layers": layers,
    }
    described = put(json.dumps(manifest).encode(), MediaType.OCI_MANIFEST)
    described["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [described]}))
    (folder / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
