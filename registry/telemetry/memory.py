"""Where processes count: files in memory, not on the disk that layers fill.

prometheus_client maps a sparse file into memory. On a full disk the kernel has no page for what is written there, and
kills whoever counts (SIGBUS, mmap(2)). So the folder of these files lies in /dev/shm, and a link leads there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

MEMORY: Final = Path("/dev/shm")  # noqa: S108 -- shm_overview(7); what we make there has a name that nobody guesses
PREFIX: Final = "pratique-metrics-"


def make_folder(link: Path, gid: int) -> None:
    """Have `link` lead to a new, empty folder that the group `gid` can write to; on the disk where there is no other.

    Raises:
        OSError: it cannot be made.
    """
    remove_folder(link)
    if not os.access(MEMORY, os.W_OK | os.X_OK):
        link.mkdir(mode=0o770)
        return
    made = Path(tempfile.mkdtemp(prefix=PREFIX, dir=MEMORY))
    os.chown(made, -1, gid)
    made.chmod(0o2770)  # processes make their files before they give up root
    link.symlink_to(made)


def remove_folder(link: Path) -> None:
    """Take away what `make_folder` made, also by another run; of where a link leads, nothing that is not ours."""
    if link.is_symlink():
        led = link.readlink()
        if led.parent == MEMORY and led.name.startswith(PREFIX) and _is_ours(led):
            shutil.rmtree(led, ignore_errors=True)
        link.unlink(missing_ok=True)
    else:
        shutil.rmtree(link, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    try:
        return folder.lstat().st_uid == os.geteuid() and not folder.is_symlink()
    except OSError:
        return False
