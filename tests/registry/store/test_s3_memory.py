"""An upload to an engine is held neither in memory nor on a local disk, however large it is."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid

from tests.support.s3 import bucket

SIZE = 160 * 2**20
PART = 8 * 2**20

ALLOWED = 4 * PART
"""One part, what a request copies of it on its way, and what the interpreter does not give back."""


def test_a_layer_is_never_held(moto: str) -> None:
    made = bucket(moto, f"memory-{uuid.uuid4().hex}", part_size=PART)
    keys = {"bucket": made.bucket, "access_key": made.access_key, "secret_key": made.secret_key}
    wanted = {**keys, "endpoint": made.endpoint, "part_size": PART, "size": SIZE}
    done = subprocess.run(
        [sys.executable, "-m", "tests.registry.store.uploading", json.dumps(wanted)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    assert grown < ALLOWED < SIZE // 4, f"{grown} bytes more while {SIZE} went up"
