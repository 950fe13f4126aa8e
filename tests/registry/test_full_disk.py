"""The disk gets full while an image is pushed: one clear answer, nothing half-written, and later it goes on."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.support.tools import need, need_root


@pytest.mark.root
@pytest.mark.parametrize(("module", "size"), [("full_disk", "24m"), ("full_disk_metrics", "32m")])
def test_a_push_to_a_full_disk_is_refused_and_leaves_nothing(module: str, size: str) -> None:
    need_root()
    script = 'mount -t tmpfs -o mode=755,size="$3" tmpfs "$0" && exec "$1" -m "tests.registry.$2" "$0"'
    with tempfile.TemporaryDirectory(prefix="pratique-full-") as folder:
        Path(folder).chmod(0o755)  # not pytest's own, which are closed to the users that processes become
        words = ["--mount", "--propagation", "private", "sh", "-c", script, folder, sys.executable, module, size]
        done = subprocess.run([need("unshare"), *words], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
