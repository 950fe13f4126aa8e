"""A layer's stored bytes made into its tar: streaming, bounded, to the very end.

RFC 1952 section 2.2 allows several gzip members, RFC 8878 section 3.1 several zstd frames and skippable
ones, in one stream: all are decoded. Anything else behind them is refused, for one reader would skip it
and another would not (L2). What is produced is metered while it is produced (L5).

gzip is inflated by isal, two to three times faster than zlib, which is the fallback.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import BinaryIO, Final, Protocol

from ocispec.errors import LimitError, SpecError, UnsupportedError
from ocispec.limits import LIMITS, Limits
from ocispec.verify import Stream

try:
    from backports import zstd
except ImportError:  # Python 3.14 has it under this name
    from compression import zstd  # type: ignore[no-redef, import-not-found]  # one of the two exists

try:
    from isal.igzip_lib import DECOMP_GZIP, IgzipDecompressor, IsalError

    _GZIP_ERRORS: tuple[type[Exception], ...] = (zlib.error, IsalError)  # type: ignore[assignment]  # the stub calls this class an instance
except ImportError:
    _GZIP_ERRORS = (zlib.error,)

_STORED: Final = 256 * 1024
"""Stored bytes read at once."""

_FED: Final = 16 * 1024
"""Stored bytes given to a decoder at once: what it does not need it copies, for each of many small streams."""

_MAGIC: Final[dict[str, tuple[bytes, ...]]] = {
    "gzip": (b"\x1f\x8b\x08",),
    "zstd": (b"\x28\xb5\x2f\xfd", *(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60))),
}
_RESERVED_FLAGS: Final = 0xE0
"""Bits of a gzip member's FLG that must be zero (RFC 1952 section 2.3.1.2)."""


class Decoder(Protocol):
    """Decodes one gzip member or zstd frame; the interface of bz2.BZ2Decompressor."""

    @property
    def eof(self) -> bool:
        """The end was reached, and its checksum was right."""

    @property
    def needs_input(self) -> bool:
        """Nothing more comes out without more input."""

    @property
    def unused_data(self) -> bytes:
        """What was behind the end."""

    def decompress(self, data: bytes | memoryview, max_length: int = -1, /) -> bytes:
        """Decode up to `max_length` bytes."""


class ZlibDecoder:
    """Python's own zlib as a Decoder, where isal is not installed."""

    def __init__(self) -> None:
        self._object = zlib.decompressobj(wbits=31)
        self._full = False

    @property
    def eof(self) -> bool:
        """See Decoder."""
        return self._object.eof

    @property
    def needs_input(self) -> bool:
        """See Decoder."""
        return not self._full

    @property
    def unused_data(self) -> bytes:
        """See Decoder."""
        return self._object.unused_data

    def decompress(self, data: bytes | memoryview, max_length: int = -1, /) -> bytes:
        """See Decoder; a negative length is not asked for here."""
        chunk = self._object.decompress(self._object.unconsumed_tail + data, max_length)
        # zlib may hold output back without an unconsumed tail: a full answer says that there may be more.
        self._full = bool(self._object.unconsumed_tail) or len(chunk) == max_length
        return chunk


def _gzip_decoder(_: Limits) -> Decoder:
    if len(_GZIP_ERRORS) == 1:
        return ZlibDecoder()
    decoder: Decoder = IgzipDecompressor(flag=DECOMP_GZIP)
    return decoder


def _zstd_decoder(limits: Limits) -> Decoder:
    decoder: Decoder = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: limits.window_log})
    return decoder


_DECODERS: Final[dict[str, Callable[[Limits], Decoder]]] = {"gzip": _gzip_decoder, "zstd": _zstd_decoder}
_ERRORS: Final[tuple[type[Exception], ...]] = (*_GZIP_ERRORS, zstd.ZstdError)


