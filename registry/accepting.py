"""Has web processes that are replaced take no more connections, a while before they are told to stop.

The server closes, when it is told to stop, a connection that it has accepted and not heard from yet, and its client,
who has just connected, sees it lost. After a reload others accept at the same socket: so the old processes stop
accepting first, and stop once those that they did accept have had time to say what they want
(docs/adr/0193-accepting-ends-first.md).

The server has no word for that. Its runtime is told of a connection by an epoll instance, so the socket is taken out of
that one: it accepts what it was told of, and hears of no more.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import threading
from contextlib import closing, suppress
from typing import Final

RETIRE: Final = signal.SIGUSR1
"""Asks the parent of web processes to stop while others serve at the same socket; SIGTERM: because nobody is to."""

HEAR_SECONDS: Final = 2.0
"""How long a connection that was accepted last has for the head of its request, TLS included."""

_EPOLL: Final = "anon_inode:[eventpoll]"


class Accepting:
    """Whether the processes that were forked since this was made accept connections at a socket; made before them."""

    def __init__(self, listener: socket.socket) -> None:
        """They do."""
        self._listener = listener
        self._ended, self._until = os.pipe()  # both closed at exec, and neither ever written to

    def follow(self) -> None:
        """In a process that was forked: end it there when the parent does, by a thread; or when the parent ends."""
        os.close(self._until)
        listener = os.fstat(self._listener.fileno())
        threading.Thread(target=self._wait, args=(listener,), name="accepting", daemon=True).start()

    def end(self) -> None:
        """In the parent: nobody accepts any more; once."""
        os.close(self._until)

    def _wait(self, listener: os.stat_result) -> None:
        while os.read(self._ended, 1):
            pass
        leave(listener)


def leave(listener: os.stat_result) -> None:
    """Take a socket out of every epoll instance of this process, by whatever descriptors it is known there.

    To be closed afterwards is nothing that its owner has to mind: to take it out again is an error without effect
    (epoll_ctl(2), ENOENT). Were the descriptor put to another use instead, the kernel would go on to report the socket.
    """
    instances, descriptors = [], []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 -- names are all that is wanted
        with suppress(OSError):  # closed meanwhile
            if os.readlink(f"/proc/self/fd/{name}") == _EPOLL:  # noqa: PTH115 -- as above
                instances.append(int(name))
            elif os.path.samestat(os.fstat(int(name)), listener):
                descriptors.append(int(name))
    for instance in instances:
        with suppress(OSError), closing(select.epoll.fromfd(os.dup(instance))) as epoll:
            for descriptor in descriptors:
                with suppress(OSError):
                    epoll.unregister(descriptor)
