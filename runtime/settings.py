"""What the operator of this host chose: `<store>/host/settings`, written by `pratique host set`.

Each setting is its own default's word while the file or the member is missing. A file that cannot be read stops every
start: which choice it held is not known.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from ocispec.errors import SpecError
from ocispec.strictjson import parse
from policy import canonical
from policy.errors import PolicyError
from policy.wire.members import Members
from runtime.errors import StoreError
from runtime.ownfiles import read_owned, replace_file

MAX_SETTINGS: Final = 64 * 1024


class Depth(StrEnum):
    """How deep the bytes of root index and layers are looked at, at each start; docs/security.md says against whom."""

    ALWAYS = "always"
    """Every byte is hashed at every start."""
    SEALED = "sealed"
    """Every byte is hashed once, and again each day; in between it is proven that nobody touched the file since."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """The settings of a host."""

    depth: Depth = Depth.SEALED


def read_settings(path: Path) -> HostSettings:
    """The settings in the file `path`; the defaults if there is none.

    Raises:
        StoreError: it is not ours alone, or holds what this version does not know.
    """
    if not path.exists():
        return HostSettings()
    what = f"host settings {path}"
    try:
        members = Members(parse(read_owned(path, limit=MAX_SETTINGS, what=what), what=what), what)
        members.fixed("version", "1")
        depth = members.word("depth") if members.has("depth") else Depth.SEALED
        members.end()
    except (SpecError, PolicyError) as error:
        raise StoreError(f"{what}: damaged: {error}") from None
    if depth not in {*Depth}:
        raise StoreError(f"{what}: depth: got {depth!r}, expected {' or '.join(Depth)}")
    return HostSettings(depth=Depth(depth))


def write_settings(path: Path, settings: HostSettings) -> None:
    """Keep the settings.

    Raises:
        StoreError: e.g. the disk is full; the former ones are still there.
    """
    replace_file(path, canonical.encode({"depth": settings.depth.value, "version": "1"}))
