"""Run by test_s3_memory.py as a process: uploads in every way, without a byte on a local disk, and tells its memory."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ocispec.digest import Digest
from registry.settings_storage import S3Settings
from registry.store.s3 import S3Store

CHUNK: Final = bytes(range(256)) * 256
"""64 KiB, as they come from a socket."""


def chunks(count: int) -> Iterator[bytes]:
    """A body, as it comes."""
    for _ in range(count):
        yield bytes(bytearray(CHUNK))  # each of its own memory


def peak() -> int:
    """The most that this process ever had in memory, in bytes (proc(5), VmHWM)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024


def main() -> None:
    """Upload `size` bytes by a put, and by a session of two requests; what is read back is read in pieces."""
    wanted = json.loads(sys.argv[1])
    size = wanted.pop("size")
    count = size // len(CHUNK)
    store = S3Store(S3Settings(**wanted))
    digest = Digest.of(b"".join(chunks(1)))
    store.put(digest, chunks(1))  # whatever is imported late is there
    running = __import__("hashlib").sha256()
    for chunk in chunks(count):
        running.update(chunk)
    whole = Digest("sha256", running.hexdigest())
    before = peak()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # whoever writes to a file is killed (SIGXFSZ)
    store.put(whole, chunks(count))
    store.delete(whole)
    upload = store.append(store.begin(), chunks(count // 2))
    upload = S3Store(S3Settings(**wanted)).append(upload, chunks(count - count // 2))  # its hash is not known there
    store.commit(upload, whole)
    with store.open(whole) as stream:
        read = 0
        while piece := stream.read(2**20):
            read += len(piece)
    assert read == size
    sys.stdout.write(f"{peak() - before}\n")


if __name__ == "__main__":
    main()
