"""Control groups: found on each kind of host, limited, killed, removed; and devices by an eBPF program on v2."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtime.linux.cgroups import Group, Hierarchies, Limits, find_hierarchies, parse_mountinfo
from runtime.linux.devices import DEFAULT_RULES, DeviceRule, compile_rules
from tests.runtime.boxes import REPOSITORY, Box
from tests.support.tools import lacking, need_root

V1 = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
36 31 0:32 /docker/x /mnt/copy\\040here rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
"""
V2 = "31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"


def test_hierarchies_of_each_kind_of_host() -> None:
    top = Path("/sys/fs/cgroup")
    v1 = {"cpu": top / "cpu,cpuacct", "cpuacct": top / "cpu,cpuacct", "memory": top / "memory"}
    assert parse_mountinfo(V1) == (v1, None)
    assert parse_mountinfo(V2) == ({}, top)
    assert parse_mountinfo(V1 + V2) == (v1, top)
    assert parse_mountinfo("") == ({}, None)


def test_folders_of_a_group() -> None:
    v1, v2 = parse_mountinfo(V1 + V2)
    group = Group(hierarchies=Hierarchies(v1=v1, v2=v2), parent="pratique", name="box")
    names = ("memory/pratique/box", "cpu,cpuacct/pratique/box", "pratique/box")
    assert group.folders == tuple(Path("/sys/fs/cgroup") / name for name in names)


def test_a_limit_without_a_controller_is_refused(tmp_path: Path) -> None:
    """Started without its limit, a container would be another one than was asked for."""
    nothing = Group(hierarchies=Hierarchies(), parent="p", name="n")
    with pytest.raises(OSError, match="no cgroup hierarchy is mounted") as caught:
        nothing.create(Limits())
    assert caught.value.errno == errno.ENODEV
    bare = Group(hierarchies=Hierarchies(v2=tmp_path), parent="p", name="n")
    for limits in (Limits(memory=1), Limits(pids=1), Limits(cpu=1)):
        with pytest.raises(OSError, match="no cgroup hierarchy has this controller"):
            bare.create(limits)
    assert list(tmp_path.iterdir()) == []


def test_the_device_program_has_a_bounded_size() -> None:
    assert len(compile_rules(DEFAULT_RULES)) // 8 < 100
    assert DeviceRule(kind="b", major=8, minor=None, access="r").text() == "b 8:* r"


@pytest.fixture
def group() -> Iterator[Group]:
    """A group in every hierarchy of this host."""
    need_root()
    made = Group(hierarchies=find_hierarchies(), parent=f"pratique-test-{os.getpid()}-groups", name="one")
    yield made
    made.kill()
    made.remove()
    assert not made.exists()


