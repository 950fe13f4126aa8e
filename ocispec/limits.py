"""How much of a layer we read: the one place for its numbers, each with the reason for its size.

What comes from an image is hostile (L5: bombs of ratio, of declared size, of number). Output is metered
as it is produced; no declared size is ever believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one layer (`nodes`: on one image); sizes in bytes."""

    tar: int = 64 * 1024**3
    """Uncompressed layer. Real ones with machine-learning libraries reach about 10 GiB."""

    ratio: int = 200
    """Uncompressed per stored byte, beyond `ratio_free`. Real layers stay below 20; deflate can do 1,032."""

    ratio_free: int = 256 * 1024**2
    """Uncompressed bytes to which `ratio` does not apply: a layer may hold one preallocated file of zeros."""

    window_log: int = 27
    """Largest zstd window, as a power of two: 128 MiB, the default limit of the zstd command."""

    streams: int = 1_000_000
    """gzip members or zstd frames in one layer; eStargz and zstd:chunked make about one a file."""

    entries: int = 1_000_000
    """Members of one layer; the largest real ones have some 300,000."""

    nodes: int = 2_000_000
    """Members of all layers of an image, and directories that they imply."""

    path_bytes: int = 256 * 1024**2
    """All paths and link targets of a layer together: 1,000,000 members of 256 bytes."""

    meta: int = 1024**2
    """One extended header (x, g, L or K); 64 KiB is the most that Linux keeps in one attribute."""

    meta_total: int = 256 * 1024**2
    """All extended headers of a layer together."""


LIMITS: Final = Limits()
"""The limits that registry, scanner and hosts share; others only in tests."""
