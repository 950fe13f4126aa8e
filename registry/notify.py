"""What the supervisor tells systemd: ready, reloading, stopping, still there (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time
from contextlib import suppress
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
WATCHDOG: Final = "WATCHDOG=1"


def tell(*states: str) -> None:
    """Say so, if there is somebody who listens; that nobody hears it is no reason to fail."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.setblocking(False)
        sender.sendto("\n".join(states).encode(), f"\0{address[1:]}" if address.startswith("@") else address)


def reloading() -> str:
    """The state of a reload that begins now."""
    return f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"


def watchdog_seconds() -> float | None:
    """How often WATCHDOG is to be told: half of the time after which silence is taken for a fault, None for never."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not text.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(text) / 2_000_000
