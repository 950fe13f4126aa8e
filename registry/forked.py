"""Processes that are forked from one that has imported what they need, so that they share its memory.

Modules are most of what a process of the registry holds: imported in each of six, they would be six copies. The
supervisor imports them once (`preload`), does by then what each would do first (`prepared.py`), keeps the collector of
cycles away from all that (`settle`), and forks; a page is copied only where a process writes to it. Python writes to
whatever it looks at (it counts references), so what a forked process need not do again is memory that it does not
take: some ten kilobytes for each function. Nothing that one process alone may know may ever be in the supervisor's
memory: what needs the signer's key at a start is done `apart`.

Each process shows in its command line what it is, as if it had been started by that.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final, NoReturn

from registry.errors import RegistryError

_M_ARENA_MAX: Final = -8  # malloc.h

_libc: Final = ctypes.CDLL(None)
_libc.mallopt.argtypes = [ctypes.c_int, ctypes.c_int]
_libc.mallopt.restype = ctypes.c_int
_libc.malloc_trim.argtypes = [ctypes.c_size_t]
_libc.malloc_trim.restype = ctypes.c_int

_DONE: Final = b"done"


def preload(modules: Iterable[str], once: Iterable[tuple[str, str]] = ()) -> None:
    """Import what is to be forked.

    `once` are functions, by module and name, that use what is imported or made only when it is used.
    """
    for name in modules:
        importlib.import_module(name)
    for name, function in once:
        getattr(importlib.import_module(name), function)()


def settle() -> None:
    """Have what is there stay where it is, before the first fork; not to be called again."""
    gc.collect()
    _libc.malloc_trim(0)  # what was free is new to each process that needs it, and nobody's before
    # Looking for cycles writes into each object; what is frozen is not looked at, by children neither.
    gc.freeze()


class Forked:
    """A process that runs a module's `main`, with the interface of `subprocess.Popen` as far as it is needed.

    `multiprocessing` would do the same, with half a megabyte of its own in each process.
    """

    def __init__(
        self, module: str, arguments: Sequence[str], *given: object, closed: Sequence[socket.socket] = ()
    ) -> None:
        """Start it, in a session of its own, without the sockets `closed`.

        `arguments` are its command line; `given` are objects of this process that `main` is called with.

        Raises:
            OSError: it cannot be started.
        """
        self.returncode: int | None = None
        """Its exit code, negative for a signal; None while it was not seen to have ended."""
        place = _command_line()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # or it would be written twice
        self.pid = os.fork()
        if self.pid == 0:
            _end_with(lambda: _run(module, arguments, given, closed, place))
        while self.poll() is None and os.getpgid(self.pid) != self.pid:
            time.sleep(0.001)  # until it can be killed with all that it starts

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._look(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        """Its exit code, once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not, after so many seconds.
        """
        if timeout is None:
            return self._look(0)
        ends = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > ends:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _look(self, options: int) -> int | None:
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, options)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


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


def _end_with(work: Callable[[], int]) -> NoReturn:
    """Do `work`, and end with the code that it returns, or with 1 if it fails, which is shown."""
    code = 1
    try:
        code = work()
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _run(
    module: str,
    arguments: Sequence[str],
    given: Sequence[object],
    closed: Sequence[socket.socket],
    place: tuple[int, int],
) -> int:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    os.setsid()
    for each in closed:
        each.close()
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    os.close(nothing)
    # mallopt(3): threads would have heaps of their own, each with what was needed there once; they take turns anyway.
    _libc.mallopt(_M_ARENA_MAX, 2)
    sys.argv = [module, *arguments]
    _show((sys.executable, "-m", module, *arguments), place)
    code: int = importlib.import_module(module).main(*given)
    return code


def _show(words: Sequence[str], place: tuple[int, int]) -> None:
    """Have the command line in /proc say this, as far as there is room."""
    start, end = place
    if 0 < start < end:
        size = end - start
        line = b"\0".join(map(os.fsencode, words))[: size - 1]
        ctypes.memmove(start, line.ljust(size, b"\0"), size)


@cache
def _command_line() -> tuple[int, int]:
    """Where the command line of this process, and of all that are forked from it, begins and ends; 0, 0 if unknown."""
    with suppress(OSError, IndexError, ValueError):
        # proc_pid_stat(5): arg_start and arg_end are fields 48 and 49; behind the name begins field 3.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return int(fields[45]), int(fields[46])
    return 0, 0
