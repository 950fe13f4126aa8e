"""One small image through every work, before anything is confined.

Python imports modules, codecs and data files when they are first used, and a confined child has no files to import
from. What this image passes through is loaded in the keeper, and every child inherits it.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from functools import cache
from typing import Final

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.inflate import inflate
from policy import canonical
from registry import assemble
from registry.judge.works import WORKS, bundle
from scanner import codec

_LICENCE: Final = b"Format: copyright-format/1.0\n\nFiles: *\nLicense: MIT\n"
_PROGRAM: Final = b"\x7fELF\x02\x01" + bytes(10) + b"\x02\x00" + bytes(46)
_FILES: Final[dict[str, bytes]] = {
    "etc/os-release": b'ID=debian\nVERSION_ID="13"\n',
    "etc/passwd": b"root:x:0:0::/root:/bin/sh\n",
    "etc/group": b"root:x:0:\n",
    "usr/bin/tool": _PROGRAM,
    "usr/bin/stray": _PROGRAM,
    "usr/share/doc/tool/copyright": _LICENCE,
    "var/lib/dpkg/status": b"Package: tool\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:1.0~rc1-1\n",
    "var/lib/dpkg/info/tool.list": b"/usr/bin/tool\n/usr/share/doc/tool/copyright\n",
    "var/lib/dpkg/info/tool.md5sums": hashlib.md5(_PROGRAM, usedforsecurity=False).hexdigest().encode()
    + b"  usr/bin/tool\n",
    "usr/lib/python3/dist-packages/thing-1.0.dist-info/METADATA": b"Metadata-Version: 2.4\nName: thing\nVersion: 1.0\n"
    b"License-Expression: MIT OR Apache-2.0\n\n\xff",
    "usr/lib/python3/dist-packages/thing-1.0.dist-info/RECORD": b"thing.py,sha256=47DEQpj8HBSa-_TImW-5JC,0\n",
    "usr/lib/python3/dist-packages/old.egg-info/PKG-INFO": b"Name: old\nVersion: 1.0\nLicense: GNU GPL v2 or later\n",
    "usr/lib/python3/dist-packages/thing.py": b"",
    "odd\udcff": b"x",
}


@cache
def warm() -> None:
    """Do every work once, here, or in the process that this one was forked from.

    Raises:
        SpecError, ScanError: the registry's own code does not work.
    """
    tar = _tar()
    first, second = _read(tar, MediaType.OCI_LAYER), _read(tar, MediaType.OCI_LAYER)
    source = bundle([*first[1:], *second[1:]])
    raw, _ = _with(source, "image", {"layers": 2})
    inventory = assemble.load(raw, layers=2).inventory
    source = bundle([canonical.encode(assemble.clean(codec.to_json(inventory)))])
    _with(source, "match", {"now": 1_800_000_000})
    for compression in ("gzip", "zstd"):
        try:
            inflate(io.BytesIO(b"no layer"), compression, what="warming up").read(1)
        except SpecError:
            continue


def _tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for path, content in _FILES.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def _read(content: bytes, media_type: str) -> tuple[bytes, ...]:
    digest = str(Digest.of(content))
    source = os.memfd_create("warm", os.MFD_CLOEXEC)
    os.write(source, content)
    os.lseek(source, 0, os.SEEK_SET)
    return _with(source, "layer", {"mediaType": media_type, "digest": digest, "size": len(content), "diffId": digest})


def _with(source: int, work: str, arguments: dict[str, str | int]) -> tuple[bytes, ...]:
    try:
        return WORKS[work](dict(arguments), [source])
    finally:
        os.close(source)
