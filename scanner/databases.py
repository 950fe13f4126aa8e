"""Does a layer write a package database? Then an approval of it alone says nothing of the image.

A good layer on an older base would hide that base's holes (layers.md, "Evidence that can be forged"; L8). Told by the
paths of the layer's members, so that nothing need be merged: it errs towards yes. A removal is a write, and so is
anything that puts another thing in place of a database's folders.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ocispec.entry import Entry, Kind, Member

_FOLDERS: Final = (
    b"var/lib/dpkg",
    b"var/lib/rpm",
    b"usr/lib/sysimage/rpm",
    b"usr/share/rpm",
    b"lib/apk/db",
    b"usr/lib/apk/db",
    b"var/lib/pacman",
)
_ABOVE: Final = frozenset(
    parent for folder in _FOLDERS for parent in (folder, folder.rpartition(b"/")[0], folder.split(b"/", 1)[0])
) | {b"", b"var/lib", b"usr/lib", b"usr/lib/sysimage", b"usr/share", b"lib/apk", b"usr/lib/apk"}
_TAILS: Final = (b"dpkg/status", b"/rpmdb.sqlite", b"/Packages.db", b"apk/db/installed")


def writes_package_database(members: Iterable[Member]) -> bool:
    """True if a layer with `members` writes, removes or displaces a package database of its image."""
    return any(map(_touches, members))


def _touches(member: Member) -> bool:
    path = member.path
    if path.startswith(_FOLDERS) and any(path[len(folder) : len(folder) + 1] == b"/" for folder in _in(path)):
        # The folder alone, or folders in it, are made by every tool that creates them: no record is written.
        return not (isinstance(member, Entry) and member.kind is Kind.DIRECTORY)
    if path.endswith(_TAILS):
        # Spelled through a symlink, perhaps.
        return True
    return path in _ABOVE and not (isinstance(member, Entry) and member.kind is Kind.DIRECTORY)


def _in(path: bytes) -> list[bytes]:
    return [folder for folder in _FOLDERS if path.startswith(folder)]
