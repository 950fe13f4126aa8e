"""A process that asks the registries while something runs: a registry that hangs holds up nobody who starts.

It asks every ten seconds for newer trust, revocations and floors, and from half of its life on for a newer clearance of
each image that runs. What it learns lies in the store, where the broker sees that it changed. It ends when its standard
input does.
"""

from __future__ import annotations

import contextlib
import select
import sys
from datetime import UTC, datetime
from pathlib import Path

from runtime.broker.watching import read_watched
from runtime.errors import ContainerError
from runtime.host import Host
from runtime.model import ContainerId
from runtime.state import StateStore
from runtime.store import Store
from runtime.watch import Watcher

EVERY = 10.0
"""Seconds between two rounds."""


def main(store: Path, state: Path) -> None:
    """Go round until the broker is gone."""
    host, states = Host.open(Store.open(store)), StateStore(state)
    watchers: dict[ContainerId, Watcher] = {}
    while not select.select([sys.stdin], [], [], EVERY)[0]:
        running = states.names()
        watchers = {name: watcher for name, watcher in watchers.items() if name in running}
        for name in running:
            if name not in watchers:
                with contextlib.suppress(ContainerError, OSError):
                    what = read_watched(states, host.store, name)
                    watchers[name] = Watcher(host=host, watched=what, clock=_now, sync_every=EVERY)
        for watcher in watchers.values():
            # Asking is what it does besides; what becomes of the container is the broker's to say.
            with contextlib.suppress(Exception):
                watcher()


def _now() -> datetime:
    return datetime.now(UTC)
