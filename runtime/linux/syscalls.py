"""The system calls of the start path: one function each, Python types in, OSError out.

The error names the call and its object: `[Errno 22] openat2: Invalid argument: 'proc'`. Calls that the
standard library of Python 3.11 has are wrapped only where a recorder must be able to stand in. The GIL is
never released (PyDLL): a raw clone returns twice, and the second return must find the lock as it was.

A whole module is one implementation of `runtime.linux.kernel.Kernel`.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
from pathlib import Path
from typing import Final

from runtime.linux import constants as c
from runtime.linux import structs

_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long

# asm/unistd_64.h (x86) and asm-generic/unistd.h (all newer ones); from 424 on they are the same everywhere.
_OLD_NUMBERS: Final = {
    "x86_64": {"pivot_root": 155, "capset": 126, "keyctl": 250, "bpf": 321, "fstatfs": 138, "setgroups": 116},
    "aarch64": {"pivot_root": 41, "capset": 91, "keyctl": 219, "bpf": 280, "fstatfs": 44, "setgroups": 159},
}
MACHINE: Final = os.uname().machine
_NR: Final = _OLD_NUMBERS.get(MACHINE, {}) | {
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "mount_setattr": 442,
}


def _error(name: str, what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{name}: {os.strerror(number)}", what)


def _call(name: str, what: str, *arguments: object) -> int:
    number = _NR.get(name)
    if number is None:
        raise NotImplementedError(f"{name}: no system call number for {MACHINE}, got x86_64 and aarch64")
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        raise _error(name, what)
    return result


def _long(value: int) -> ctypes.c_long:
    return ctypes.c_long(value)


# Processes


def clone3(flags: int, *, cgroup_fd: int | None = None, exit_signal: int = 17) -> tuple[int, int]:
    """Fork into new namespaces; return (pid, pidfd) to the parent and (0, -1) to the child.

    `flags` are CLONE_*; CLONE_PIDFD is added, and CLONE_INTO_CGROUP with `cgroup_fd` (a cgroup v2 folder).
    The interpreter's fork hooks do not run: the caller is single-threaded, and the child ends in execve or
    os._exit.
    """
    pidfd = ctypes.c_int(-1)
    flags |= c.CLONE_PIDFD | (c.CLONE_INTO_CGROUP if cgroup_fd is not None else 0)
    arguments = structs.clone_args.pack(
        flags, ctypes.addressof(pidfd), 0, 0, exit_signal, 0, 0, 0, 0, 0, 0 if cgroup_fd is None else cgroup_fd
    )
    pid = _call("clone3", f"flags {flags:#x}", arguments, _long(len(arguments)))
    return pid, pidfd.value


def unshare(flags: int) -> None:
    """Leave the namespaces that CLONE_* `flags` name for new ones."""
    if _libc.unshare(ctypes.c_int(flags)) < 0:
        raise _error("unshare", f"flags {flags:#x}")


def pidfd_send_signal(pidfd: int, signal: int) -> None:
    """Send `signal` to the very process that `pidfd` refers to."""
    _call("pidfd_send_signal", f"signal {signal}", _long(pidfd), _long(signal), None, _long(0))


def prctl(option: int, arg2: int = 0, arg3: int = 0) -> None:
    """Change something about this process: prctl(2) with integer arguments."""
    if _libc.prctl(ctypes.c_int(option), *(ctypes.c_ulong(value) for value in (arg2, arg3, 0, 0))) < 0:
        raise _error("prctl", f"option {option}, {arg2:#x}, {arg3:#x}")


def prctl_name(name: str) -> None:
    """Name this process (at most 15 bytes), as ps(1) shows it."""
    raw = ctypes.create_string_buffer(os.fsencode(name)[:15] + b"\0")
    prctl(c.PR_SET_NAME, ctypes.addressof(raw))


def set_filter(program: bytes) -> None:
    """Load a seccomp filter, given as struct sock_filter instructions, for this process and all it starts."""
    count = len(program) // structs.sock_filter.size
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = ctypes.create_string_buffer(structs.sock_fprog.pack(count, ctypes.addressof(buffer)))
    option, mode = ctypes.c_int(c.PR_SET_SECCOMP), ctypes.c_ulong(c.SECCOMP_MODE_FILTER)
    if _libc.prctl(option, mode, ctypes.c_ulong(ctypes.addressof(fprog)), ctypes.c_ulong(0), ctypes.c_ulong(0)) < 0:
        raise _error("prctl", f"PR_SET_SECCOMP, {count} instructions")


def capset(*, effective: int, permitted: int, inheritable: int) -> None:
    """Set this process's capability sets, each a mask of 1 << CAP_*."""
    low, high = (tuple(mask >> shift & 0xFFFFFFFF for mask in (effective, permitted, inheritable)) for shift in (0, 32))
    header = structs.cap_header.pack(c.LINUX_CAPABILITY_VERSION_3, 0)
    _call("capset", f"permitted {permitted:#x}", header, structs.cap_data.pack(*low, *high))


