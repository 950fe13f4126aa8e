"""Which files of a layer the scanner keeps, and in what reduced form: the table of record kinds.

Everything else of a file is its checksum. A kind is told by the path as the layer spells it; the inventory checks by
the path in the merged tree that nothing was missed under another spelling.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class RecordKind(StrEnum):
    """The kinds of files whose contents say what is installed."""

    DPKG_STATUS = "dpkg-status"
    DPKG_STATUS_D = "dpkg-status.d"
    DPKG_LIST = "dpkg-list"
    DPKG_CHECKSUMS = "dpkg-md5sums"
    DPKG_CONFFILES = "dpkg-conffiles"
    DPKG_DIVERSIONS = "dpkg-diversions"
    DEB_COPYRIGHT = "deb-copyright"
    OS_RELEASE = "os-release"
    PYTHON_METADATA = "python-metadata"
    PYTHON_RECORD = "python-record"
    PYTHON_FILES = "python-installed-files"


MIB: Final = 1024 * 1024

LIMITS: Final[dict[RecordKind, int]] = {
    RecordKind.DPKG_STATUS: 64 * MIB,
    RecordKind.DPKG_STATUS_D: MIB,
    RecordKind.DPKG_LIST: 16 * MIB,
    RecordKind.DPKG_CHECKSUMS: 16 * MIB,
    RecordKind.DPKG_CONFFILES: MIB,
    RecordKind.DPKG_DIVERSIONS: 4 * MIB,
    RecordKind.DEB_COPYRIGHT: 8 * MIB,
    RecordKind.OS_RELEASE: 64 * 1024,
    RecordKind.PYTHON_METADATA: 4 * MIB,
    RecordKind.PYTHON_RECORD: 32 * MIB,
    RecordKind.PYTHON_FILES: 16 * MIB,
}
"""The largest file of each kind that is read. Real ones: status 3 MB (3,000 packages), the list of a large
documentation package 4 MB, Chromium's copyright 2 MB, RECORD of a machine-learning package 2 MB."""

DPKG: Final = b"var/lib/dpkg/"

_WHOLE: Final = {
    DPKG + b"status": RecordKind.DPKG_STATUS,
    DPKG + b"diversions": RecordKind.DPKG_DIVERSIONS,
    b"etc/os-release": RecordKind.OS_RELEASE,
    b"usr/lib/os-release": RecordKind.OS_RELEASE,
}
_INFO: Final = {
    b"list": RecordKind.DPKG_LIST,
    b"md5sums": RecordKind.DPKG_CHECKSUMS,
    b"conffiles": RecordKind.DPKG_CONFFILES,
}
_PYTHON: Final = {
    b"METADATA": (b".dist-info", RecordKind.PYTHON_METADATA),
    b"RECORD": (b".dist-info", RecordKind.PYTHON_RECORD),
    b"PKG-INFO": (b".egg-info", RecordKind.PYTHON_METADATA),
    b"installed-files.txt": (b".egg-info", RecordKind.PYTHON_FILES),
}


def record_kind(path: bytes) -> RecordKind | None:
    """The kind of the file called `path`, None for most."""
    folder, _, name = path.rpartition(b"/")
    if name in _PYTHON:
        suffix, kind = _PYTHON[name]
        if folder.endswith(suffix) or (name == b"PKG-INFO" and folder.endswith(b"/EGG-INFO")):
            return kind
        return None
    if folder.startswith(b"var/lib/dpkg"):
        return _dpkg_kind(folder, name)
    if name == b"copyright":
        # usr/share/doc/NAME/copyright, and nothing deeper.
        return RecordKind.DEB_COPYRIGHT if folder[:14] == b"usr/share/doc/" and b"/" not in folder[14:] else None
    if name == b"os-release":
        return _WHOLE.get(path)
    if name.endswith(b".egg-info"):
        return RecordKind.PYTHON_METADATA
    return None


def _dpkg_kind(folder: bytes, name: bytes) -> RecordKind | None:
    if folder == b"var/lib/dpkg":
        return _WHOLE.get(DPKG + name)
    if folder == b"var/lib/dpkg/info":
        return _INFO.get(name.rpartition(b".")[2])
    if folder == b"var/lib/dpkg/status.d":
        return RecordKind.DPKG_CHECKSUMS if name.endswith(b".md5sums") else RecordKind.DPKG_STATUS_D
    return None
