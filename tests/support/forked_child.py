"""What `test_forked.py` has forked: writes down how it was started, and waits for a signal where it is to."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path


def main(given: object = None) -> int:
    """`FILE CODE [DESCRIPTOR]`: ends with CODE, or does what that says."""
    path, code, *descriptors = sys.argv[1:]
    told = {
        "arguments": sys.argv,
        "given": id(given),
        "command": Path("/proc/self/cmdline").read_bytes().rstrip(b"\0").decode().split("\0"),
        "session": os.getsid(0),
        "input": str(Path("/proc/self/fd/0").readlink()),
        "ignored": [number for number in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(number) != signal.SIG_DFL],
        "open": [number for number in map(int, descriptors) if Path(f"/proc/self/fd/{number}").is_symlink()],
    }
    if code == "linger":
        threading.Thread(target=_tell, args=(path, told, 0.2)).start()
        return 3
    _tell(path, told)
    if code == "wait":
        signal.pause()
    if code == "fail":
        raise RuntimeError("as it was asked to")
    if code == "exit":
        sys.exit(4)
    return int(code)


def _tell(path: str, told: dict[str, object], seconds: float = 0) -> None:
    time.sleep(seconds)
    made = Path(f"{path}.new")
    made.write_text(json.dumps(told))
    made.rename(path)