class Inflater(Stream):
    """The decoded bytes of `stored`, of which it reads every byte. Closing closes `stored` too."""

    def __init__(
        self,
        stored: BinaryIO,
        compression: str,
        *,
        limits: Limits,
        what: str,
        decoder: Callable[[Limits], Decoder] | None = None,
    ) -> None:
        super().__init__()
        self._stored = stored
        self._compression = compression
        self._limits = limits
        self._what = what
        self._make = decoder or _DECODERS[compression]
        self._magic = _MAGIC[compression]
        self._decoder: Decoder | None = None
        self._chunk = b""  # stored bytes that were read
        self._at = 0  # how many of them the decoders have had
        self._before = 0  # stored bytes before this chunk
        self._made = 0
        self._streams = 0
        self._ended = False

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to `size` bytes, all that is left if it is negative or None; empty at the end.

        Raises:
            SpecError: not what the compression's specification says, cut short, or followed by garbage.
            LimitError: more than the limits allow.
        """
        if size is None or size < 0:
            return self.readall()
        while size and not self._ended:
            if self._decoder is None:
                self._ended = not self._next_stream()
            elif chunk := self._decode(self._decoder, size):
                return chunk
        return b""

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # every writable buffer is a memoryview's source
        """Like `read`, into `buffer`."""
        view = memoryview(buffer).cast("B")
        chunk = self.read(len(view))
        view[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        """Close the stored stream too."""
        if not self.closed:
            self._stored.close()
        super().close()

    @property
    def _position(self) -> int:
        return self._before + self._at

    def _more(self) -> bool:
        """Read on; what the decoders have not had is kept."""
        chunk = self._stored.read(_STORED)
        self._before += self._at
        self._chunk = self._chunk[self._at :] + chunk
        self._at = 0
        return bool(chunk)

    def _next_stream(self) -> bool:
        while len(self._chunk) - self._at < 4 and self._more():
            pass
        head = self._chunk[self._at : self._at + 4]
        if not head and self._streams:
            return False
        if not head.startswith(self._magic) or (
            self._compression == "gzip" and len(head) == 4 and head[3] & _RESERVED_FLAGS
        ):
            where = f"at stored byte {self._position}"
            raise SpecError(
                f"{self._what}: {where}: got {head.hex() or 'nothing'}, expected a {self._compression} header"
            )
        self._streams += 1
        if self._streams > self._limits.streams:
            raise LimitError(f"{self._what}: more than {self._limits.streams} {self._compression} streams in one layer")
        self._decoder = self._make(self._limits)
        return True

    def _decode(self, decoder: Decoder, size: int) -> bytes:
        data = memoryview(b"")
        if decoder.needs_input:
            if self._at == len(self._chunk) and not self._more():
                where = f"after {self._position} stored bytes"
                raise SpecError(f"{self._what}: {self._compression} stream cut short {where}")
            data = memoryview(self._chunk)[self._at : self._at + _FED]
        try:
            chunk = decoder.decompress(data, size)
        except _ERRORS as error:
            where = f"near stored byte {self._position}"
            raise SpecError(f"{self._what}: not {self._compression} {where}: {error}") from error
        self._at += len(data)
        self._made += len(chunk)
        self._meter()
        if not (data or chunk or decoder.eof or decoder.needs_input):
            raise SpecError(f"{self._what}: {self._compression} decoder stands still at stored byte {self._position}")
        if decoder.eof:
            self._at -= len(decoder.unused_data)
            self._decoder = None
        return chunk

    def _meter(self) -> None:
        limits = self._limits
        if self._made > limits.tar:
            raise LimitError(f"{self._what}: inflates to more than {limits.tar} bytes")
        if self._made > limits.ratio_free + limits.ratio * self._position:
            raise LimitError(
                f"{self._what}: {self._position} stored bytes inflate to {self._made}, "
                f"expected at most {limits.ratio} times as many and {limits.ratio_free} more"
            )


def inflate(stored: BinaryIO, compression: str, *, limits: Limits = LIMITS, what: str) -> BinaryIO:
    """The tar in `stored`; `compression` is a value of `ocispec.descriptor.COMPRESSION`.

    With `none` it is `stored` itself: the reader of the tar has its own bounds.

    Raises:
        UnsupportedError: a compression that we do not read.
    """
    if compression == "none":
        return stored
    if compression not in _DECODERS:
        raise UnsupportedError(
            f"{what}: compression {compression[:40]!r} is not supported, expected none, gzip or zstd"
        )
    return Inflater(stored, compression, limits=limits, what=what)
