"""`make bench`: every benchmark in turn, each beside its peers.

`python -m benchmarks NAME...` runs some of them; what begins with a dash, and what follows it, is given to each:
`python -m benchmarks registry --only manifests`.
"""

from __future__ import annotations

import subprocess
import sys

NAMES = ("index", "scan", "policy", "credentials", "registry", "slow", "growth", "units", "start")


def main() -> int:
    """Run the named benchmarks, or all; the result is the exit code."""
    given = sys.argv[1:]
    ends = next((place for place, word in enumerate(given) if word.startswith("-")), len(given))
    chosen, options = given[:ends] or NAMES, given[ends:]
    for name in chosen:
        if name not in NAMES:
            print(f"benchmarks: no {name!r}, expected some of {', '.join(NAMES)}", file=sys.stderr)
            return 2
    code = 0
    for name in chosen:
        print(f"\n=== {name}\n", flush=True)
        # A process each: what one benchmark imported and allocated would be in the figures of the next.
        code = max(code, subprocess.run([sys.executable, "-m", f"benchmarks.{name}", *options], check=False).returncode)
    return code


if __name__ == "__main__":
    sys.exit(main())
