"""The static reaper that `init` puts in front of a program: found on the host, run from a sealed memfd."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

from runtime.errors import HostError
from runtime.linux.trampoline import sealed

CANDIDATES: Final = ("/usr/bin/catatonit", "/usr/libexec/podman/catatonit", "/usr/bin/tini-static")
"""Debian's packages catatonit and tini. Both take `NAME -- PROGRAM ARGUMENTS`."""
MAX_SIZE: Final = 16 * 1024 * 1024
_PT_INTERP: Final = 3


def open_reaper(candidates: tuple[str, ...] = CANDIDATES) -> tuple[str, int]:
    """The reaper's name and a sealed copy of it.

    Raises:
        HostError: none is installed, or what is there needs a loader, which a container may not have.
    """
    for candidate in candidates:
        try:
            content = Path(candidate).read_bytes()
        except FileNotFoundError:
            continue
        if len(content) > MAX_SIZE or not is_static(content):
            raise HostError(f"reaper {candidate}: not a static ELF program of at most {MAX_SIZE} bytes")
        return Path(candidate).name, sealed("reaper", content)
    raise HostError(f"no static reaper is installed: looked for {', '.join(candidates)}")


def is_static(content: bytes) -> bool:
    """True for a 64-bit little-endian ELF program without an interpreter (elf(5))."""
    if content[:6] != b"\x7fELF\x02\x01" or len(content) < 64:
        return False
    (offset,) = struct.unpack_from("<Q", content, 32)
    size, count = struct.unpack_from("<HH", content, 54)
    if size < 56 or offset + size * count > len(content):
        return False
    kinds = [struct.unpack_from("<I", content, offset + size * number)[0] for number in range(count)]
    return bool(kinds) and _PT_INTERP not in kinds
