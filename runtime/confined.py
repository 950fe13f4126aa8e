"""Where a host reads hostile bytes: a process of its own that has no files, no network and no privilege.

    main([SOCKET, EMPTY, PARENT])        in a fresh interpreter, which `readers.py` starts

The helper is a fresh interpreter, so nothing of the caller (credentials, connections) is in its memory. It
imports all it needs, and then, before it is given a byte of an image,

 (1) keeps null as its standard streams, and its socket; all else is closed;
 (2) dies when its parent dies;
 (3) leaves for new network, mount, IPC and UTS namespaces;
 (4) makes an empty folder its root;
 (5) becomes an unprivileged user without groups and capabilities, for good, that nobody can trace;
 (6) limits core, descriptors, memory, processor time and the size of files.

Each job is done in a child forked from it, which in addition may run no program and make no socket and no
process (seccomp). A job comes with its descriptors; its answer is one JSON object.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, NoReturn

from ocispec import erofs, fields, listing
from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.entry import Kind
from ocispec.errors import LayerError, SpecError
from ocispec.layer import read_layer, read_stored_layer
from ocispec.limits import LIMITS
from ocispec.merge import merge
from ocispec.strictjson import JsonValue, parse_object
from ocispec.tree import SYNTHETIC, Tree
from policy.users import MAX_FILE, resolve_user
from runtime.linux import constants as c
from runtime.linux import syscalls
from runtime.linux.seccomp import Argument, Condition, Profile, Rule, compile_filter

NOBODY: Final = 65534
MEMORY: Final = 4 * 1024**3
"""Bytes of address space: the lists of an image of two million files take about half."""
CPU_SECONDS: Final = 1800
MAX_JOB: Final = 64 * 1024
MAX_FDS: Final = 8
READY: Final = b"ready"

_REFUSED: Final = (
    *("execve", "execveat", "fork", "vfork", "ptrace", "mount", "umount2", "unshare", "setns", "pivot_root", "chroot"),
    *("socket", "socketpair", "connect", "bind", "listen", "accept", "accept4", "open_by_handle_at", "bpf"),
    *("userfaultfd", "perf_event_open", "process_vm_readv", "process_vm_writev", "keyctl", "add_key", "request_key"),
    *("io_uring_setup", "kexec_load", "init_module", "finit_module", "delete_module", "kill", "tkill", "tgkill"),
)
_CLONE_THREAD: Final = 0x00010000
_NAMESPACES: Final = c.CLONE_NEWNET | c.CLONE_NEWNS | c.CLONE_NEWIPC | c.CLONE_NEWUTS

Answer = dict[str, JsonValue]
Job = Callable[[dict[str, JsonValue], Sequence[int]], Answer]


def main(arguments: Sequence[str]) -> NoReturn:
    """Confine this process, say so on the socket, and do jobs until the parent is gone."""
    channel, empty, parent = int(arguments[0]), Path(arguments[1]), int(arguments[2])
    server = socket.socket(fileno=channel)
    try:
        filters = job_filter()
        confine(channel, empty, parent)
    except OSError as error:
        server.send(f"cannot be confined: {error}".encode()[:MAX_JOB])
        os._exit(1)
    server.send(READY)
    serve(server, filters)


def confine(keep: int, empty: Path, parent: int) -> None:
    """Steps 1 to 6; `keep` is the one descriptor that stays, `parent` who must still be there.

    Raises:
        OSError: one of them cannot be done; nothing hostile may be read then.
    """
    null = os.open(os.devnull, os.O_RDWR)  # (1)
    for number in range(3):
        os.dup2(null, number)
    os.closerange(3, keep)
    os.closerange(keep + 1, 2**31 - 1)
    syscalls.reset_signals()
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children reap themselves
    os.setsid()
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)  # (2)
    if os.getppid() != parent:
        os._exit(1)
    syscalls.unshare(_NAMESPACES)  # (3)
    os.chroot(empty)  # (4)
    os.chdir("/")
    os.setgroups([])  # (5)
    syscalls.setresgid(NOBODY)
    syscalls.setresuid(NOBODY)
    syscalls.capset(effective=0, permitted=0, inheritable=0)
    syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(c.PR_SET_DUMPABLE, 0)
    syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)  # a change of uid has cleared it (prctl(2))
    limits = {"CORE": 0, "NOFILE": 64, "AS": MEMORY, "CPU": CPU_SECONDS, "FSIZE": LIMITS.tar}  # (6)
    for name, value in limits.items():
        syscalls.setrlimit(f"RLIMIT_{name}", value, value)


def job_filter() -> bytes:
    """The seccomp filter of a job: what a reader never does fails with EPERM; threads it may have."""
    always, no_arguments = Condition(), ()
    refuse = c.SECCOMP_RET_ERRNO | errno.EPERM
    is_process = (Argument(index=0, operator="SCMP_CMP_MASKED_EQ", value=_CLONE_THREAD, value_two=0),)
    rules = (
        Rule(names=_REFUSED, action=refuse, arguments=no_arguments, includes=always, excludes=Condition()),
        Rule(names=("clone",), action=refuse, arguments=is_process, includes=always, excludes=Condition()),
        # Its flags are behind a pointer; the C library falls back to clone.
        Rule(
            names=("clone3",),
            action=c.SECCOMP_RET_ERRNO | errno.ENOSYS,
            arguments=no_arguments,
            includes=always,
            excludes=Condition(),
        ),
    )
    profile = Profile(default=c.SECCOMP_RET_ALLOW, rules=rules, companions={})
    release = os.uname().release.split(".")
    return compile_filter(
        profile, machine=os.uname().machine, capabilities=(), kernel=(int(release[0]), int(release[1]))
    )


def serve(server: socket.socket, filters: bytes) -> NoReturn:
    """Fork a child for each job; the last descriptor of a job is where its answer goes."""
    while True:
        message, descriptors, _, _ = socket.recv_fds(server, MAX_JOB, MAX_FDS)
        if not message:
            os._exit(0)
        me = os.getpid()
        if os.fork() == 0:
            _child(server, message, descriptors, filters, me)
        for number in descriptors:
            os.close(number)


def _child(server: socket.socket, message: bytes, descriptors: Sequence[int], filters: bytes, parent: int) -> NoReturn:
    answer: Answer
    *given, answers = descriptors
    try:
        server.close()
        syscalls.prctl(c.PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        syscalls.set_filter(filters)
        job = parse_object(message, what="job")
        answer = JOBS[fields.text(job, "job", what="job")](job, given)
    except SpecError as error:
        repair = error.repair if isinstance(error, LayerError) else ""
        answer = {"refused": str(error), "repair": repair}
    except OSError as error:
        answer = {"failed": error.strerror or str(error), "errno": error.errno or 0}
    except MemoryError:
        answer = {"refused": f"it needs more than {MEMORY} bytes of memory to be read", "repair": ""}
    except BaseException as error:  # the parent must hear of a defect, too
        answer = {"failed": f"internal error: {type(error).__name__}: {error}"[:2000], "errno": 0}
    with contextlib.suppress(OSError):
        os.write(answers, json.dumps(answer).encode())
    os._exit(0)


def do_stored(job: dict[str, JsonValue], given: Sequence[int]) -> Answer:
    """Inflate a stored layer into its tar, both digests checked: (stored, tar, listing)."""
    stored, tar, listed = given
    with os.fdopen(stored, "rb", buffering=0) as source, os.fdopen(tar, "wb", buffering=0) as target:
        content = read_stored_layer(
            source,
            Descriptor.from_json(job.get("descriptor"), what="job"),
            Digest.parse(fields.text(job, "diff_id", what="job")),
            copy_to=target,
        )
    _write(listed, listing.dump(content))
    return {"size": content.size, "members": len(content.members)}


def do_tar(job: dict[str, JsonValue], given: Sequence[int]) -> Answer:
    """Read a layer's tar that is in the store already: (tar, listing)."""
    tar, listed = given
    diff_id = fields.text(job, "diff_id", what="job")
    with os.fdopen(tar, "rb", buffering=0) as source:
        content = read_layer(source, what=f"layer {diff_id}")
    if str(content.diff_id) != diff_id:
        raise SpecError(f"layer {diff_id}: its tar in the store is {content.diff_id}")
    _write(listed, listing.dump(content))
    return {"size": content.size, "members": len(content.members)}


