"""The look for leftovers sees what is planted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtime.linux.cgroups import find_hierarchies
from tests.support import leftovers
from tests.support.tools import need, need_root

REPOSITORY = Path(__file__).parent.parent.parent


def more(before: dict[str, list[str]]) -> list[str]:
    return leftovers.difference(before, leftovers.take(os.getpid(), "pratique-test-*"))


def test_nothing_is_nothing() -> None:
    assert more(leftovers.take(os.getpid(), "pratique-test-*")) == []


def test_a_process_and_its_descriptors_are_seen(tmp_path: Path) -> None:
    before = leftovers.take(os.getpid(), "pratique-test-*")
    with (tmp_path / "held").open("w") as held, subprocess.Popen(["sleep", "100"], stdout=held) as process:
        found = more(before)
        process.kill()
    assert any(line.startswith(f"process {process.pid} ") and line.endswith(" sleep") for line in found)
    assert any(line.startswith(f"descriptor {process.pid} ") and line.endswith("/held") for line in found)
    assert any(line.startswith(f"descriptor {os.getpid()} ") and line.endswith("/held") for line in found)
    assert more(before) == []


@pytest.mark.root
def test_a_cgroup_and_a_namespace_are_seen() -> None:
    need_root()
    before = leftovers.take(os.getpid(), "pratique-test-*")
    found_here = find_hierarchies()
    tops = [*found_here.v1.values(), *([] if found_here.v2 is None else [found_here.v2])]
    group = tops[0] / f"pratique-test-{os.getpid()}-planted"
    group.mkdir()
    try:
        with subprocess.Popen([need("unshare"), "-n", "sleep", "100"]) as process:
            while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
                pass
            found = more(before)
            process.kill()
    finally:
        group.rmdir()
    assert [line for line in found if line.startswith("cgroup ")] == [f"cgroup {tops[0].name}:{group.name}"]
    assert any(line.startswith("namespace net:[") for line in found)
    assert more(before) == []


def test_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "snapshot"
    command = [sys.executable, "-m", "tests.support.leftovers"]
    subprocess.run([*command, "snapshot", str(file)], check=True, cwd=REPOSITORY)
    with subprocess.Popen(["sleep", "100"]) as process:
        ignore = "--ignore=* -> *", "--ignore=namespace *", "--ignore=cgroup *"
        compare = [*command, "compare", str(file), "--within=0.1", *ignore]
        done = subprocess.run(compare, cwd=REPOSITORY, capture_output=True, text=True, check=False)
        process.kill()
    assert done.returncode == 1
    assert f"left behind: process {process.pid} " in done.stdout
