"""A real layer: a Debian root file system made by mmdebstrap, once for all runs on a machine.

It is kept in PRATIQUE_TEST_CACHE (default /var/tmp/pratique-test-cache) and made anew when that is empty.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
from pathlib import Path

from tests.support.tools import lacking, need, need_root

SUITE = "trixie"


def cache() -> Path:
    """The folder of what is expensive to make."""
    folder = Path(os.environ.get("PRATIQUE_TEST_CACHE", "/var/tmp/pratique-test-cache"))  # shared on purpose
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def debian_layer() -> Path:
    """The tar of a minimal Debian (about 120 MB, 5,500 members), as mmdebstrap wrote it."""
    need_root()
    path = cache() / f"debian-{SUITE}-minbase.tar"
    with (cache() / "debian.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            part = path.with_suffix(".part.tar")
            done = subprocess.run(
                [need("mmdebstrap"), "--quiet", "--variant=minbase", SUITE, str(part)],
                env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
                capture_output=True,
                text=True,
                check=False,
                timeout=300,
            )
            if done.returncode != 0:
                part.unlink(missing_ok=True)
                lacking(f"a Debian mirror ({done.stderr.strip()[-300:]})")
            part.rename(path)
    return path
