"""Keeps a SIGINT that nobody of ours sent from ending a whole run: for workers of pytest-xdist, without a terminal."""

from __future__ import annotations

import os
import signal
from types import FrameType


def outlive_interrupts() -> None:
    """Have SIGINT do nothing in this process, if it is a worker and no terminal may have sent it.

    A worker that is interrupted ends the run of all workers. Where there is a terminal, Ctrl-C is taken as ever.
    """
    if "PYTEST_XDIST_WORKER" in os.environ and not _has_a_terminal():
        # No SIG_IGN: that one would be inherited by the programs that tests start, and interrupt.
        signal.signal(signal.SIGINT, _nothing)


def _has_a_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True


def _nothing(_number: int, _frame: FrameType | None) -> None:
    pass
