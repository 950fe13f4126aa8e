"""Runs one function on hostile bytes in a child that can do nothing else: no files, no network, no time.

The child, before it reads a byte of the image,

 (1) keeps three descriptors: null as its standard streams, its source, and the pipe for its answer;
 (2) dies when its parent dies (PR_SET_PDEATHSIG);
 (3) limits its memory, processor time, descriptors, file size and core;
 (4) leaves for new network, mount, IPC, UTS and PID namespaces - through a user namespace where it is not root;
 (5) makes an empty folder its root;
 (6) becomes an unprivileged user (if it was root) without capabilities, for good (no_new_privs), that nobody
     can trace (PR_SET_DUMPABLE);
 (7) may make no process.

Everything it needs is imported before: afterwards there is no file to import from. Its answer is one letter
and a body: `A` and length-framed parts, `R` and the reason why the work refused its input, `C` (crashed) or
`N` (not confined) and what happened.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import resource
import signal
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from ocispec.errors import SpecError
from scanner.errors import ScanError

Work = Callable[[int], tuple[bytes, ...]]
"""What a child does: takes the descriptor of its source, returns the parts of its answer."""

SOURCE_FD: Final = 3
ANSWER_FD: Final = 4
MAX_MESSAGE: Final = 2000

# linux/prctl.h and linux/sched.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET

_libc = ctypes.CDLL(None, use_errno=True)
_libc.unshare.argtypes = [ctypes.c_int]
_libc.unshare.restype = ctypes.c_int
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.prctl.restype = ctypes.c_int
_libc.capset.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
_libc.capset.restype = ctypes.c_int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a child gets: wall-clock and processor seconds, bytes of memory, bytes of answer."""

    seconds: float = 300.0
    cpu_seconds: int = 240
    memory: int = 2 * 1024**3
    answer: int = 256 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """Where children run: the empty folder that becomes their root, and the uid and gid they get if we are root.

    `require` refuses to run a child where the namespaces cannot be had, instead of running it with less.
    """

    root: Path
    uid: int = 65534
    gid: int = 65534
    require: bool = False


def begin(work: Work, *, cell: Cell, limits: Limits, source: int, answer: int) -> int:
    """Fork a child that does `work`, and return its pid; `source` (or -1) and `answer` stay the caller's to close.

    The caller is single-threaded: a lock that another thread holds stays locked in the child for ever.

    Raises:
        OSError: no process could be made.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(work, cell, limits, source, answer, parent)
    return pid


# ---- in the child: no logging, no locks, and always os._exit -----------------------------------------


def _child(work: Work, cell: Cell, limits: Limits, source: int, answer: int, parent: int) -> NoReturn:
    try:
        _only_descriptors(source, answer)  # (1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.setsid()
        _die_with_parent()  # (2)
        if os.getppid() != parent:
            os._exit(1)  # the worker was gone before the death signal was asked for
        failure = _leave(cell, limits)
    except BaseException as error:
        _answer(b"N", _shown(error))
        os._exit(0)
    if failure and cell.require:
        _answer(b"N", failure)
        os._exit(0)
    _work(work)


def _only_descriptors(source: int, answer: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    # First out of the way, so that no dup2 overwrites one that is still needed.
    high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in (null, source if source >= 0 else null, answer)]
    for standard in (0, 1, 2):
        os.dup2(high[0], standard)
    os.dup2(high[1], SOURCE_FD)
    os.dup2(high[2], ANSWER_FD)
    os.closerange(ANSWER_FD + 1, 2**31 - 1)


def _die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _leave(cell: Cell, limits: Limits) -> str:
    """Steps 3 to 7; "" if all could be done, else what could not."""
    uid, gid = os.geteuid(), os.getegid()
    root = uid == 0
    mapped = _mapped()
    failure = ""
    try:
        _unshare(_NAMESPACES if root else _NAMESPACES | _CLONE_NEWUSER)  # (4)
        if not root:
            _map_own_id(uid, gid)
        _second_fork()
        os.chroot(cell.root)  # (5)
        os.chdir("/")
    except OSError as error:
        failure = f"no namespaces of its own: {error}"
    if root:  # (6)
        os.setgroups([])
        os.setresgid(cell.gid, cell.gid, cell.gid)
        os.setresuid(cell.uid, cell.uid, cell.uid)
    _no_capabilities()
    _die_with_parent()  # a change of credentials has cleared it (prctl(2))
    _prctl(_PR_SET_DUMPABLE, 0)  # not earlier: it takes away the right to write the id maps
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _limit(limits, mapped)  # (3), after the forks that the namespaces need
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # (7)
    return failure


def _mapped() -> int:
    """Bytes of address space that the worker has mapped: the limit is for what the child adds."""
    return int(Path("/proc/self/statm").read_bytes().split()[0]) * resource.getpagesize()


def _map_own_id(uid: int, gid: int) -> None:
    # setgroups is given up before a gid may be mapped without privilege (user_namespaces(7)). Outside, the ids are
    # the overflow ids by now, so the caller passes what they were.
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        try:
            os.write(descriptor, line.encode())
        finally:
            os.close(descriptor)


def _second_fork() -> None:
    """Go on in a grandchild, which is the first process of the new PID namespace; the child waits for it."""
    pid = os.fork()
    if pid == 0:
        return
    os.closerange(SOURCE_FD, ANSWER_FD + 1)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), signal.SIGKILL)  # so that the worker sees a signal too, whichever it was
    os._exit(os.waitstatus_to_exitcode(status))


def _limit(limits: Limits, mapped: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_AS, (mapped + limits.memory, mapped + limits.memory))
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))


def _no_capabilities() -> None:
    """Give up what a new user namespace, or root, has (capset(2), version 3: two data structures)."""
    header = struct.pack("=Ii", 0x20080522, 0)
    if _libc.capset(header, bytes(24)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "capset")


def _work(work: Work) -> NoReturn:
    try:
        parts = work(SOURCE_FD)
        _write_all(b"A")
        for part in parts:
            _write_all(struct.pack(">Q", len(part)))
            _write_all(part)
    except (SpecError, ScanError) as error:
        _answer(b"R", str(error))
    except BaseException as error:
        _answer(b"C", _shown(error))
    os._exit(0)


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:MAX_MESSAGE]


def _answer(kind: bytes, message: str) -> None:
    with contextlib.suppress(OSError):
        _write_all(kind + message.encode("utf-8", "replace")[:MAX_MESSAGE])


def _write_all(content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(ANSWER_FD, view[: 1024 * 1024]) :]


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "unshare")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "prctl")
