"""The keeper as a process: it stays what it was started as, and forks confined children."""

from __future__ import annotations

import logging
import os
import socket
from pathlib import Path

from registry import processes
from registry.judge.child import Answered
from registry.judge.confine import Cell, Limits
from registry.judge.keeper import Keeper, Local
from registry.judge.warm import warm
from registry.judge.works import WORKS
from registry.places import Places
from registry.settings import Settings
from registry.sockets import bind

_log = logging.getLogger("pratique.keeper")


def run(settings: Settings, _number: int) -> None:
    """Serve until SIGTERM."""
    processes.stand_back()
    places, judge = Places(settings), processes.judge_uid(settings)
    listener = bind(places.keeper_socket, socket.SOCK_SEQPACKET, mode=0o600, owner=(judge, -1))
    warm()
    root = os.geteuid() == 0
    cell = Cell(root=places.cell, uid=processes.READER_ID, gid=processes.READER_ID, require=root)
    if not root:
        _warn_if_unconfined(places.cell)
    stop = processes.stop_flag(places.log_level)
    with listener:
        Keeper(listener=listener, cell=cell, works=WORKS, allowed={judge}).run(stop)


def _warn_if_unconfined(cell: Path) -> None:
    spawner = Local(cell=Cell(root=cell, require=True), works={"nothing": lambda _arguments, _sources: ()})
    outcome = spawner.spawn("nothing", {}, sources=(), limits=Limits(seconds=10)).wait()
    if not isinstance(outcome, Answered):
        _log.warning("layers are read in children without namespaces of their own: %s", outcome)
