"""What podman makes of an image: pulled into a store of its own, mounted in a mount namespace of its own.

Its tree is the one to compare with: a merge of ours that is wrong must not be able to agree with itself.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.tools import need, need_root
from tests.support.view import View, from_text

_SCRIPT = """
set -eu
image=$("$@" pull --quiet "$SOURCE")
folder=$("$@" image mount "$image")
cd "$REPOSITORY"
exec "$PYTHON" -m tests.support.view "$folder"
"""


def mounted_by_podman(source: str, store: Path, driver: str) -> View:
    """The tree that `podman image mount` shows of `source` (a skopeo name), with storage driver `overlay` or `vfs`."""
    need_root()
    podman = [
        need("podman"), "--root", str(store / "root"), "--runroot", str(store / "run"), "--storage-driver", driver
    ]  # fmt: skip
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": str(store),
        "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
        "SOURCE": source,
        "PYTHON": sys.executable,
        "REPOSITORY": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", *podman],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return from_text(done.stdout)