def sleeper(group: Group, script: str = "sleep 1000") -> subprocess.Popen[bytes]:
    """A process in the group."""
    join = "; ".join(f"echo $$ > {folder}/cgroup.procs" for folder in group.folders)
    process = subprocess.Popen(["sh", "-c", f"{join}; echo; {script}"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.mark.root
def test_limits_as_the_kernel_has_them(group: Group) -> None:
    if not {"memory", "pids", "cpu"} <= group.hierarchies.controllers:
        lacking("a hierarchy with memory, pids and cpu")
    group.create(Limits(memory=64 * 1024 * 1024, pids=9, cpu=20_000, devices=DEFAULT_RULES))
    found = {file.name: file.read_text() for folder in group.folders for file in folder.iterdir() if is_limit(file)}
    for name, value in found.items():
        assert value.split()[0] in {str(64 * 1024 * 1024), "9", "20000", "0"}, name
    with pytest.raises(FileExistsError):
        group.create(Limits())


def is_limit(file: Path) -> bool:
    names = ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.max", "memory.swap.max", "pids.max")
    return file.name in (*names, "cpu.max", "cpu.cfs_quota_us")


@pytest.mark.root
def test_everything_in_a_group_is_killed(group: Group) -> None:
    group.create(Limits(devices=DEFAULT_RULES))
    with sleeper(group, "for i in 1 2 3 4 5; do setsid sleep 1000 & done; wait") as process:
        until = time.monotonic() + 5
        while len(group.pids()) < 6 and time.monotonic() < until:
            time.sleep(0.01)
        assert len(group.pids()) == 6
        group.kill()
        assert process.wait(5) == -signal.SIGKILL
    assert group.pids() == frozenset()


@pytest.mark.root
def test_a_frozen_group_is_killed(group: Group) -> None:
    group.create(Limits(devices=DEFAULT_RULES))
    with sleeper(group) as process:
        for folder in group.folders:
            for name, value in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
                if (folder / name).exists():
                    (folder / name).write_text(value)
        time.sleep(0.1)
        group.kill()
        assert process.wait(5) == -signal.SIGKILL


@pytest.mark.root
def test_groups_inside_are_removed_too(group: Group) -> None:
    group.create(Limits(devices=DEFAULT_RULES))
    for folder in group.folders:
        (folder / "below/deeper").mkdir(parents=True)
    group.remove()
    assert not group.exists()
    group.remove()


@pytest.mark.root
def test_x8_devices_are_denied_by_default_on_v2(group: Group) -> None:
    """The eBPF program works on the v2 tree of a hybrid host too."""
    v2 = group.hierarchies.v2
    if v2 is None:
        lacking("a cgroup v2 hierarchy")
    only = Group(hierarchies=Hierarchies(v2=v2), parent=group.parent, name="two")
    only.create(Limits(devices=(*DEFAULT_RULES, DeviceRule(major=10, minor=237, access="r"))))
    try:
        major, minor = os.major(Path("/").stat().st_dev), os.minor(Path("/").stat().st_dev)
        script = (
            "for d in null zero full random urandom tty kmsg mem port; do [ -e /dev/$d ] || continue; "
            "(exec 3< /dev/$d) 2>/dev/null && echo r $d; done; (exec 3> /dev/null) 2>/dev/null && echo w null;"
            f"d=$(mktemp -d); mknod $d/disk b {major} {minor} 2>/dev/null && echo made disk;"
            "mknod $d/null c 1 3 && echo made null; rm -r $d"
        )
        with sleeper(only, script) as process:
            assert process.stdout is not None
            out = process.stdout.read().decode().split("\n")[:-1]
        refused = {"r kmsg", "r mem", "r port", "made disk"}
        assert {"r null", "r zero", "r full", "r urandom", "w null", "made null"} <= set(out)
        assert not refused & set(out)
    finally:
        only.kill()
        only.remove()


@pytest.mark.root
@pytest.mark.parametrize("kind", ["v1", "v2"])
def test_a_container_on_a_host_with_one_kind_of_cgroups(box: Box, kind: str) -> None:
    """In a mount namespace that shows only v1 hierarchies, or only v2 (which has no controllers on a hybrid host)."""
    found = find_hierarchies()
    if not (found.v1 and found.v2):
        return  # this host is of one kind, and every other test runs on it
    show = {"v1": f"umount {found.v2}", "v2": "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup"}[kind]
    script = "cat /proc/self/cgroup; ls /sys/fs/cgroup; (echo x > /dev/null) && echo null; mknod /tmp/d b 1 1; echo end"
    request = box.request("sh", "-c", script, tmpfs=(), root={"writable": True}, process=MKNOD)
    limited = box.request("true", memory=64 * 1024 * 1024)
    for wanted, expected in ((request, 0), (limited, 0 if kind == "v1" else 125)):
        command = ["unshare", "-m", "sh", "-c", f'{show} && exec "$@"', "sh", *box.command(wanted)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, check=False, timeout=30, text=True)
        assert done.returncode == expected, done.stderr
        if wanted is limited:
            assert ("no cgroup hierarchy has this controller" in done.stderr) is (expected == 125)
        else:
            assert "null\nend\n" in done.stdout
            assert "not permitted" in done.stderr
            assert ("cgroup.controllers" in done.stdout) is (kind == "v2")


MKNOD = {"capabilities": ("CAP_MKNOD",), "env": ("PATH=/bin",)}