def setgroups(groups: tuple[int, ...]) -> None:
    """Set the supplementary groups of this process."""
    try:
        os.setgroups(groups)
    except OSError as error:
        raise OSError(error.errno, f"setgroups: {error.strerror}", str(groups[:8])) from error


def setresgid(gid: int) -> None:
    """Become `gid`: real, effective and saved."""
    os.setresgid(gid, gid, gid)


def setresuid(uid: int) -> None:
    """Become `uid`: real, effective and saved."""
    os.setresuid(uid, uid, uid)


def setrlimit(name: str, soft: int, hard: int) -> None:
    """Set one resource limit; -1 is unlimited."""
    resource.setrlimit(getattr(resource, name), (soft, hard))


def setsid() -> None:
    """Start a new session, without a controlling terminal."""
    os.setsid()


def umask(mask: int) -> None:
    """Set the file mode creation mask."""
    os.umask(mask)


def reset_signals() -> None:
    """Every signal at its default and none blocked.

    execve keeps what is ignored, and Python ignores SIGPIPE and SIGXFSZ.
    """
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def raise_loopback() -> None:
    """Switch on the interface `lo` of this network namespace."""
    fd = _libc.socket(2, 0o2000002, 0)  # AF_INET, SOCK_DGRAM | SOCK_CLOEXEC: asm-generic and bits/socket_type.h
    if fd < 0:
        raise _error("socket", "AF_INET")
    try:
        answer = fcntl.ioctl(fd, c.SIOCGIFFLAGS, structs.ifreq_flags.pack(b"lo", 0))
        flags = structs.ifreq_flags.unpack(answer)[1]
        fcntl.ioctl(fd, c.SIOCSIFFLAGS, structs.ifreq_flags.pack(b"lo", flags | c.IFF_UP))
    finally:
        os.close(fd)


def join_session_keyring() -> None:
    """Replace the session keyring with a new, empty one. A kernel without keyrings has none to leak."""
    try:
        _call("keyctl", "new session keyring", _long(c.KEYCTL_JOIN_SESSION_KEYRING), None, _long(0), _long(0), _long(0))
    except OSError as error:
        if error.errno != 38:  # ENOSYS, asm-generic/errno.h
            raise


def sethostname(name: str) -> None:
    """Set the host name of this UTS namespace."""
    raw = os.fsencode(name)
    if _libc.sethostname(raw, ctypes.c_size_t(len(raw))) < 0:
        raise _error("sethostname", name)


def execve(program: str | int, argv: tuple[str, ...], env: tuple[str, ...]) -> None:
    """Become `program` (a path, or an open descriptor) with exactly this argument list and environment."""
    arguments = (ctypes.c_char_p * (len(argv) + 1))(*map(os.fsencode, argv), None)
    environment = (ctypes.c_char_p * (len(env) + 1))(*map(os.fsencode, env), None)
    if isinstance(program, int):
        _libc.fexecve(ctypes.c_int(program), arguments, environment)
    else:
        _libc.execve(os.fsencode(program), arguments, environment)
    raise _error("execve", str(program))


# Descriptors and paths


def open_path(path: str, flags: int, *, dir_fd: int | None = None) -> int:
    """open(2), close-on-exec; for paths that are the host's own."""
    return os.open(path, flags | os.O_CLOEXEC, dir_fd=dir_fd)


