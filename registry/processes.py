"""What the registry's processes have in common: they end with their parent, stop on SIGTERM, and give up root.

A process is started as root only to become what it needs to be. It imports and opens before that: afterwards it may
not be able to read the folder that Python itself is in.
"""

from __future__ import annotations

import codecs
import ctypes
import grp
import hashlib
import os
import pwd
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Final

from registry.errors import SettingsError
from registry.settings_operation import LOG, LogSettings
from registry.telemetry import lines

if TYPE_CHECKING:
    from registry.settings import Settings

LEVEL_SECONDS: Final = 1.0

READER_ID: Final = 60104
"""Uid and gid of confined children: nobody else's (Debian policy 9.2.2 keeps 60000 to 64999 for packages)."""

CODECS: Final = ("cp437", "idna", "utf-16-be")
"""What zipfile, socket and rfc8785 look up by name: the interpreter imports each at its first use."""

_NICE: Final = 5
"""Beside others that want a processor too, about a third of what they get (sched(7))."""

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]
_libc.prctl.restype = ctypes.c_int


def utc_now() -> datetime:
    """The time, in UTC and whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def die_with_parent(number: signal.Signals) -> None:
    """Have the kernel send this process a signal when its parent dies; lost when it changes its user.

    Raises:
        OSError: the kernel does not.
    """
    if _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "prctl")


def stand_back() -> None:
    """Let who is waited for come first where processors are few: layers are read while they are still being sent."""
    os.nice(_NICE)
    with suppress(OSError):
        # Each process has a session of its own, and where the kernel groups by session, only groups are compared.
        Path("/proc/self/autogroup").write_text(str(_NICE))


def stop_flag(level: Path | None = None) -> Callable[[], bool]:
    """A function that is true once SIGTERM or SIGINT came.

    It is asked again and again; by the way it looks, at most every LEVEL_SECONDS, into the file `level`, where the
    supervisor writes down how much is logged.
    """
    stopped = False
    looked, written = time.monotonic(), 0

    def stop(_number: int, _frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True

    def look(path: Path) -> None:
        nonlocal looked, written
        looked = time.monotonic()
        with suppress(OSError, ValueError):
            if (now := path.stat().st_mtime_ns) != written:
                written = now
                lines.set_level(path.read_text())

    def ask() -> bool:
        if level is not None and time.monotonic() - looked > LEVEL_SECONDS:
            look(level)
        return stopped

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    return ask


def user_id(text: str, key: str) -> int:
    """The uid of a user's name or number.

    Raises:
        SettingsError: no such user.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except KeyError:
        raise SettingsError(f"setting {key}: no user {text[:80]!r} on this machine") from None


def group_id(text: str, key: str) -> int:
    """The gid of a group's name or number.

    Raises:
        SettingsError: no such group.
    """
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        return grp.getgrnam(text).gr_gid
    except KeyError:
        raise SettingsError(f"setting {key}: no group {text[:80]!r} on this machine") from None


def judge_uid(settings: Settings) -> int:
    """Who the judge is: the one that signer and keeper listen to."""
    return user_id(settings.users.judge, "users.judge") if os.geteuid() == 0 else os.geteuid()


def shared_gid(settings: Settings) -> int:
    """The group by which the processes share store and catalogue."""
    return group_id(settings.users.group, "users.group") if os.geteuid() == 0 else os.getegid()


@cache
def look_up_codecs() -> None:
    """Have what is looked up by name there, in this process and those that are forked from it."""
    for codec in CODECS:
        codecs.lookup(codec)


def become(user: str, key: str, settings: Settings) -> None:
    """Give up root for `user` (a no-op for whoever is not root), for good; files made from now on are the group's.

    Raises:
        SettingsError: no such user or group.
        OSError: the kernel refuses.
    """
    os.umask(0o007)
    if os.geteuid() != 0:
        return
    look_up_codecs()
    uid, gid = user_id(user, key), group_id(settings.users.group, "users.group")
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    die_with_parent(signal.SIGTERM)


def instance(settings: Settings) -> str:
    """A name for this registry among those that share its catalogue: of one name, only one runs at a time."""
    folder = hashlib.sha256(os.fsencode(settings.data.resolve())).hexdigest()[:8]
    return f"{socket.gethostname()[:20]}-{folder}"


def log_to_stderr(name: str, settings: LogSettings = LOG) -> None:
    """One form of log lines for all processes: text, until the settings are read."""
    lines.configure(name, level=settings.level, as_json=settings.format == "json")
