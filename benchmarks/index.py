"""From an uncompressed layer to its root index, SHA-256 included, beside what others take for less.

    python -m benchmarks.index [--rounds N] [--layer FILE]...

Three programs in turn, so that a busy machine is busy for all of them; medians of wall and CPU time:

- ours: read the layer strictly, hash it, merge it, write its root index;
- tarfile: the standard library in stream mode (`r|`), hashing what it reads, only lists the members;
- mkfs.erofs --tar=i: writes an index of its own, without any digest.

The layers are a Debian root file system of about 120 MB made by mmdebstrap, and one of about 600 MB with
25,000 files, whose sizes, names and depths are spread as in an image of Python and Node programs. The
target is half of tarfile's time on both.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import io
import os
import platform
import random
import resource
import shutil
import statistics
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ocispec.erofs import root_index
from ocispec.layer import read_layer
from ocispec.merge import merge
from tests.support.debian import cache, debian_layer

TARGET = 0.5
MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Medians over the rounds, in milliseconds; CPU time is of all threads and children."""

    wall: float
    cpu: float


def ours(layer: Path) -> bytes:
    """The root index of a layer."""
    with layer.open("rb", buffering=0) as tar:
        content = read_layer(tar, what=str(layer))
    return root_index(merge([content]), [content])


class _Hashing(io.RawIOBase):
    """What tarfile reads from: a file whose bytes are hashed as they are read."""

    def __init__(self, source: io.FileIO) -> None:
        super().__init__()
        self.source = source
        self.hash = hashlib.sha256()

    def read(self, size: int | None = -1, /) -> bytes:
        """Read and hash."""
        chunk = self.source.read(size if size is not None else -1) or b""
        self.hash.update(chunk)
        return chunk


def with_tarfile(layer: Path) -> bytes:
    """List a layer with the standard library, and hash it."""
    with layer.open("rb", buffering=0) as source:
        stream = _Hashing(source)
        names = 0
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for _ in tar:
                names += 1
        while stream.read(MIB):
            pass
    return b"%d %s" % (names, stream.hash.hexdigest().encode())


def with_mkfs(layer: Path) -> bytes:
    """Write mkfs.erofs's own index of a layer."""
    with tempfile.TemporaryDirectory(dir=layer.parent) as folder:
        index = Path(folder) / "index"
        subprocess.run(["mkfs.erofs", "--tar=i", "--quiet", index, layer], check=True, capture_output=True)
        return index.read_bytes()


def _cpu() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def measure(layer: Path, rounds: int) -> dict[str, Timing]:
    """Run all programs in turn, `rounds` times after one to warm the page cache."""
    programs: dict[str, Callable[[Path], bytes]] = {"pratique": ours, "tarfile": with_tarfile}
    if shutil.which("mkfs.erofs"):
        programs["mkfs.erofs"] = with_mkfs
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in programs}
    for number in range(rounds + 1):
        for name, program in programs.items():
            gc.collect()
            cpu, wall = _cpu(), time.perf_counter()
            program(layer)
            if number:
                found[name].append(((time.perf_counter() - wall) * 1000, (_cpu() - cpu) * 1000))
    return {
        name: Timing(wall=statistics.median(wall for wall, _ in pairs), cpu=statistics.median(cpu for _, cpu in pairs))
        for name, pairs in found.items()
    }


def application_layer() -> Path:
    """The layer of about 600 MB; the same bytes on every machine."""
    path = cache() / "application.tar"
    if not path.exists():
        part = path.with_suffix(".part")
        _write_application(part)
        part.rename(path)
    return path


def _write_application(path: Path) -> None:
    chance = random.Random(1)  # noqa: S311  # the same layer everywhere
    pool = chance.randbytes(32 * MIB)
    words = ["core", "util", "test", "lib", "module", "data", "index", "config", "handler", "model", "parser", "server"]
    folders = _folders(chance, words)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for folder in folders:
            tar.addfile(_member(chance, folder, tarfile.DIRTYPE))
            for number in range(12):
                name = f"{folder}/{chance.choice(words)}_{number}"
                if chance.random() < 0.04:
                    link = _member(chance, name, tarfile.SYMTYPE)
                    link.linkname = f"../{chance.choice(words)}.so.{number}"
                    tar.addfile(link)
                    continue
                file = _member(chance, name + chance.choice([".py", ".js", ".so", ".d.ts", ""]), tarfile.REGTYPE)
                # Half of the files are under 4 KB, one in a thousand is over 1 MB.
                file.size = min(int(chance.lognormvariate(8.25, 1.95)), 24 * MIB)
                start = chance.randrange(len(pool) - file.size)
                tar.addfile(file, io.BytesIO(pool[start : start + file.size]))


def _folders(chance: random.Random, words: list[str]) -> list[str]:
    found = ["usr/lib/python3/dist-packages", "usr/share/doc", "opt/app/node_modules", "usr/lib/x86_64-linux-gnu"]
    while len(found) < 2000:
        above = chance.choice(found)
        if above.count("/") < 9:
            found.append(f"{above}/{chance.choice(words)}{len(found)}")
    return sorted(found)


def _member(chance: random.Random, name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.mode = 0o755 if kind == tarfile.DIRTYPE else chance.choice([0o644, 0o644, 0o755])
    member.mtime = 1_700_000_000 + chance.randrange(10_000_000)
    return member


def report(layer: Path, rounds: int) -> bool:
    """Print one layer's table; true if the target is met and the index is always the same."""
    with layer.open("rb", buffering=0) as tar:
        members = len(read_layer(tar, what=str(layer)).members)
    print(f"\n{layer.name}: {layer.stat().st_size / 1e6:.0f} MB, {members:,} members, median of {rounds}")
    timings = measure(layer, rounds)
    base = timings["tarfile"].wall
    for name, timing in timings.items():
        print(
            f"  {name:<11} {timing.wall:7.0f} ms wall {timing.cpu:7.0f} ms CPU   {timing.wall / base:5.2f} of tarfile"
        )
    first = ours(layer)
    same = all(ours(layer) == first for _ in range(2))
    print(f"  index: {len(first):,} bytes, made again: {'byte-identical' if same else 'DIFFERENT'}")
    met = timings["pratique"].wall <= TARGET * base
    print(f"  target, half of tarfile's time: {'met' if met else 'MISSED'}")
    return met and same


def main() -> int:
    """Measure, print, and exit 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=9, help="measured rounds (default 9)")
    parser.add_argument("--layer", type=Path, action="append", help="an uncompressed tar instead of the two layers")
    arguments = parser.parse_args()
    layers = arguments.layer or [debian_layer(), application_layer()]
    print(f"Python {platform.python_version()}, {len(os.sched_getaffinity(0))} CPUs")
    results = [report(layer, arguments.rounds) for layer in layers]
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
