"""What confined children are asked to do: the only code of the registry that reads an image's files.

Each work is a function of its arguments and sources alone, and answers in bytes. `keeper.py` runs them.

| work | sources | answer |
| --- | --- | --- |
| `layer` | a stored layer | diff_id, size and compression; listing; facts; account files |
| `follow` | an upload, while it arrives | stored digest and size, then as `layer` |
| `image` | all layers' listings, facts and account files (`bundle`) | assembly; root index |
| `match` | an inventory; the advisory data | report |
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Final, cast

from ocispec import fields, listing
from ocispec.descriptor import COMPRESSION, Descriptor
from ocispec.digest import Digest
from ocispec.errors import SpecError, UnsupportedError
from ocispec.fields import JsonObject
from ocispec.inflate import inflate
from ocispec.layer import LayerContent, read_layer, read_stored_layer
from ocispec.strictjson import JsonValue, parse
from policy import canonical
from policy.users import MAX_FILE
from registry import assemble
from registry.visitor import LayerVisitor
from scanner import codec, facts
from scanner.advisories.interface import Advisories
from scanner.advisories.records import Advisory, BrokenRecord, Cycle
from scanner.advisories.store import AdvisoryStore
from scanner.model import DataSource, Inventory, Report
from scanner.scan import scan

"""What the config's user is looked up in. The merged tree must have them as regular files under these names."""

