"""Confined children that run beside the judge's own work: started once a key, awaited by whoever needs the result.

One thread, one selector: `step` feeds pipes, collects answers, and hands finished ones to the function that was given
with the task. Nothing here blocks but `step`, and that for its timeout at most.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Final, Protocol

from registry.judge.child import Child, Outcome, Spawner
from registry.judge.confine import Limits

CHUNK: Final = 256 * 1024
POLL_SECONDS: Final = 0.02
"""How often a growing file is looked at while nothing of it is waiting to be passed on."""

IDLE_SECONDS: Final = 60.0
"""An upload that does not grow for so long is no longer followed; its blob is read when it is needed."""


class Feed(Protocol):
    """Where a child's bytes come from, if not from a file that it can read by itself."""

    def read(self) -> bytes | None:
        """The next bytes, b"" for now none, None at the end."""

    def close(self) -> None:
        """Give up the source."""


@dataclass(slots=True, kw_only=True)
class Stream:
    """A feed from a stored object."""

    source: BinaryIO

    def read(self) -> bytes | None:
        """See `Feed`."""
        return self.source.read(CHUNK) or None

    def close(self) -> None:
        """See `Feed`."""
        self.source.close()


@dataclass(slots=True, kw_only=True)
class GrowingFile:
    """A feed from an upload's file; `final` is its size, once that is known. It ends there, or when it idles."""

    descriptor: int
    final: int | None = None
    position: int = 0
    _grew: float = field(default_factory=time.monotonic)

    def read(self) -> bytes | None:
        """See `Feed`."""
        if self.final is not None and self.position >= self.final:
            return None
        wanted = CHUNK if self.final is None else min(CHUNK, self.final - self.position)
        chunk = os.pread(self.descriptor, wanted, self.position)
        self.position += len(chunk)
        if chunk:
            self._grew = time.monotonic()
        elif time.monotonic() - self._grew > IDLE_SECONDS or self.final is not None:
            # Idle, or shorter than it was said to be: the child sees a cut-off layer, and what it says is not used.
            return None
        return chunk

    def close(self) -> None:
        """See `Feed`."""
        os.close(self.descriptor)


Done = Callable[[Outcome], None]


@dataclass(slots=True, kw_only=True)
class _Task:
    key: str
    child: Child
    done: Done
    feed: Feed | None = None
    pipe: int = -1
    pending: memoryview = field(default_factory=lambda: memoryview(b""))

    def starved(self) -> bool:
        """True while its child could take bytes that are not there yet."""
        return self.feed is not None and not self.pending


class Tasks:
    """The running children, by key."""

    def __init__(self, spawner: Spawner, *, limit: int) -> None:
        """At most `limit` children run at a time."""
        self._spawner, self._limit = spawner, limit
        self._tasks: dict[str, _Task] = {}
        self._selector = selectors.DefaultSelector()

    @property
    def full(self) -> bool:
        """True if no further child may be started now."""
        return len(self._tasks) >= self._limit

    @property
    def busy(self) -> bool:
        """True while any child runs."""
        return bool(self._tasks)

    def running(self, key: str) -> bool:
        """True while the task `key` runs."""
        return key in self._tasks

    def watch(self, descriptor: int) -> None:
        """Let `step` return early when `descriptor` is readable."""
        self._selector.register(descriptor, selectors.EVENT_READ, None)

    def start(
        self,
        key: str,
        work: str,
        arguments: Mapping[str, str | int],
        *,
        sources: Sequence[int] = (),
        feed: Feed | None = None,
        limits: Limits,
        done: Done,
    ) -> None:
        """Start `work` as the task `key`, on `sources` (the caller's to close) or on what `feed` gives.

        `done` is called from `step` with the outcome; the feed is closed in any case.

        Raises:
            OSError: no child could be started.
        """
        reader = writer = -1
        try:
            if feed is not None:
                reader, writer = os.pipe2(os.O_CLOEXEC)
            child = self._spawner.spawn(
                work, arguments, sources=[*([reader] if feed is not None else []), *sources], limits=limits
            )
        except OSError as error:
            if feed is not None:
                feed.close()
            if writer >= 0:
                os.close(writer)
            raise OSError(error.errno, f"no child for {work}: {error.strerror or error}") from error
        finally:
            if reader >= 0:
                os.close(reader)
        task = _Task(key=key, child=child, done=done, feed=feed, pipe=writer)
        self._tasks[key] = task
        self._selector.register(child, selectors.EVENT_READ, task)
        if feed is not None:
            os.set_blocking(writer, False)
            self._pump(task)

    def step(self, timeout: float) -> bool:
        """Move everything on that can be moved, waiting at most `timeout` seconds for something to happen.

        True if a task has ended.
        """
        ended = False
        if any(task.starved() for task in self._tasks.values()):
            timeout = min(timeout, POLL_SECONDS)
        if self._tasks:
            timeout = min(timeout, 1.0)  # deadlines are looked at
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, _Task) and key.events & selectors.EVENT_WRITE:
                self._pump(key.data)
        for task in tuple(self._tasks.values()):
            if task.starved():
                self._pump(task)
            outcome = self._poll(task)
            if outcome is not None:
                ended = True
                del self._tasks[task.key]
                task.done(outcome)
        return ended

    def stop(self, key: str) -> None:
        """End the task `key` without an outcome; no error if there is none."""
        task = self._tasks.pop(key, None)
        if task is not None:
            self._selector.unregister(task.child)
            task.child.kill()
            self._end_feed(task)

    def close(self) -> None:
        """End all tasks."""
        for key in tuple(self._tasks):
            self.stop(key)
        self._selector.close()

    def _poll(self, task: _Task) -> Outcome | None:
        # The descriptor is closed with the outcome, so it must leave the selector before.
        self._selector.unregister(task.child)
        outcome = task.child.poll()
        if outcome is None:
            self._selector.register(task.child, selectors.EVENT_READ, task)
        else:
            self._end_feed(task)
        return outcome

    def _pump(self, task: _Task) -> None:
        """Pass bytes on until the pipe is full, or there are none for now."""
        while task.feed is not None:
            if not task.pending:
                try:
                    chunk = task.feed.read()
                except OSError:
                    chunk = None  # the child sees the cut, and what it says is not used
                if chunk is None:
                    self._end_feed(task)
                    return
                if not chunk:
                    self._want_writable(task, wanted=False)
                    return
                task.pending = memoryview(chunk)
            try:
                task.pending = task.pending[os.write(task.pipe, task.pending) :]
            except BlockingIOError:
                self._want_writable(task, wanted=True)
                return
            except OSError:
                self._end_feed(task)
                return

    def _want_writable(self, task: _Task, *, wanted: bool) -> None:
        with contextlib.suppress(KeyError):
            self._selector.unregister(task.pipe)
        if wanted:
            self._selector.register(task.pipe, selectors.EVENT_WRITE, task)

    def _end_feed(self, task: _Task) -> None:
        if task.feed is None:
            return
        self._want_writable(task, wanted=False)
        os.close(task.pipe)
        task.feed.close()
        task.feed, task.pending = None, memoryview(b"")
