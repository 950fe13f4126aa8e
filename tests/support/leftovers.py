"""Nothing left behind, looked at from outside: mounts, cgroups, namespaces, loop devices, processes, descriptors.

    python -m tests.support.leftovers snapshot FILE
    python -m tests.support.leftovers compare FILE [--within SECONDS] [--ignore GLOB]...

It reads /proc and /sys only and imports nothing of the project, so that a fault of ours cannot hide itself.
`compare` exits 1 and lists what is there now and was not before; what was there and is gone is fine. It looks
again until nothing is left or the time is over, for others start and end processes too. `--ignore` leaves out
what matches (a whole line of the list, e.g. 'descriptor *sshd*').
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
_NUMBERED = re.compile(r":\[\d+\]|\d+")
_ZOMBIE = "Z"


def take(under: int | None = None, cgroups: str = "*") -> dict[str, list[str]]:
    """Everything that there is, each thing as one line, by kind.

    `under` limits processes and descriptors to the descendants of that process (which should be a subreaper,
    so that orphans come to it); `cgroups` is a glob on the first component of a group's path.
    """
    processes = dict(_processes(under))
    return {
        "mount": sorted(_mounts()),
        "cgroup": sorted(path for path in _cgroups() if fnmatch.fnmatch(path.split(":", 1)[1].split("/")[0], cgroups)),
        "namespace": sorted(_namespaces(processes)),
        "loop device": sorted(_loop_devices()),
        "process": sorted(processes.values()),
        "descriptor": sorted(_descriptors(processes)),
    }


def difference(before: dict[str, list[str]], after: dict[str, list[str]], ignore: Iterable[str] = ()) -> list[str]:
    """What is there after and was not before, as lines that begin with the kind."""
    found: list[str] = []
    for kind, things in after.items():
        more = Counter(things) - Counter(before.get(kind, []))
        found += [f"{kind} {thing}" for thing in more.elements()]
    return [line for line in found if not any(fnmatch.fnmatch(line, pattern) for pattern in ignore)]


def settle(
    before: dict[str, list[str]],
    *,
    within: float = 5.0,
    ignore: Iterable[str] = (),
    under: int | None = None,
    cgroups: str = "*",
) -> list[str]:
    """The difference, once it is empty or the time is over."""
    deadline = time.monotonic() + within
    while True:
        left = difference(before, take(under, cgroups), ignore)
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.05)


def _mounts() -> Iterator[str]:
    """Mounts of this namespace: where, of what kind, from what."""
    for line in (PROC / "self" / "mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        head, _, tail = line.partition(" - ")
        yield f"{head.split(' ')[4]} {' '.join(tail.split(' ')[:2])}"


def _cgroups() -> Iterator[str]:
    """Every group of every hierarchy, as HIERARCHY:PATH."""
    for line in (PROC / "self" / "mountinfo").read_text("utf-8", "surrogateescape").splitlines():
        head, _, tail = line.partition(" - ")
        if tail.split(" ")[0] in ("cgroup", "cgroup2"):
            top = Path(head.split(" ")[4])
            for folder, below, _ in os.walk(top):
                for name in below:
                    yield f"{top.name}:{(Path(folder) / name).relative_to(top)}"


def _namespaces(processes: dict[int, str]) -> Iterator[str]:
    """Namespaces that some process is in, and network namespaces that have a name."""
    seen: set[str] = set()
    for pid in processes:
        for kind in ("mnt", "net", "pid", "ipc", "uts", "cgroup", "user"):
            with suppress(OSError):
                seen.add(str((PROC / str(pid) / "ns" / kind).readlink()))
    yield from seen
    for folder in (Path("/run/netns"), Path("/var/run/netns")):
        with suppress(OSError):
            yield from (f"{path}" for path in folder.iterdir())


def _loop_devices() -> Iterator[str]:
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        with suppress(OSError):
            yield f"{path.parent.parent.name} {path.read_text().strip()}"


def _processes(under: int | None) -> Iterator[tuple[int, str]]:
    """Processes that are not dead yet: number, then start time and name. Arguments are nobody's business."""
    parents: dict[int, int] = {}
    shown: dict[int, str] = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            name, _, rest = (entry / "stat").read_text("utf-8", "replace").rpartition(")")
            fields = rest.split()
            parents[int(entry.name)] = int(fields[1])
            kernel_thread = fields[1] == "2" or entry.name == "2"
            if fields[0] != _ZOMBIE and not kernel_thread:
                shown[int(entry.name)] = f"{entry.name} {fields[19]} {name.partition('(')[2]}"
    for pid, line in shown.items():
        if under is None or under in _ancestors(pid, parents):
            yield pid, line


def _ancestors(pid: int, parents: dict[int, int]) -> Iterator[int]:
    while pid:
        yield pid
        pid = parents.get(pid, 0)


def _descriptors(processes: dict[int, str]) -> Iterator[str]:
    """Open descriptors of each process, without the numbers of pipes and sockets."""
    for pid, line in processes.items():
        folder = PROC / str(pid) / "fd"
        with suppress(OSError):
            for entry in folder.iterdir():
                with suppress(OSError):
                    target = str(entry.readlink())
                    if not (pid == os.getpid() and target == str(folder)):
                        yield f"{line} -> {_NUMBERED.sub('', target) if target[0] != '/' else target}"


def main(arguments: list[str]) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="leftovers", description="What is left behind on this machine.")
    parser.add_argument("action", choices=("snapshot", "compare"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--within", type=float, default=10.0, help="seconds to wait for things to end")
    parser.add_argument("--ignore", action="append", default=[], help="a glob on lines to leave out")
    options = parser.parse_args(arguments)
    if options.action == "snapshot":
        options.file.write_text(json.dumps(take()))
        return 0
    own = [f"process {os.getpid()} *", f"descriptor {os.getpid()} *"]
    left = settle(json.loads(options.file.read_text()), within=options.within, ignore=[*own, *options.ignore])
    sys.stdout.write("".join(f"left behind: {line}\n" for line in left) or "nothing is left behind\n")
    return 1 if left else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