def openat2(dir_fd: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below `dir_fd` under RESOLVE_* rules, close-on-exec."""
    how = structs.open_how.pack(flags | os.O_CLOEXEC, mode, resolve)
    return _call("openat2", path, _long(dir_fd), os.fsencode(path), how, _long(len(how)))


def close(fd: int) -> None:
    """Close one descriptor."""
    os.close(fd)


def close_range(first: int) -> None:
    """Close every descriptor from `first` on."""
    _call("close_range", f"from {first}", _long(first), ctypes.c_ulong(0xFFFFFFFF), _long(0))


def dup2(fd: int, target: int, *, inheritable: bool) -> None:
    """Make `target` a copy of `fd`, kept or closed at the next execve."""
    if fd == target:
        os.set_inheritable(fd, inheritable)
    else:
        os.dup2(fd, target, inheritable=inheritable)


def read(fd: int, size: int) -> bytes:
    """At most `size` bytes; empty at the end."""
    return os.read(fd, size)


def write(fd: int, data: bytes) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def fstat(fd: int) -> os.stat_result:
    """What the descriptor refers to."""
    return os.fstat(fd)


def path_of(fd: int) -> str:
    """The path of an open file as this process sees it now: for a place in a mount namespace that is nobody else's."""
    return str(Path(f"/proc/self/fd/{fd}").readlink())


def fstatfs_type(fd: int) -> int:
    """The magic number of the file system that `fd` lies on (linux/magic.h)."""
    buffer = ctypes.create_string_buffer(256)
    _call("fstatfs", f"fd {fd}", _long(fd), buffer)
    return int.from_bytes(buffer.raw[: ctypes.sizeof(ctypes.c_long)], "little")


def mkdirat(dir_fd: int, name: str, mode: int) -> None:
    """Make a directory."""
    os.mkdir(name, mode, dir_fd=dir_fd)


def mknodat(dir_fd: int, name: str, mode: int, major: int, minor: int) -> None:
    """Make a device node."""
    os.mknod(name, mode, os.makedev(major, minor), dir_fd=dir_fd)


def symlinkat(target: str, dir_fd: int, name: str) -> None:
    """Make a symbolic link."""
    os.symlink(target, name, dir_fd=dir_fd)


def write_file(dir_fd: int, name: str, data: bytes, mode: int) -> None:
    """Make a new file with this content."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=dir_fd)
    try:
        write(fd, data)
    finally:
        os.close(fd)


def fchown(fd: int, uid: int, gid: int) -> None:
    """Change the owner of what `fd` refers to."""
    os.fchown(fd, uid, gid)


def chdir(path: str | int) -> None:
    """Change to a folder, given by path or descriptor."""
    os.chdir(path)


def getcwd() -> str:
    """The working directory; raises FileNotFoundError where it cannot be reached from the root (getcwd(3))."""
    return str(Path.cwd())


def executable(path: str) -> bool:
    """True if this process, with its effective ids, may execute the regular file at `path`."""
    return os.access(path, os.X_OK, effective_ids=True) and Path(path).is_file()


def exists(path: str) -> bool:
    """True if `path` leads to something that this process may look at."""
    return Path(path).exists()


# Mounts


def fsopen(fstype: str) -> int:
    """A new configuration context for a file system of this type."""
    return _call("fsopen", fstype, fstype.encode(), _long(c.FSOPEN_CLOEXEC))


def fsconfig(fs_fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
    """Set an option (FSCONFIG_SET_STRING, FSCONFIG_SET_FLAG) or create the superblock (FSCONFIG_CMD_CREATE)."""
    raw_key = None if key is None else key.encode()
    raw_value = None if value is None else os.fsencode(value)
    _call("fsconfig", f"{key}={value}", _long(fs_fd), _long(command), raw_key, raw_value, _long(0))


def fsmount(fs_fd: int, attributes: int) -> int:
    """Mount what was created, attached nowhere; the descriptor is its root."""
    return _call("fsmount", f"fd {fs_fd}", _long(fs_fd), _long(c.FSMOUNT_CLOEXEC), _long(attributes))


def open_tree(dir_fd: int, path: str, flags: int) -> int:
    """Open a mount, or with OPEN_TREE_CLONE a detached copy of it; an empty path means `dir_fd` itself."""
    flags |= c.OPEN_TREE_CLOEXEC | (c.AT_EMPTY_PATH if not path else 0)
    return _call("open_tree", path or f"fd {dir_fd}", _long(dir_fd), os.fsencode(path), _long(flags))


def move_mount(from_fd: int, to_fd: int) -> None:
    """Attach the mount that `from_fd` is the root of on the place that `to_fd` is."""
    flags = c.MOVE_MOUNT_F_EMPTY_PATH | c.MOVE_MOUNT_T_EMPTY_PATH
    _call("move_mount", f"fd {from_fd} on fd {to_fd}", _long(from_fd), b"", _long(to_fd), b"", _long(flags))


def mount_setattr(dir_fd: int, path: str, *, flags: int = 0, attr_set: int = 0, propagation: int = 0) -> None:
    """Add MOUNT_ATTR_* to a mount, or set its propagation (MS_PRIVATE); AT_RECURSIVE for all below it."""
    attributes = structs.mount_attr.pack(attr_set, 0, propagation, 0)
    flags |= c.AT_EMPTY_PATH if not path else 0
    name, what = "mount_setattr", path or f"fd {dir_fd}"
    _call(name, what, _long(dir_fd), os.fsencode(path), _long(flags), attributes, _long(len(attributes)))


def pivot_root(new_root: str, put_old: str) -> None:
    """Make the mount at `new_root` the root, and put the old one at `put_old`."""
    _call("pivot_root", new_root, os.fsencode(new_root), os.fsencode(put_old))


def umount_detach(path: str) -> None:
    """Take a mount, with all below it, out of this namespace at once."""
    if _libc.umount2(os.fsencode(path), ctypes.c_int(c.MNT_DETACH)) < 0:
        raise _error("umount2", path)


# Others


def bpf(command: int, attributes: bytes, what: str) -> int:
    """bpf(2); addresses inside `attributes` must be kept alive by the caller."""
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    return _call("bpf", what, _long(command), buffer, _long(len(attributes)))
