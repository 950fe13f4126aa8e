"""A broker for tests: as `pratique broker` runs it, at the time that a file says.

python -m tests.runtime.broker.serve STORE STATE SOCKET CGROUP-PARENT CLOCK PARKED START-GID LOOK-GID [FAULT]

FAULT is source text that is executed first.
"""

from __future__ import annotations

import signal
import sys
from datetime import datetime
from pathlib import Path

from pratique.commands.broker import CommandLine
from runtime.broker.roles import Roles
from runtime.broker.server import Broker, listen
from runtime.host import Host
from runtime.linux.constants import PR_SET_PDEATHSIG
from runtime.linux.syscalls import prctl
from runtime.state import StateStore
from runtime.store import Store


def main(words: list[str]) -> None:
    """Serve until SIGTERM."""
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # a test run that is killed takes it along
    store, state, path, parent, clock, parked, start_gid, look_gid, *fault = words
    for source in fault:
        exec(source, {})  # noqa: S102  # the test's own
    roles = Roles(start_gid=int(start_gid) or None, look_gid=int(look_gid) or None)
    broker = Broker(
        host=Host.open(Store.open(Path(store))),
        store=StateStore.open(Path(state)),
        front=CommandLine(Path(store), Path(state)),
        roles=roles,
        listener=listen(Path(path), roles),
        clock=lambda: datetime.fromisoformat(Path(clock).read_text()),
        parked=int(parked),
        watch_interval=0.1,
        patience=3,
        cgroup_parent=parent,
        log=lambda text: print(text, file=sys.stderr),  # noqa: T201
        on_ready=lambda: print("is up", file=sys.stderr),  # noqa: T201
    )
    signal.signal(signal.SIGTERM, lambda *_: broker.stop())
    broker.run()


if __name__ == "__main__":
    main(sys.argv[1:])
