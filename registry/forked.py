"""Processes that are forked from one that has imported what they need, so that they share its memory.

Modules are most of what a process of the registry holds: imported in each of six, they would be six copies. The
supervisor imports them once (`preload`), keeps the collector of cycles away from them, and forks; a page is copied
only where a process writes to it. So nothing that one process alone may know may ever be in the supervisor's memory:
what needs the signer's key at a start is done `apart`.

Each process shows in its command line what it is, as if it had been started by that.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from registry.errors import RegistryError

_CONTEXT: Final = multiprocessing.get_context("fork")

_M_ARENA_MAX: Final = -8  # malloc.h

_DONE: Final = b"done"


def preload(modules: Iterable[str], once: Iterable[tuple[str, str]] = ()) -> None:
    """Import what is to be forked, and have it stay where it is.

    `once` are functions, by module and name, that use what is imported or made only when it is used.
    """
    for name in modules:
        importlib.import_module(name)
    for name, function in once:
        getattr(importlib.import_module(name), function)()
    gc.collect()
    # Looking for cycles writes into each object; what is frozen is not looked at, by children neither.
    gc.freeze()


class Forked:
    """A process that runs a module's `main`, with the interface of `subprocess.Popen` as far as it is needed."""

    def __init__(self, module: str, arguments: Sequence[str], *, closed: Sequence[socket.socket] = ()) -> None:
        """Start it, in a session of its own, without the sockets `closed`.

        Raises:
            OSError: it cannot be started.
        """
        self._process = _CONTEXT.Process(target=_run, args=(module, tuple(arguments), tuple(closed)))
        self._process.start()
        self.pid: int = self._process.pid or 0
        while self._process.exitcode is None and os.getpgid(self.pid) != self.pid:
            time.sleep(0.001)  # until it can be killed with all that it starts

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for a signal; None while it was not seen to have ended."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int | None:
        """The same, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, after so many seconds.
        """
        self._process.join(timeout)
        if timeout is not None and self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self._process.exitcode is None:
            os.kill(self.pid, number)


def apart(work: Callable[[], object]) -> None:
    """Do `work` in a process of its own, whose memory goes with it.

    Raises:
        Whatever `work` raises; a RegistryError for what does not come back from there.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            with os.fdopen(writer, "wb") as pipe:
                pipe.write(_problem(work))
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        told = pipe.read()
    os.waitpid(pid, 0)
    if told != _DONE:
        raise pickle.loads(told) if told else RegistryError("start: its process ended without a word")  # noqa: S301 -- ours


def _problem(work: Callable[[], object]) -> bytes:
    """What `work` raises, as bytes; _DONE for nothing."""
    try:
        work()
        sys.stdout.flush()
    except Exception as error:
        with suppress(Exception):
            told = pickle.dumps(error)
            pickle.loads(told)  # noqa: S301 -- some can be written and not read
            return told
        return pickle.dumps(RegistryError(str(error)))
    return _DONE


def _run(module: str, arguments: tuple[str, ...], closed: tuple[socket.socket, ...]) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    for each in closed:
        each.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    # mallopt(3): threads would have heaps of their own, each with what was needed there once; they take turns anyway.
    ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 2)
    sys.argv = [module, *arguments]
    _show((sys.executable, "-m", module, *arguments))
    code = importlib.import_module(module).main()
    sys.exit(code)


def _show(words: Sequence[str]) -> None:
    """Have the command line in /proc say this, as far as there is room: it is where the kernel put the first one."""
    with suppress(OSError, IndexError, ValueError):
        # proc_pid_stat(5): arg_start and arg_end are fields 48 and 49; behind the name begins field 3.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        size = end - start
        if 0 < start < end:
            line = b"\0".join(map(os.fsencode, words))[: size - 1]
            ctypes.memmove(start, line.ljust(size, b"\0"), size)
