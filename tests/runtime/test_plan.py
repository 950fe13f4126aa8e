"""Plans as values, and the order of their system calls, without root: a recorder stands in for the kernel."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from runtime.linux import constants as c
from runtime.linux import syscalls
from runtime.linux.cgroups import Hierarchies
from runtime.linux.kernel import Kernel
from runtime.model import Bind, ContainerId, Process, Rlimit, Root, StartRequest, Tmpfs
from runtime.mountops import MaskPaths
from runtime.ops import Stage
from runtime.plan import HostFacts, Plan, bind_attributes, plan, root_attributes

HYBRID = Hierarchies(
    v1={
        "memory": Path("/cg/memory"),
        "cpu": Path("/cg/cpu,cpuacct"),
        "cpuacct": Path("/cg/cpu,cpuacct"),
        "devices": Path("/cg/devices"),
    },
    v2=Path("/cg/unified"),
)
FACTS = HostFacts(
    hierarchies=HYBRID,
    last_capability=40,
    scaffold_point="/state/parts",
    root_point="/state/root",
    files_point="/state/files",
)
REAL: Kernel = syscalls
"""The real system calls are an implementation of the Protocol: mypy looks at this line."""


def request(**members: Any) -> StartRequest:
    process = Process(argv=("app", "--flag"), env=("PATH=/bin",), **members.pop("process", {}))
    root = Root(index_fd=5, **members.pop("root", {}))
    return StartRequest(name=ContainerId("box"), root=root, process=process, **members)


class Recorder:
    """Remembers calls, and answers as a kernel does on which all of it works."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self._next = 100
        self._words = iter((b"G", b"W"))

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            self.calls.append((name, (*arguments, *named.values())))
            return self._answer(name)

        return call

    def _answer(self, name: str) -> object:
        match name:
            case "fsopen" | "fsmount" | "open_tree" | "openat2" | "open_path":
                self._next += 1
                return self._next
            case "fstat":
                device = os.makedev(1, 3)
                return os.stat_result(
                    (stat.S_IFCHR | 0o666, self._next, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, device)
                )
            case "read":
                return next(self._words)
            case "getcwd" | "path_of":
                return "/"
            case "executable":
                return True
        return 0

    def names(self) -> list[str]:
        return [name for name, _ in self.calls]


def record(made: Plan) -> Recorder:
    recorder = Recorder()
    execute(made, recorder)
    return recorder


def execute(made: Plan, recorder: Recorder) -> None:
    fds = {"image": 10, "program": 11, "go": 12, "errors": 13, "stdout": 14, "stderr": 15, "bind:0": 16, "bind:1": 17}
    stage = Stage(fds)
    for operation in made.operations:
        operation.execute(cast("Kernel", recorder), stage)


def test_the_plan_says_what_it_does() -> None:
    made = plan(request(), FACTS, b"")
    assert made.describe() == (
        "leave the launcher's session, signals and keyring",
        "make all mounts private",
        "put up a scaffold",
        "mount proc at proc of scaffold",
        "mount sysfs at sys of scaffold",
        "mount tmpfs at dev of scaffold",
        "make device nodes in /dev",
        "mount devpts at pts of dev",
        "mount tmpfs at shm of dev",
        "mount mqueue at mqueue of dev",
        "switch on the loopback interface",
        "join the cgroup and its namespace",
        "mount its own cgroups, read-only, at /sys/fs/cgroup",
        "cover the masked paths of /proc and /sys",
        "make paths of /proc read-only",
        "attach the image, read-only",
        "move /proc, /sys, /dev into the root",
        "show /etc/hosts, /etc/hostname, /etc/resolv.conf",
        "change the root",
        "set the host name box",
        "wait for the launcher's word",
        "close all other descriptors",
        "enter the working directory /",
        "set 0 resource limits",
        "become uid 0, gid 0 with capabilities 0x0 and load the filter",
        "execute app",
    )


def test_the_order_in_which_privileges_go() -> None:
    made = plan(request(process={"capabilities": ("CAP_CHOWN",)}), FACTS, b"filter")
    names = record(made).names()
    ends = ["pivot_root", "umount_detach", "close_range", "setgroups", "setresgid", "setresuid", "capset", "set_filter"]
    positions = [names.index(name) for name in ends]
    assert positions == sorted(positions)
    assert names[-3:] == ["executable", "write", "execve"]
    assert not {"fsopen", "open_tree", "move_mount", "mount_setattr", "openat2"} & set(
        names[names.index("setgroups") :]
    )


def test_a_filter_without_no_new_privs_is_loaded_before_the_capabilities_go() -> None:
    names = record(plan(request(process={"no_new_privs": False}), FACTS, b"")).names()
    assert names.index("set_filter") < names.index("setresuid") < names.index("capset")
    assert ("prctl", (c.PR_SET_NO_NEW_PRIVS, 1)) not in record(
        plan(request(process={"no_new_privs": False}), FACTS, b"")
    ).calls


