"""A process that does nothing but fork slots: small, of one thread, without the broker's keys, proofs and sockets.

It is a fresh interpreter (`python -m runtime.broker.nursery FD`), gets the slots' facts as its first message, and then
one message for each slot: `N` for one with a network of its own, `H` with the host's. The answer is the broker's end of
the new slot's connection. It ends with the broker; its slots that supervise a container do not.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import socket
import sys

from runtime.broker import wire
from runtime.broker.slot import SlotFacts, slot
from runtime.linux import syscalls


def main(fd: int) -> None:
    """Fork slots until the broker is gone."""
    control = socket.socket(fileno=fd)
    control.set_inheritable(False)
    syscalls.prctl_name("pratique-nurse")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps
    facts: SlotFacts = pickle.loads(wire.receive(control)[0])  # noqa: S301  # from the broker, which started us
    gc.collect()
    # What is frozen is not written to by collections, so slots share it.
    gc.freeze()
    gc.disable()
    while kind := wire.receive(control)[0]:
        ours, theirs = wire.pair()
        if os.fork() == 0:
            slot(theirs, facts, own_network=kind == b"N")
        wire.send(control, kind, [ours.fileno()])
        ours.close()
        theirs.close()


if __name__ == "__main__":
    main(int(sys.argv[1]))
