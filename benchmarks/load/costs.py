"""What a server's processes cost: processor time and memory, of a process with all that it started."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def tree(pid: int) -> list[int]:
    """A process and everything below it."""
    found = [pid]
    with suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                for child in (task / "children").read_text().split():
                    found += tree(int(child))
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time that a tree has taken so far, that of ended and waited for children included."""
    return sum(_ticks(each) for each in tree(pid)) / _TICKS


def _ticks(pid: int) -> int:
    with suppress(OSError):
        # proc_pid_stat(5): utime, stime, cutime, cstime are fields 14 to 17; the name before them may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15]))
    return 0


def memory(pid: int) -> int:
    """Bytes of a tree: the proportional set size, in which a page that n processes share counts once (proc(5))."""
    return sum(_pss(each) for each in tree(pid))


def _pss(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0


@dataclass(slots=True)
class Peak:
    """The most that a tree held while it was watched, in bytes."""

    bytes: int = 0


@contextmanager
def watched(pid: int, seconds: float = 0.05) -> Iterator[Peak]:
    """Look at the memory of a tree, every so often, while the block runs."""
    peak, over = Peak(), threading.Event()

    def look() -> None:
        while not over.wait(seconds):
            peak.bytes = max(peak.bytes, memory(pid))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
        peak.bytes = max(peak.bytes, memory(pid))
