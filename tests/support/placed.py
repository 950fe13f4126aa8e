"""What `test_placement.py` runs as a process of its own: where its threads may run, step by step, as JSON.

`python -m tests.support.placed`: gathers its threads whatever waking costs, and prints for each step the processors of
the main thread, of one that was there before and of one that has begun since.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time

from registry.placement import Placement


def main() -> int:
    """Print the steps."""
    told: dict[str, list[list[int]]] = {}
    ends = threading.Event()
    before = threading.Thread(target=ends.wait)
    before.start()
    since = threading.Thread(target=ends.wait)
    placement = Placement()

    def tell(step: str) -> None:
        threads = [thread.native_id for thread in (threading.main_thread(), before, since) if thread.native_id]
        told[step] = [sorted(os.sched_getaffinity(thread)) for thread in threads]

    tell("at first")
    with placement.apart():
        tell("apart, not gathered")
    placement.spread()()
    placement.gather_from_now_on()
    _wait_for(placement)
    since.start()
    tell("gathered")
    with placement.apart():
        tell("apart")
    first, second = placement.spread(), placement.spread()
    tell("spread")
    first()
    first()
    time.sleep(0.3)
    tell("spread by one")
    second()
    _wait_for(placement)
    tell("gathered again")
    ends.set()
    sys.stdout.write(json.dumps(told))
    return 0


def _wait_for(placement: Placement) -> None:
    ends = time.monotonic() + 30
    while placement.processor is None:
        assert time.monotonic() < ends, "not gathered within 30 s"
        time.sleep(0.01)


if __name__ == "__main__":
    raise SystemExit(main())
