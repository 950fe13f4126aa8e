"""A store on a file system of its own, and a child that uses it: so that a test can change bytes beneath it.

    disk = Disk.of(store, folder)                  # an ext4 image of the store
    disk.do("always", "start", reference)          # mounted in a private mount namespace, and unmounted again
    disk.replace(b"good", b"evil")                 # on the disk: no inode is touched

As a module it is that child, which prints a word a step: `allowed`, a refusal's code, or what a rehash found.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from ocispec.reference import Reference
from policy.refusal import Refused
from runtime.admission import admit, verify
from runtime.host import Host
from runtime.rehash import rehash
from runtime.settings import Depth, HostSettings
from runtime.store import Store
from tests.support.ready import AMD64, WISH
from tests.support.tools import need
from tests.support.trust import NOW

_MOUNTED = 'mount -o loop,noatime "$1" "$2" || exit 99; folder=$2; shift 2; "$@"; code=$?; umount "$folder"; exit $code'


@dataclass(frozen=True, slots=True)
class Disk:
    """The image of a file system, and where it is mounted while a child uses it."""

    image: Path
    mount: Path

    @classmethod
    def of(cls, store: Path, folder: Path) -> Disk:
        """A disk with a copy of the store."""
        image, mount = folder / "disk", folder / "mounted"
        mount.mkdir()
        command = [need("mkfs.ext4"), "-q", "-d", str(store), str(image), "64M"]
        subprocess.run(command, check=True, capture_output=True)
        return cls(image, mount)

    def do(self, *steps: str) -> list[str]:
        """Carry out steps in a child, on the mounted disk: what each printed."""
        child = [sys.executable, "-m", "tests.runtime.beneath", str(self.mount), *steps]
        command = [need("unshare"), "--mount", "sh", "-c", _MOUNTED, "sh", str(self.image), str(self.mount), *child]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        return done.stdout.splitlines()

    def replace(self, old: bytes, new: bytes) -> None:
        """Put other bytes on the disk, wherever `old` is."""
        assert len(old) == len(new)
        content = self.image.read_bytes()
        assert content.count(old) == 1
        with self.image.open("r+b") as file:
            file.seek(content.index(old))
            file.write(new)


def _steps(host: Host, steps: Iterator[str]) -> Iterator[str]:
    for step in steps:
        match step:
            case "always" | "sealed":
                host.set(HostSettings(depth=Depth(step)))
            case "start":
                answer = admit(Reference.parse(next(steps)), WISH, host=host, now=NOW, platform=AMD64)
                if isinstance(answer, Refused):
                    yield answer.code
                else:
                    answer.close()
                    yield "allowed"
            case "verify":
                proven = verify(Reference.parse(next(steps)), host=host, now=NOW, platform=AMD64)
                yield proven.code if isinstance(proven, Refused) else "allowed"
            case "rehash":
                done = rehash(host.store, due=timedelta(0))
                yield " ".join(["rehashed", str(done.hashed), *(str(each.digest) for each in done.damaged)])
            case _:
                raise AssertionError(step)


if __name__ == "__main__":
    for word in _steps(Host.open(Store.open(Path(sys.argv[1]))), iter(sys.argv[2:])):
        sys.stdout.write(f"{word}\n")
