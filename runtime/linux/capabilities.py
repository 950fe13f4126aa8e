"""Capabilities by name (linux/capability.h), as masks of 1 << CAP_*."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

NAMES: Final = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST"),
    *("CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO"),
    *("CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE"),
    *("CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE"),
    *("CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM"),
    *("CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)
"""Names in the order of their numbers, from 0."""
NUMBERS: Final = {name: number for number, name in enumerate(NAMES)}


def mask(names: Iterable[str]) -> int:
    """The mask of these capabilities.

    Raises:
        KeyError: a name that Linux 6.12 does not have; spelled as in C (`CAP_CHOWN`).
    """
    return sum({1 << NUMBERS[name] for name in names})


def held() -> int:
    """The mask of what this process may give away: its permitted set (proc_pid_status(5), CapPrm)."""
    for line in Path("/proc/self/status").read_text("utf-8", "replace").splitlines():
        if line.startswith("CapPrm:"):
            return int(line.split()[1], 16)
    return 0


def last_capability() -> int:
    """The highest capability of the running kernel, which may know more than we have names for."""
    return int(Path("/proc/sys/kernel/cap_last_cap").read_text())
