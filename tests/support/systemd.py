"""systemd as the first process of namespaces of its own, on an overlay of this machine's files: for units under test.

It sees none of the machine's own units, and nothing that it writes lasts. The network is the machine's.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.tools import lacking, need, need_root

SYSTEMD: Final = Path("/usr/lib/systemd/systemd")

TARGETS: Final = ("basic", "final", "multi-user", "network-online", "shutdown", "start", "sysinit", "umount")
"""Empty ones: what units of a whole system name, and the one that it starts with."""

# $1 is a folder for all of it, $2 the name of a cgroup. The outer shell stays, and takes the cgroup away at the end.
_OUTER: Final = """
set -eu
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root" "$1/cgroup"
mount -t cgroup2 none "$1/cgroup"
mkdir "$1/cgroup/$2"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" "$1/root"
trap 'echo $$ >"$1/cgroup/cgroup.procs"; find "$1/cgroup/$2" -depth -type d -exec rmdir {} +' EXIT
echo $$ >"$1/cgroup/$2/cgroup.procs"
unshare --mount --propagation private --cgroup --ipc --uts --pid --fork --kill-child sh -c "$INNER" inner "$1" || true
"""

_INNER: Final = """
set -eu
root=$1/root
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=755 tmpfs "$root/run"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t cgroup2 none "$root/sys/fs/cgroup"
cp -r "$FILES/." "$root"
cd "$root"
pivot_root . mnt
umount -l /mnt
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin SYSTEMD_UNIT_PATH=/run/units \
    systemd --system --unit=start.target --log-target=console --log-level=info --show-status=no
"""


@dataclass(frozen=True, slots=True)
class Systemd:
    """One that runs; `pid` is its, seen from outside."""

    pid: int
    log: Path

    def run(self, *words: object, check: bool = True) -> str:
        """Run a command in its namespaces; returns what it printed."""
        command = ["nsenter", "-t", str(self.pid), "--mount", "--pid", "--root", "--wdns=/", *map(str, words)]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, timeout=120
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout}\n{self.log.read_text()[-4000:]}"
        return done.stdout

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).strip()


@contextmanager
def systemd(folder: Path, files: Mapping[str, str]) -> Iterator[Systemd]:
    """systemd with these files laid over the machine's, by their paths; units are in /run/units."""
    need_root()
    need("nsenter")
    if not SYSTEMD.exists():
        lacking("systemd")
    for target in TARGETS:
        _write(folder / "files", f"/run/units/{target}.target", "[Unit]\nDefaultDependencies=no\n")
    for path, content in files.items():
        _write(folder / "files", path, content)
    log = folder / "systemd.log"
    environment = {
        **os.environ,
        "INNER": _INNER.replace(" systemd --", f" {SYSTEMD} --"),
        "FILES": str(folder / "files"),
    }
    with tempfile.TemporaryDirectory(prefix="pratique-systemd-") as work, log.open("wb") as output:
        words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", _OUTER, "outer", work]
        outer = subprocess.Popen([*words, f"systemd-test-{os.getpid()}"], env=environment, stdout=output, stderr=output)
        pid = 0
        try:
            pid = _first(outer, log)
            yield Systemd(pid, log)
        finally:
            if pid:
                os.kill(pid, signal.SIGKILL)  # its namespace ends with it
            else:
                outer.terminate()
            outer.wait(30)


def _write(top: Path, path: str, content: str) -> None:
    file = top / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(0o755 if content.startswith("#!") else 0o644)


def _first(outer: subprocess.Popen[bytes], log: Path) -> int:
    """The pid of the systemd below the outer shell, once it answers."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if outer.poll() is not None:
            raise AssertionError(f"systemd did not start:\n{log.read_text()[-4000:]}")
        for pid in _below(outer.pid):
            answers = Path(f"/proc/{pid}/root/run/systemd/private")
            if _name(pid) == "systemd" and answers.exists():
                return pid
        time.sleep(0.05)
    raise AssertionError(f"systemd did not get ready:\n{log.read_text()[-4000:]}")


def _below(pid: int) -> list[int]:
    try:
        children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []
    return children + [each for child in children for each in _below(child)]


def _name(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
