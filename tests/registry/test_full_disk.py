"""The disk gets full while an image is pushed: one clear answer, nothing half-written, and later it goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tools import need, need_root


@pytest.mark.root
def test_a_push_to_a_full_disk_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    need_root()
    script = 'mount -t tmpfs -o size=24m tmpfs "$0" && exec "$1" -m tests.registry.full_disk "$0"'
    done = subprocess.run(
        [need("unshare"), "--mount", "--propagation", "private", "sh", "-c", script, tmp_path, sys.executable],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