_MAGIC: Final = ((b"\x1f\x8b\x08", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"))
_READ: Final = 1024 * 1024
_LENGTH = struct.Struct(">Q")


def _answer(visitor: LayerVisitor, content: LayerContent, compression: str) -> tuple[bytes, ...]:
    """The answer about a layer that was read to its end."""
    head = canonical.encode({"compression": compression, "diffId": str(content.diff_id), "size": content.size})
    accounts: list[JsonValue] = []
    for offset, path, kept in visitor.accounts:
        accounts.append([offset, path.decode(), base64.b64encode(kept).decode()])
    scanned = facts.dump(visitor.scanner.facts(content.diff_id))
    return head, listing.dump(content), scanned, canonical.encode(accounts)


def read_stored(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    """The work `layer`: digest, size, media type and diff_id (if known) are its arguments, and are checked."""
    descriptor = Descriptor(
        media_type=fields.text(arguments, "mediaType", what="layer"),
        digest=Digest.parse(fields.text(arguments, "digest", what="layer")),
        size=fields.integer(arguments, "size", what="layer"),
    )
    diff_id = fields.text(arguments, "diffId", what="layer", default="")
    visitor = LayerVisitor()
    with open(sources[0], "rb", buffering=0, closefd=False) as stored:
        content = read_stored_layer(
            cast("BinaryIO", stored), descriptor, Digest.parse(diff_id) if diff_id else None, visitor=visitor
        )
    return _answer(visitor, content, COMPRESSION[descriptor.media_type])


def read_growing(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    """The work `follow`: an upload of which neither media type nor digest is known yet, from a pipe."""
    stored = _Hashing(sources[0])
    compression = _compression(stored.peek(512))
    visitor = LayerVisitor()
    tar = inflate(cast("BinaryIO", stored), compression, what="upload")
    content = read_layer(tar, visitor=visitor, what="upload")
    if stored.read(1):
        raise SpecError("upload: bytes behind its end")
    head = canonical.encode({"digest": str(stored.digest), "stored": stored.size})
    return head, *_answer(visitor, content, compression)


def _compression(head: bytes) -> str:
    for magic, name in _MAGIC:
        if head.startswith(magic):
            return name
    if head[257:262] == b"ustar":
        return "none"
    raise UnsupportedError("upload: not a layer")


class _Hashing(io.RawIOBase):
    """A pipe's bytes, hashed as they are read."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ahead = b""
        self._hash = hashlib.sha256()
        self.size = 0

    def peek(self, count: int) -> bytes:
        """The first `count` bytes, or fewer if there are no more, without taking them."""
        while len(self._ahead) < count and (chunk := os.read(self._descriptor, count - len(self._ahead))):
            self._ahead += chunk
        return self._ahead

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # the stub's buffer protocol type is private
        """Fill `buffer` as far as bytes come at once."""
        chunk = self._ahead[: len(buffer)] or os.read(self._descriptor, min(len(buffer), _READ))
        self._ahead = self._ahead[len(chunk) :] if self._ahead else b""
        buffer[: len(chunk)] = chunk
        self._hash.update(chunk)
        self.size += len(chunk)
        return len(chunk)

    @property
    def digest(self) -> Digest:
        """The digest of all that was read."""
        return Digest("sha256", self._hash.hexdigest())


def put_together(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    """The work `image`: `layers` is their number."""
    count = fields.integer(arguments, "layers", what="image", minimum=1)
    parts = unbundle(sources[0], 3 * count)
    layers = [listing.load(part) for part in parts[0::3]]
    scanned = [facts.load(part, layer.diff_id) for part, layer in zip(parts[1::3], layers, strict=True)]
    accounts = {
        (position, offset): content
        for position, part in enumerate(parts[2::3])
        for offset, _, content in read_accounts(part, "account files")
    }
    made, index = assemble.assemble(layers, scanned, accounts)
    return assemble.dump(made), index


def match(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    """The work `match`: `now` is in seconds since the epoch; without a second source there are no advisories."""
    now = datetime.fromtimestamp(fields.integer(arguments, "now", what="match"), UTC)
    (raw,) = unbundle(sources[0], 1)
    taken = codec.from_json(Inventory, parse(raw, what="inventory", max_bytes=assemble.MAX_JSON), what="inventory")
    advisories: Advisories = NoAdvisories() if len(sources) < 2 else _advisories(sources[1])
    return (write_report(scan(taken, advisories, now=now)),)


def write_report(report: Report) -> bytes:
    """A report as canonical JSON."""
    return canonical.encode(assemble.clean(codec.to_json(report)))


def read_report(raw: bytes) -> Report:
    """The report that `match` answers.

    Raises:
        SpecError, ScanError: it is none.
    """
    return codec.from_json(Report, parse(raw, what="report", max_bytes=assemble.MAX_JSON), what="report")


class NoAdvisories:
    """No data at all: it covers nothing, so nothing counts as known to be good."""

    sources: tuple[DataSource, ...] = ()

    def covers(self, ecosystem: str) -> bool:
        """Never."""
        return False

    def advisories(self, ecosystem: str, name: str) -> tuple[Advisory, ...]:
        """None."""
        return ()

    def broken(self, ecosystem: str, name: str) -> tuple[BrokenRecord, ...]:
        """None."""
        return ()

    def exploited(self, ids: Iterable[str]) -> bool:
        """Not known to be."""
        return False

    def product_cycles(self, product: str) -> tuple[Cycle, ...]:
        """None."""
        return ()

    def purl_cycles(self, purl: str) -> tuple[Cycle, ...]:
        """None."""
        return ()


def _advisories(descriptor: int) -> AdvisoryStore:
    # There is no path to open here: the file is read, and made a database in memory.
    with open(descriptor, "rb", closefd=False) as file:
        content = file.read()
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.deserialize(content)
    return AdvisoryStore(database, Path("advisories"))


WORKS: Final[Mapping[str, Callable[[JsonObject, Sequence[int]], tuple[bytes, ...]]]] = {
    "layer": read_stored,
    "follow": read_growing,
    "image": put_together,
    "match": match,
}
"""The table of works, for the keeper."""


def bundle(parts: Sequence[bytes]) -> int:
    """A descriptor of an unnamed file that holds `parts`, for `unbundle`; the caller closes it.

    Raises:
        OSError: no memory for it.
    """
    descriptor = os.memfd_create("bundle", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            for part in parts:
                file.write(_LENGTH.pack(len(part)))
                file.write(part)
        os.lseek(descriptor, 0, os.SEEK_SET)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def unbundle(descriptor: int, count: int) -> list[bytes]:
    """The `count` parts in a file made by `bundle`.

    Raises:
        SpecError: there are fewer, or more.
    """
    parts: list[bytes] = []
    left = os.fstat(descriptor).st_size
    with open(descriptor, "rb", closefd=False) as file:
        for _ in range(count):
            header = file.read(_LENGTH.size)
            left -= len(header)
            length = _LENGTH.unpack(header)[0] if len(header) == _LENGTH.size else left + 1
            if length > left:
                raise SpecError("bundle: cut off")
            parts.append(file.read(length))
            left -= length
    if left:
        raise SpecError("bundle: bytes behind its end")
    return parts


def read_accounts(raw: bytes, what: str) -> Iterator[tuple[int, bytes, bytes]]:
    """Offset, path and content of each account file of a layer.

    Raises:
        SpecError: not what `layer` answers.
    """
    rows = parse(raw, what=what, max_bytes=64 * MAX_FILE)
    if not isinstance(rows, list):
        raise SpecError(f"{what}: expected an array")
    for row in rows:
        yield _account(row, what)


def _account(row: JsonValue, what: str) -> tuple[int, bytes, bytes]:
    match row:
        case [int(offset), str(path), str(content)]:
            try:
                return offset, path.encode(), base64.b64decode(content, validate=True)
            except ValueError:
                raise SpecError(f"{what}: content of {path[:80]!r} is not base64") from None
        case _:
            raise SpecError(f"{what}: an entry is not offset, path and content")