def do_index(job: dict[str, JsonValue], given: Sequence[int]) -> Answer:
    """Merge the layers of an image and write its root index: (listings behind each other, index)."""
    listed, target = given
    layers = []
    with os.fdopen(listed, "rb") as source:
        for size in fields.items(job, "sizes", what="job", limit=512):
            raw = source.read(size) if isinstance(size, int) else b""
            if len(raw) != size:
                raise SpecError(f"listings: cut short, expected one of {size} bytes")
            layers.append(listing.load(raw))
    diff_ids = [str(layer.diff_id) for layer in layers]
    if diff_ids != list(fields.texts(job, "diff_ids", what="job")):
        raise SpecError("listings: they are of other layers than the image's")
    tree = merge(layers)
    index = erofs.root_index(tree, layers)
    _write(target, index)
    return {
        "digest": str(Digest.of(index)),
        "passwd": _account_file(tree, b"etc/passwd"),
        "group": _account_file(tree, b"etc/group"),
    }


def do_user(job: dict[str, JsonValue], given: Sequence[int]) -> Answer:
    """Find the config's user in the image's account files: (tar with passwd, tar with group), each if it has one."""
    tars = list(given)
    passwd, group = (_part(job, name, tars) for name in ("passwd", "group"))
    found = resolve_user(fields.text(job, "user", what="job"), passwd=passwd, group=group)
    return {"uid": found.uid, "gid": found.gid, "groups": list(found.groups), "home": found.home}


JOBS: Final[dict[str, Job]] = {"stored": do_stored, "tar": do_tar, "index": do_index, "user": do_user}


def _account_file(tree: Tree, path: bytes) -> JsonValue:
    # Where its content lies: [layer, offset, size]. Not through symlinks, as in the registry (registry/assemble.py).
    node = tree.get(path)
    if node is None or node.entry.kind is not Kind.FILE or node.layer == SYNTHETIC or node.entry.size > MAX_FILE:
        return None
    return [node.layer, node.entry.offset, node.entry.size]


def _part(job: dict[str, JsonValue], name: str, tars: list[int]) -> bytes | None:
    match job.get(name):
        case [int(offset), int(size)]:
            return os.pread(tars.pop(0), size, offset)
        case _:
            return None


def _write(fd: int, content: bytes) -> None:
    with os.fdopen(fd, "wb", buffering=0) as file:
        rest = memoryview(content)
        while rest:
            rest = rest[file.write(rest) :]
