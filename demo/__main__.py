"""`make demo`: the whole chain, from a push to a revocation that stops what runs. Needs root; leaves nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from demo import steps
from demo.stage import DemoFailedError, Stage
from demo.storage import storage
from runtime.linux import syscalls
from tests.support import leftovers

PR_SET_CHILD_SUBREAPER = 36
"""linux/prctl.h."""


def main() -> int:
    """Run the demo in a folder of its own, and clear up whatever happens."""
    if os.geteuid() != 0:
        print("demo: needs root: it mounts, and makes namespaces and cgroups", file=sys.stderr)
        return 1
    try:
        kept = storage(os.environ.get("STORAGE") or "files", steps.PORT + 1)
    except DemoFailedError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    # Not /tmp, which is a tmpfs on Debian 13: a root index cannot be mounted from one.
    folder = Path(tempfile.mkdtemp(prefix="pratique-demo-", dir="/var/tmp"))
    folder.chmod(0o711)
    stage = Stage(folder, _environment(folder))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    registry: subprocess.Popen[bytes] | None = None
    # Whoever outlives its parent becomes a child of this process, so nothing of the demo can hide.
    syscalls.prctl(PR_SET_CHILD_SUBREAPER, 1)
    before = leftovers.take(os.getpid(), "pratique*")
    try:
        steps.keys_and_registry(stage, kept)
        registry = steps.start_registry(stage)
        steps.accounts_and_host(stage)
        steps.images(stage, os.environ.get("DEMO_BASE", ""), kept)
        steps.quarantined(stage)
        steps.scanned(stage)
        steps.approved(stage)
        steps.denied(stage)
        steps.served_and_run(stage)
        steps.flipped(stage)
        steps.revoked(stage)
        steps.audited(stage)
    except (DemoFailedError, subprocess.CalledProcessError, OSError) as error:
        stage.say(f"\ndemo failed: {error}")
        stage.say(_tail(folder / "registry.log"))
        return 1
    finally:
        steps.stop_everything(stage, registry, kept)
        with contextlib.suppress(OSError):
            shutil.rmtree(folder)
    left = leftovers.settle(before, under=os.getpid(), cgroups="pratique*")
    for line in left:
        stage.say(f"left behind: {line}")
    if not left:
        stage.say(
            "\nThe demo is over. Left behind: no process, descriptor, mount, cgroup, namespace, loop device or file."
        )
    return 1 if left else 0


def _environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "LANG", "TERM"}}
    return {
        **kept,
        "PRATIQUE_CONFIG": str(folder / "config"),
        "PRATIQUE_STORE": str(folder / "host"),
        "PRATIQUE_STATE": str(folder / "state"),
        "PRATIQUE_ADVISORIES": str(folder / "advisories.db"),
        "REGISTRY_AUTH_FILE": str(folder / "auth.json"),
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _tail(path: Path) -> str:
    if not path.exists():
        return ""
    return "last lines of the registry:\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])


if __name__ == "__main__":
    sys.exit(main())
