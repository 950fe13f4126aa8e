"""Reads a body that comes fast and in chunks ahead of who hashes and writes it, on the processor where it arrives.

The server gives each chunk of a body without a length (Go's clients: 32 KiB) from its thread of sockets to the thread
that reads, one at a time, so that both fall asleep and are woken for each. Two things take that off an upload: whoever
hashes and writes does not read, but takes what a thread that does nothing else has read; and where it is dear to
wake a thread on another processor, that thread runs where the server's threads run, and who hashes does not
(`registry/placement.py`; docs/adr/0184-chunks-are-read-ahead.md).

A body that is slow, or short, costs nothing of this: who hashes and writes it reads it too.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from typing import Final

from registry.placement import Placement

FAST: Final = 64 * 1024 * 1024
"""Bytes a second from which on it is worth a thread: a body from a network of less than half a gigabit is not."""

LOOK: Final = 4 * 1024 * 1024
"""Bytes over which the speed is taken."""

PIECES: Final = 16
"""Pieces that are read and not yet taken, at most; `body.READ` bytes each."""


def ahead(chunks: Generator[bytes, None, None], placement: Placement, *, fast: float = FAST) -> Iterator[bytes]:
    """The same chunks, and the same error at the same place; `chunks` is closed when this is.

    `fast` is how many bytes a second are worth it.
    """
    try:
        yield from _while_slow(chunks, fast)
        with _Ahead(chunks) as read, placement.apart():
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
                self._changed.wait_for(self._ready)
                if not self._pieces:
                    break
                chunk = self._pieces.popleft()
                self._changed.notify_all()
            yield chunk
        if self._error is not None:
            raise self._error

    def _ready(self) -> bool:
        return bool(self._pieces) or self._ended
