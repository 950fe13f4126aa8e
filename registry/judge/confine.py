"""Runs one function on hostile bytes in a child that can do nothing else: no files, no network, no time.

The child, before it reads a byte of the image,

 (1) keeps null as its standard streams, the pipe for its answer, and its sources, and closes all else;
 (2) dies when its parent dies (PR_SET_PDEATHSIG);
 (3) limits its memory, processor time, descriptors, file size and core;
 (4) leaves for new network, mount, IPC, UTS and PID namespaces - through a user namespace where it is not root;
 (5) makes an empty folder its root;
 (6) becomes an unprivileged user (if it was root) without capabilities, for good (no_new_privs), that nobody
     can trace (PR_SET_DUMPABLE);
 (7) may make no process and no socket, and run no program (seccomp).

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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from ocispec.errors import SpecError
from scanner.errors import ScanError

Work = Callable[[Sequence[int]], tuple[bytes, ...]]
"""What a child does: takes the descriptors of its sources, returns the parts of its answer."""

ANSWER_FD: Final = 3
FIRST_SOURCE_FD: Final = 4
MAX_MESSAGE: Final = 2000

# linux/prctl.h and linux/sched.h
_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_SECCOMP = 22
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000
_CLONE_THREAD = 0x00010000
_NAMESPACES = _CLONE_NEWNS | _CLONE_NEWUTS | _CLONE_NEWIPC | _CLONE_NEWPID | _CLONE_NEWNET

# linux/seccomp.h and asm/unistd.h
_KILL = 0x8000_0000
_ALLOW = 0x7FFF_0000
_ERRNO = 0x0005_0000
_CLONE3 = 435
_IO_URING_SETUP = 425
_MACHINES: Final = {
    # machine: (AUDIT_ARCH_*, clone, (fork, vfork, execve, execveat, socket, connect, ptrace, mount, unshare, setns,
    # open_by_handle_at, bpf, userfaultfd, perf_event_open, process_vm_readv, process_vm_writev, keyctl, add_key,
    # request_key, io_uring_setup))
    "x86_64": (
        0xC000003E,
        56,
        (57, 58, 59, 322, 41, 42, 101, 165, 272, 308, 304, 321, 323, 298, 310, 311, 250, 248, 249, _IO_URING_SETUP),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        (221, 281, 198, 203, 117, 40, 97, 268, 265, 280, 282, 241, 270, 271, 219, 217, 218, _IO_URING_SETUP),
    ),
}

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


def begin(work: Work, *, cell: Cell, limits: Limits, sources: Sequence[int], answer: int) -> int:
    """Fork a child that does `work`, and return its pid; `sources` and `answer` stay the caller's to close.

    The caller is single-threaded: a lock that another thread holds stays locked in the child for ever.

    Raises:
        OSError: no process could be made.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _child(work, cell, limits, sources, answer, parent)
    return pid


# ---- in the child: no logging, no locks, and always os._exit -----------------------------------------


def _child(work: Work, cell: Cell, limits: Limits, sources: Sequence[int], answer: int, parent: int) -> NoReturn:
    try:
        _only_descriptors(sources, answer)  # (1)
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
    _work(work, range(FIRST_SOURCE_FD, FIRST_SOURCE_FD + len(sources)))


def _only_descriptors(sources: Sequence[int], answer: int) -> None:
    null = os.open(os.devnull, os.O_RDWR)
    # First out of the way, so that no dup2 overwrites one that is still needed.
    high = [fcntl.fcntl(number, fcntl.F_DUPFD, 100) for number in (null, null, null, answer, *sources)]
    for number, kept in enumerate(high):
        os.dup2(kept, number)
    os.closerange(len(high), 2**31 - 1)


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
    if not _install_filter():  # (7)
        failure = failure or "no seccomp filter for this machine"
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
    os.closerange(ANSWER_FD, 100)
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


def _install_filter() -> bool:
    """Refuse with EPERM what a reader never does, whatever the namespaces leave open; threads are needed.

    clone3 hides its flags behind a pointer, so it is answered ENOSYS, and the C library falls back to clone.
    """
    machine = _MACHINES.get(os.uname().machine)
    if machine is None:
        return False
    architecture, clone, refused = machine
    load, equal, any_bit, stop = 0x20, 0x15, 0x45, 0x06  # BPF_LD|W|ABS, JMP|JEQ|K, JMP|JSET|K, RET|K (bpf_common.h)
    program = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 1, 0, architecture),
        (stop, 0, 0, _KILL),
        (load, 0, 0, 0),  # seccomp_data.nr; the x32 calls have bit 30 set
        (any_bit, 0, 1, 0x4000_0000),
        (stop, 0, 0, _KILL),
        (equal, 0, 1, _CLONE3),
        (stop, 0, 0, _ERRNO | 38),
        (equal, 0, 4, clone),
        (load, 0, 0, 16),  # the low half of the first argument: flags
        (any_bit, 0, 1, _CLONE_THREAD),
        (stop, 0, 0, _ALLOW),
        (stop, 0, 0, _ERRNO | 1),
    ]
    for number in refused:
        program += [(equal, 0, 1, number), (stop, 0, 0, _ERRNO | 1)]
    program.append((stop, 0, 0, _ALLOW))
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    holder = ctypes.create_string_buffer(header, len(header))
    return bool(_libc.prctl(_PR_SET_SECCOMP, 2, ctypes.addressof(holder), 0, 0) == 0)


def _work(work: Work, sources: Sequence[int]) -> NoReturn:
    try:
        parts = work(sources)
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