@pytest.mark.parametrize(
    ("uid", "ambient", "held", "inheritable"),
    [(0, (), 1, 0), (0, ("CAP_CHOWN",), 1, 0), (1000, (), 0, 0), (1000, ("CAP_CHOWN",), 1, 1)],
)
def test_x8_inheritable_capabilities_are_those_that_ambient_needs(
    uid: int, ambient: tuple[str, ...], held: int, inheritable: int
) -> None:
    process = {"uid": uid, "capabilities": ("CAP_CHOWN",), "ambient": ambient}
    calls = record(plan(request(process=process), FACTS, b"")).calls
    assert ("capset", (held, held, inheritable)) in calls
    dropped = [arguments[1] for name, arguments in calls if name == "prctl" and arguments[0] == c.PR_CAPBSET_DROP]
    assert dropped == list(range(1, 41))


def test_namespaces_and_the_network() -> None:
    assert plan(request(), FACTS, b"").namespaces & c.CLONE_NEWNET
    host = plan(request(network="host"), replace(FACTS, resolv_conf=b"nameserver ::1\n"), b"")
    assert not host.namespaces & c.CLONE_NEWNET
    recorder = record(host)
    assert "raise_loopback" not in recorder.names()
    assert any(b"nameserver ::1\n" in arguments for name, arguments in recorder.calls if name == "write_file")
    none = record(plan(request(), replace(FACTS, resolv_conf=b"nameserver ::1\n"), b""))
    assert not any(b"nameserver" in bytes(arguments[2]) for name, arguments in none.calls if name == "write_file")  # type: ignore[call-overload]  # the third argument of write_file is bytes


def test_the_cgroup_namespace_is_made_after_the_attach() -> None:
    """Made before, it stays rooted at the parent's group."""
    calls = record(plan(request(), FACTS, b"")).calls
    assert calls.index(("read", (12, 1))) + 1 == calls.index(("unshare", (c.CLONE_NEWCGROUP,)))


def test_a_launcher_that_died_ends_the_start() -> None:
    class Alone(Recorder):
        def _answer(self, name: str) -> object:
            return b"" if name == "read" else super()._answer(name)

    recorder = Alone()
    with pytest.raises(OSError, match="the launcher ended"):
        execute(plan(request(), FACTS, b""), recorder)
    assert "pivot_root" not in recorder.names()


def test_cgroup_hierarchies_that_share_a_mount_are_mounted_once() -> None:
    made = plan(request(), FACTS, b"")
    mounts = [name for name, arguments in record(made).calls if name == "mkdirat" and "cpu,cpuacct" in arguments]
    assert len(mounts) == 1
    v2 = plan(request(), replace(FACTS, hierarchies=Hierarchies(v2=Path("/sys/fs/cgroup"))), b"")
    opened = [arguments[0] for name, arguments in record(v2).calls if name == "fsopen"]
    assert opened.count("cgroup2") == 1
    assert "cgroup" not in opened


def test_asked_mounts_are_made_outermost_first() -> None:
    mounts = (Bind(source="/srv/a/b", target="/data/below"), Bind(source="/srv/a", target="/data"))
    described = plan(request(mounts=mounts, tmpfs=(Tmpfs(target="/data/below/tmp"),)), FACTS, b"").describe()
    asked = [line for line in described if "/data" in line]
    assert asked == ["bind /srv/a at /data", "bind /srv/a/b at /data/below", "mount a tmpfs at /data/below/tmp"]


def test_attributes_of_the_root_and_of_binds() -> None:
    assert root_attributes(request()) == c.MOUNT_ATTR_NODEV | c.MOUNT_ATTR_NOSUID
    assert root_attributes(request(process={"no_new_privs": False})) == c.MOUNT_ATTR_NODEV
    binds = (
        Bind(source="/a", target="/a"),
        Bind(source="/b", target="/b", read_only=False, nosuid=False, nodev=False, noexec=False),
    )
    assert bind_attributes(request(mounts=binds)) == (0xF, 0)


def test_limits_reach_the_group() -> None:
    limits = plan(request(memory=2**30, pids=7, cpu=5000), FACTS, b"").limits
    assert (limits.memory, limits.pids, limits.cpu, limits.cpu_period) == (2**30, 7, 5000, 100_000)
    assert "c 1:3 rwm" in [rule.text() for rule in limits.devices]


def test_x3_what_covers_a_masked_file_must_be_the_null_device() -> None:
    class Swapped(Recorder):
        def _answer(self, name: str) -> object:
            if name == "fstat":
                return os.stat_result((stat.S_IFREG | 0o666, *range(9)))
            return super()._answer(name)

    recorder = Swapped()
    with pytest.raises(OSError, match="it is not the null device") as caught:
        MaskPaths((("proc", "keys"),)).execute(cast("Kernel", recorder), Stage({"proc": 20, "dev": 21}))
    assert caught.value.errno == errno.EPERM
    assert "move_mount" not in recorder.names()


def test_a_reaper_is_executed_in_front_of_the_program() -> None:
    direct, reaped = (record(plan(request(), replace(FACTS, reaper=name), b"")) for name in ("", "tini-static"))
    program, argv = direct.calls[-1][1][:2]
    assert (program, argv) == (4, ("/bin/app", "app", "--flag"))
    assert reaped.calls[-1][1][1] == ("tini-static", "--", "/bin/app", "--flag")


def test_resource_limits_and_the_umask_come_before_the_user() -> None:
    limit = Rlimit(name="RLIMIT_NPROC", soft=5, hard=5)
    names = record(plan(request(process={"rlimits": (limit,)}), FACTS, b"")).names()
    assert names.index("setrlimit") < names.index("setresuid")
