"""The keeper as a process: it stays what it was started as, and forks confined children.

Run as `python -m registry.keeper SOCKET CELL LEVEL JUDGE FORMAT`: where it listens, the empty folder that is its
children's root, the file that says how much is logged, the uid that may ask, and `text` or `json`. It is told what it
needs of the settings: what reads them would be in the memory of each child, and the settings too.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
from pathlib import Path

from registry import processes
from registry.judge.child import Answered
from registry.judge.confine import Cell, Limits
from registry.judge.keeper import Keeper, Local
from registry.judge.warm import warm
from registry.judge.works import WORKS
from registry.sockets import bind
from registry.telemetry import lines

_log = logging.getLogger("pratique.keeper")


def serve(path: Path, *, cell: Path, level: Path, judge: int) -> None:
    """Serve at `path` until SIGTERM; `cell` is an empty folder, `level` says how much is logged, `judge` is a uid.

    Raises:
        OSError: it cannot listen there.
    """
    processes.stand_back()
    listener = bind(path, socket.SOCK_SEQPACKET, mode=0o600, owner=(judge, -1))
    warm()
    root = os.geteuid() == 0
    confined = Cell(root=cell, uid=processes.READER_ID, gid=processes.READER_ID, require=root)
    if not root:
        _warn_if_unconfined(cell)
    stop = processes.stop_flag(level)
    with listener:
        Keeper(listener=listener, cell=confined, works=WORKS, allowed={judge}).run(stop)


def _warn_if_unconfined(cell: Path) -> None:
    spawner = Local(cell=Cell(root=cell, require=True), works={"nothing": lambda _arguments, _sources: ()})
    outcome = spawner.spawn("nothing", {}, sources=(), limits=Limits(seconds=10)).wait()
    if not isinstance(outcome, Answered):
        _log.warning("layers are read in children without namespaces of their own: %s", outcome)


def main() -> int:
    """The command line of this module."""
    path, cell, level, judge, form = sys.argv[1:]
    lines.configure("keeper", level=Path(level).read_text(), as_json=form == "json")
    processes.die_with_parent(signal.SIGTERM)
    try:
        serve(Path(path), cell=Path(cell), level=Path(level), judge=int(judge))
    except OSError as error:
        _log.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
