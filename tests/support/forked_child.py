"""What `test_forked.py` has forked: writes down how it was started, and waits for a signal where it is to."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path


def main() -> int:
    """`FILE CODE [DESCRIPTOR]`: ends with CODE, or waits if that is `wait`."""
    path, code, *descriptors = sys.argv[1:]
    told = {
        "arguments": sys.argv,
        "command": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "session": os.getsid(0),
        "input": str(Path("/proc/self/fd/0").readlink()),
        "ignored": [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_DFL],
        "open": [number for number in map(int, descriptors) if Path(f"/proc/self/fd/{number}").is_symlink()],
    }
    made = Path(f"{path}.new")
    made.write_text(json.dumps(told))
    made.rename(path)
    if code == "wait":
        signal.pause()
    return int(code)
