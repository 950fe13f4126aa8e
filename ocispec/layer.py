"""A layer read once: its digests checked, its members listed, its files shown to whoever wants them.

The tar is read in large buffers that are used again; a thread hashes (and, if asked, stores) each buffer
while it is parsed. What was scanned, stored and hashed are the same bytes.
"""

from __future__ import annotations

import queue
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, Final

from ocispec.descriptor import COMPRESSION, Descriptor
from ocispec.digest import Digest
from ocispec.entry import Member
from ocispec.errors import DigestMismatchError, LimitError, SpecError, UnsupportedError
from ocispec.inflate import inflate
from ocispec.limits import LIMITS, Limits
from ocispec.tar import BLOCK, TarParser, Visitor
from ocispec.verify import CHUNK, Digester, VerifyingReader

READER_VERSION: Final = 1
"""Goes up whenever the same tar may give another list: lists and indexes are kept by it."""

_BUFFERS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerContent:
    """What a layer holds: its members in the tar's order, and what names it.

    `diff_id` is the SHA-256 of the tar, `size` its length in bytes, a multiple of 512.
    """

    diff_id: Digest
    size: int
    members: tuple[Member, ...] = field(repr=False)


def read_layer(
    tar: BinaryIO,
    *,
    visitor: Visitor | None = None,
    copy_to: BinaryIO | None = None,
    limits: Limits = LIMITS,
    what: str,
) -> LayerContent:
    """Read an uncompressed layer to its end; `what` names it in errors, e.g. `layer sha256:...`.

    With `copy_to`, the tar's bytes are written there; after an error, what was written is worthless.
    The stream is not closed.

    Raises:
        LayerError: the tar is refused; offset, member and repair are in the error.
        LimitError: it is larger than `limits` allow.
        OSError: from reading or writing.
    """
    parser = TarParser(what=what, limits=limits, visitor=visitor)
    digester = Digester("sha256", copy_to=copy_to)
    free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
    size = 0
    try:
        for buffer, length in _buffers(tar, free, digester):
            size += length
            if size > limits.tar:
                raise LimitError(f"{what}: got more than {limits.tar} bytes")
            if length % BLOCK:
                raise SpecError(f"{what}: the tar has {size} bytes, expected a multiple of {BLOCK}")
            parser.feed(buffer, length)
        parser.finish()
        diff_id = Digest("sha256", digester.hexdigest())
    finally:
        digester.close()
    return LayerContent(diff_id=diff_id, size=size, members=tuple(parser.members))


def read_stored_layer(
    stored: BinaryIO,
    descriptor: Descriptor,
    diff_id: Digest | None,
    *,
    visitor: Visitor | None = None,
    copy_to: BinaryIO | None = None,
    limits: Limits = LIMITS,
) -> LayerContent:
    """Read a layer as it is stored: size and digest of `descriptor`, and `diff_id`, are checked on the way.

    `diff_id` is None while it is not known yet, as when a blob arrives before its config. The stream is
    not closed. Nothing learnt from the layer may be used if this raises.

    Raises:
        DigestMismatchError: the stored bytes are not the descriptor's, or the tar is not the diff_id's.
        UnsupportedError: its media type is none of a layer that we read.
        LayerError, LimitError, SpecError: the tar or its compression is refused.
        OSError: from reading or writing.
    """
    what = f"layer {descriptor.digest}"
    compression = COMPRESSION.get(descriptor.media_type)
    if compression is None:
        raise UnsupportedError(f"{what}: media type {descriptor.media_type[:80]!r} is not a layer that we read")
    if diff_id is not None and diff_id.algorithm != "sha256":
        raise UnsupportedError(f"{what}: diff_id {diff_id} is not a sha256")
    verified = VerifyingReader(
        stored, digest=descriptor.digest, size=descriptor.size, what=what, threaded=compression != "none"
    )
    try:
        tar = inflate(verified, compression, limits=limits, what=what)
        content = read_layer(tar, visitor=visitor, copy_to=copy_to, limits=limits, what=what)
    finally:
        verified.release()
    if diff_id is not None and content.diff_id != diff_id:
        raise DigestMismatchError(f"{what}: diff_id mismatch: got {content.diff_id}, want {diff_id}")
    return content


def _buffers(tar: BinaryIO, free: queue.SimpleQueue[bytearray], digester: Digester) -> Iterator[tuple[bytearray, int]]:
    """Yield the tar in buffers, full but for the last; each is hashed meanwhile, and used again after that."""
    for _ in range(_BUFFERS):
        free.put(bytearray())
    while True:
        buffer = free.get() or bytearray(CHUNK)
        length = _fill(tar, buffer)
        if not length:
            return
        digester.feed(memoryview(buffer)[:length], partial(free.put, buffer))
        yield buffer, length
        if length < len(buffer):
            return


def _fill(tar: BinaryIO, buffer: bytearray) -> int:
    view = memoryview(buffer)
    readinto = getattr(tar, "readinto", None)
    done = 0
    while done < len(buffer):
        if readinto is not None:
            count: int = readinto(view[done:]) or 0
        else:
            chunk = tar.read(len(buffer) - done)
            count = len(chunk)
            view[done : done + count] = chunk
        if not count:
            break
        done += count
    return done
