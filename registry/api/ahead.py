"""Reads a body that comes fast and in chunks ahead of who hashes and writes it, on the processor where it arrives.

The server gives each chunk of a body without a length (Go's clients: 32 KiB) from its thread of sockets to the thread
that reads, one at a time, so that both fall asleep and are woken for each. Two things take that off an upload: whoever
hashes and writes does not read, but takes what a thread that does nothing else has read; and that thread runs where
the server's threads run, so that to wake one is no message to another processor
(docs/adr/0184-chunks-are-read-ahead.md).

A body that is slow, or short, costs nothing of this: who hashes and writes it reads it too.
"""

from __future__ import annotations

import contextvars
import os
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import suppress
from typing import Final

FAST: Final = 64 * 1024 * 1024
"""Bytes a second from which on it is worth a thread: a body from a network of less than half a gigabit is not."""

LOOK: Final = 4 * 1024 * 1024
"""Bytes over which the speed is taken."""

PIECES: Final = 16
"""Pieces that are read and not yet taken, at most; `body.READ` bytes each."""

PAUSE_SECONDS: Final = 0.02
"""When nothing comes for so long, the process has all its processors again."""


def ahead(chunks: Generator[bytes, None, None], *, fast: float = FAST) -> Iterator[bytes]:
    """The same chunks, and the same error at the same place; `chunks` is closed when this is.

    `fast` is how many bytes a second are worth it.
    """
    try:
        yield from _while_slow(chunks, fast)
        with _Ahead(chunks) as read:
            yield from read
    finally:
        chunks.close()


def _while_slow(chunks: Iterator[bytes], fast: float) -> Iterator[bytes]:
    """Chunks, until LOOK bytes came at `fast` or more, or there are no more."""
    since, received = time.monotonic(), 0
    for chunk in chunks:
        received += len(chunk)
        yield chunk
        if received >= LOOK:
            now = time.monotonic()
            if received >= fast * (now - since):
                return
            since, received = now, 0


class _Ahead:
    """What a thread has read, in order; leaving the block waits for the thread, which reads on to the next chunk."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._changed = threading.Condition()
        self._pieces: deque[bytes] = deque()
        self._ended = self._left = False
        self._error: BaseException | None = None
        context = contextvars.copy_context()  # where the request is found
        self._thread = threading.Thread(target=context.run, args=(self._read,), name="body", daemon=True)

    def __enter__(self) -> Iterator[bytes]:
        self._thread.start()
        return self._taken()

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._left = True
            self._changed.notify_all()
        # First: the thread may have to wait for a chunk that is long in coming.
        PROCESSOR.give_back(self)
        self._thread.join()

    def _read(self) -> None:
        """In the thread: read until there is no more, or nobody who takes it."""
        try:
            for chunk in self._chunks:
                with self._changed:
                    self._pieces.append(chunk)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._left or len(self._pieces) < PIECES)
                    if self._left:
                        return
        except BaseException as error:  # raised where the chunks are taken
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _taken(self) -> Iterator[bytes]:
        while True:
            with self._changed:
                if not self._changed.wait_for(self._ready, PAUSE_SECONDS):
                    PROCESSOR.give_back(self)
                    self._changed.wait_for(self._ready)
                if not self._pieces:
                    break
                chunk = self._pieces.popleft()
                self._changed.notify_all()
            PROCESSOR.take(self)
            yield chunk
        if self._error is not None:
            raise self._error

    def _ready(self) -> bool:
        return bool(self._pieces) or self._ended


class Processor:
    """Puts all threads of this process on one processor but the one that asks for it, for one at a time."""

    def __init__(self) -> None:
        """Nobody has it."""
        self._lock = threading.Lock()
        self._holder: object = None
        self._before: set[int] = set()

    def take(self, holder: object) -> None:
        """Have it, unless it is somebody else's; the calling thread may run on any processor."""
        with self._lock:
            if self._holder is not None:
                return
            before = os.sched_getaffinity(0)
            if len(before) == 1:
                return
            self._holder, self._before = holder, before
            self._spread({max(before)}, but=threading.get_native_id())

    def give_back(self, holder: object) -> None:
        """Let all threads run where they could before; nothing for whoever does not have it."""
        with self._lock:
            if self._holder is holder:
                self._holder = None
                self._spread(self._before)

    def _spread(self, processors: set[int], *, but: int = 0) -> None:
        for name in os.listdir("/proc/self/task"):  # noqa: PTH208 -- names are all that is wanted
            if int(name) != but:
                with suppress(OSError):  # it has ended
                    os.sched_setaffinity(int(name), processors)


PROCESSOR: Final = Processor()
