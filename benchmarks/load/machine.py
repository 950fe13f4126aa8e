"""The machine, brought to the same state before each turn that writes much: what the turn before left undone is done.

A file system that is mounted with `discard` discards what was freed when it next commits, which is in the sync of
whoever writes next. A hypervisor that is told which memory is free takes that back, two seconds later at most
(mm/page_reporting.c, PAGE_REPORTING_DELAY), and each page of it is given anew when it is next written to, at many times
the cost of another: whether a turn meets such pages depends on how long ago the one before it ended.
"""

from __future__ import annotations

import os
import tempfile

_PIECE = bytes(1024 * 1024)


def at_rest(size: int) -> None:
    """Everything is on the disk, and the memory that the next so many bytes of files will have was written to just now.

    That is so after a file of that size: which memory is given next depends on for what, and in which pieces.
    """
    os.sync()
    with tempfile.TemporaryFile(buffering=0) as file:
        for _ in range(0, size, len(_PIECE)):
            file.write(_PIECE)
