"""Memory and processor time of the registry's processes, from proc(5)."""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PROC: Final = Path("/proc")


@dataclass(slots=True)
class Used:
    """What the processes of one kind use: bytes resident (shared ones counted in each), and processor seconds."""

    count: int = 0
    resident: int = 0
    seconds: float = 0.0


def family(supervisor: int) -> dict[str, Used]:
    """What the supervisor and all below it use, by what they are: `supervisor`, `web`, `judge`, `reader`, …"""
    parents: dict[int, tuple[int, int, float]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            with suppress(OSError, ValueError, IndexError):
                parents[int(entry.name)] = _stat(entry)
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, (parent, _, _) in parents.items():
        children[parent].append(pid)
    found: defaultdict[str, Used] = defaultdict(Used)
    waiting = [(supervisor, "supervisor")] if supervisor in parents else []
    while waiting:
        pid, name = waiting.pop()
        _, resident, seconds = parents[pid]
        used = found[name]
        used.count, used.resident, used.seconds = used.count + 1, used.resident + resident, used.seconds + seconds
        waiting += [(child, _name(child, name)) for child in children[pid]]
    return dict(found)


def _stat(entry: Path) -> tuple[int, int, float]:
    """Parent, resident bytes, and processor seconds of the process (proc_pid_stat(5))."""
    rest = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
    return int(rest[1]), int(rest[21]) * _PAGE, (int(rest[11]) + int(rest[12])) / _TICKS


def _name(pid: int, parent: str) -> str:
    """What a child of a process is: by its command line, or by what its parent forks."""
    with suppress(OSError):
        words = (_PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        if parent == "supervisor" and len(words) > 3 and words[1] == b"-m":
            return (words[3] if words[2] == b"registry.run" else words[2].rpartition(b".")[2]).decode(
                "ascii", "replace"
            )
    return {"keeper": "reader"}.get(parent, parent)
