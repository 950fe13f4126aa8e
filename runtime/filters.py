"""The seccomp filter of a container, compiled once and then read: the compiler is imported only where it is needed."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

VERSION: Final = 1
"""Of the compiler: a number that changes whenever it makes another filter of the same profile."""
_DATA: Final = Path(__file__).parent / "data"
_DEFAULT_FILES: Final = ("seccomp.json", "seccomp-additions.json", "syscalls.json")


def filter_for(raw: bytes | None, *, capabilities: Sequence[str], cache: Path | None = None) -> bytes:
    """The filter of this machine and kernel for a profile (None: the default) and a bounding set.

    `cache` is a folder that only we can write: compiling takes some milliseconds, reading what was
    compiled before none. A name there holds all that the filter depends on.

    Raises:
        RequestError: the profile is not understood, or there are no numbers for this machine.
    """
    system = os.uname()
    source = raw if raw is not None else b"".join((_DATA / name).read_bytes() for name in _DEFAULT_FILES)
    parts = (source, repr((VERSION, raw is None, system.machine, system.release, sorted(capabilities))).encode())
    key = hashlib.sha256(b"\0".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    stored = None if cache is None else cache / f"seccomp-{key}"
    if stored is not None:
        with contextlib.suppress(FileNotFoundError):
            return stored.read_bytes()
    program = _compile(raw, system.machine, capabilities, system.release)
    if stored is not None:
        unfinished = stored.with_suffix(f".{os.getpid()}")
        unfinished.write_bytes(program)
        unfinished.replace(stored)
    return program


def _compile(raw: bytes | None, machine: str, capabilities: Sequence[str], release: str) -> bytes:
    from runtime.linux.seccomp import compile_filter  # noqa: PLC0415  # start-up: a start finds the filter stored
    from runtime.profile import default_profile, kernel_version, parse_profile  # noqa: PLC0415

    profile = default_profile() if raw is None else parse_profile(raw)
    kernel = kernel_version(release)
    return compile_filter(profile, machine=machine, capabilities=capabilities, kernel=kernel)
