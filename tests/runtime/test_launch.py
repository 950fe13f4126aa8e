"""Containers started for real: what the program inside sees, and how the launcher ends."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import pytest

from runtime.errors import HostError
from runtime.linux.capabilities import NAMES, held
from runtime.linux.cgroups import find_hierarchies
from runtime.model import Bind, Rlimit, Tmpfs
from runtime.reaper import is_static, open_reaper
from tests.runtime.boxes import PATH, REPOSITORY, Box, build, busybox_files
from tests.support.images import Content, File
from tests.support.tools import lacking, need

pytestmark = pytest.mark.root

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
NAMESPACES = ("mnt", "uts", "ipc", "pid", "net", "cgroup")


def limit_file(v1: str, v2: str) -> str:
    """Where a limit is read inside, by this host's kind of cgroups."""
    controller = v1.split("/", maxsplit=1)[0]
    return f"/sys/fs/cgroup/{v1 if controller in find_hierarchies().v1 else v2}"


# What the program is


def test_the_program_is_pid_1_under_its_own_host_name(box: Box) -> None:
    result = box.sh("echo $$; hostname; cat /etc/hostname; ls -l /proc/1/exe; cat /etc/motd", hostname="web-1")
    assert result.out.splitlines()[:3] == ["1", "web-1", "web-1"]
    assert "/bin/busybox" in result.out
    assert result.out.endswith("from the upper layer\n")
    assert (result.code, result.err) == (0, "")


def test_arguments_environment_and_nothing_else(box: Box) -> None:
    result = box.run("env", process={"env": (PATH, "A=b c", "EMPTY=")})
    assert result.out.splitlines() == [PATH, "A=b c", "EMPTY="]
    assert box.run("printf", "%s|", "a b", "", "*", "no UTF-8: \udcff").out == "a b||*|no UTF-8: \udcff|"


def test_namespaces_of_its_own(box: Box) -> None:
    result = box.sh("for n in mnt uts ipc pid net cgroup user; do readlink /proc/self/ns/$n; done")
    host = [str(Path(f"/proc/self/ns/{name}").readlink()) for name in NAMESPACES]
    inside = result.out.split()
    assert len(inside) == 7
    assert not set(inside[:6]) & set(host)


def test_user_groups_and_umask(box: Box) -> None:
    members = {"uid": 1000, "gid": 1001, "groups": (7, 8), "umask": 0o077}
    result = box.sh(
        "id -u; id -g; grep ^Groups /proc/self/status; umask; touch /dev/shm/x; stat -c %a /dev/shm/x", process=members
    )
    assert result.out.split() == ["1000", "1001", "Groups:", "7", "8", "0077", "600"]


def test_resource_limits(box: Box) -> None:
    limits = (Rlimit(name="RLIMIT_NOFILE", soft=64, hard=128), Rlimit(name="RLIMIT_CORE", soft=0, hard=0))
    assert box.sh("ulimit -Sn; ulimit -Hn; ulimit -c", process={"rlimits": limits}).out.split() == ["64", "128", "0"]


def test_no_capability_that_was_not_given(box: Box) -> None:
    script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr -s '\\t ' ' ' | cut -d' ' -f2"
    none, one = "0" * 16, "0" * 13 + "400"
    assert box.sh(script).out.split() == [none, none, none, none, none, "1", "2"]
    given = {"capabilities": ("CAP_NET_BIND_SERVICE",)}
    assert box.sh(script, process=given).out.split() == [none, one, one, one, none, "1", "2"]
    user = {**given, "uid": 1000}
    assert box.sh(script, process=user).out.split() == [none, none, none, one, none, "1", "2"]
    ambient = {**user, "ambient": ("CAP_NET_BIND_SERVICE",)}
    assert box.sh(script, process=ambient).out.split() == [one, one, one, one, one, "1", "2"]


def test_a_capability_that_the_host_does_not_have_is_a_clear_error(box: Box) -> None:
    lacking = [name for number, name in enumerate(NAMES) if not held() >> number & 1]
    if not lacking:
        ours = ", ".join(NAMES)
        assert box.sh("true", process={"capabilities": tuple(NAMES)}).code == 0, ours
        return
    result = box.sh("true", process={"capabilities": ("CAP_CHOWN", lacking[0])})
    assert (result.code, result.err) == (
        125,
        f"HostError: capabilities {lacking[0]}: this process does not have them to give\n",
    )


def test_new_privileges_only_where_asked_for(box: Box) -> None:
    assert box.sh("grep NoNewPrivs /proc/self/status", process={"no_new_privs": False}).out.split() == [
        "NoNewPrivs:",
        "0",
    ]


# Where it runs


def test_no_network_but_a_loopback_interface(box: Box) -> None:
    result = box.sh(
        "ls /sys/class/net; cat /sys/class/net/lo/flags; ping -c 1 -W 1 127.0.0.1 > /dev/null; cat /etc/resolv.conf"
    )
    assert result.out.split() == ["lo", "0x9"]
    assert "127.0.0.1\tlocalhost net" in box.run("cat", "/etc/hosts", hostname="net").out


def test_the_hosts_network_where_asked_for(box: Box) -> None:
    result = box.sh("readlink /proc/self/ns/net; cat /etc/resolv.conf", network="host")
    expected = f"{Path('/proc/self/ns/net').readlink()}\n{Path('/etc/resolv.conf').read_text()}"
    assert result.out == expected


def test_a_read_only_root(box: Box) -> None:
    for path in ("/x", "/etc/motd", "/etc/hosts", "/proc/sys/kernel/hostname", "/sys/kernel/x", "/sys/fs/cgroup/x"):
        assert "ead-only" in box.sh(f"echo x > {path}").err, path


def test_a_writable_root_dies_with_its_container(box: Box) -> None:
    script = "echo new > /etc/motd; rm /bin/ps; mkdir /made; cat /etc/motd; ls /bin/ps; stat -c '%a %u' /"
    first = box.sh(script, root={"writable": True})
    assert first.out.split() == ["new", "755", "0"]
    assert "No such file" in first.err
    second = box.sh("cat /etc/motd; ls /made /bin/ps", root={"writable": True})
    assert second.out == "from the upper layer\n/bin/ps\n"


def test_a_writable_root_of_bounded_size(box: Box) -> None:
    result = box.sh("dd if=/dev/zero of=/fill bs=1M count=4", root={"writable": True, "upper_max": 1024 * 1024})
    assert "No space left" in result.err
    assert result.code == 1


def test_a_working_directory_that_is_missing(box: Box) -> None:
    readonly = box.run("pwd", process={"cwd": "/srv/app"})
    assert (readonly.code, readonly.out) == (125, "")
    assert "enter the working directory /srv/app: it is missing, and the root is read-only: /srv/app" in readonly.err
    writable = box.run("pwd", process={"cwd": "/srv/app"}, root={"writable": True})
    assert (writable.code, writable.out) == (0, "/srv/app\n")


def test_devices(box: Box) -> None:
    result = box.sh(
        "ls /dev; head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x > /dev/null; echo x > /dev/full;"
        "stat -c %a /dev /dev/shm /dev/null; echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin",
    )
    names = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert result.out.split() == f"{names} 3 3 755 1777 666 out".split()
    assert "No space left" in result.err
    assert result.err.endswith("err\n")


def test_standard_streams_can_be_opened_again_by_a_user(box: Box) -> None:
    result = box.sh("echo out > /dev/stdout; echo err > /dev/stderr", process={"uid": 1000, "gid": 1000})
    assert (result.out, result.err) == ("out\n", "err\n")


# Limits


def test_memory_limit(box: Box) -> None:
    file = limit_file("memory/memory.limit_in_bytes", "memory.max")
    assert box.run("cat", file, memory=32 * 1024 * 1024).out == f"{32 * 1024 * 1024}\n"
    killed = box.run("tail", "/dev/zero", memory=16 * 1024 * 1024)
    assert killed.code == 128 + signal.SIGKILL


def test_pids_limit(box: Box) -> None:
    result = box.sh("for i in 1 2 3 4 5 6; do sleep 0.2 & done; wait", pids=4)
    assert "can't fork" in result.err


def test_cpu_limit(box: Box) -> None:
    script = f"cat {limit_file('cpu/cpu.cfs_quota_us', 'cpu.max')}"
    assert box.sh(script, cpu=25_000).out.split()[0] == "25000"


# How it ends


@pytest.mark.parametrize("code", [0, 1, 42, 125, 255])
def test_the_containers_own_exit_code(box: Box, code: int) -> None:
    assert box.sh(f"exit {code}").code == code


def test_a_program_that_is_not_there_is_127(box: Box) -> None:
    for argv in (("nothing",), ("/bin/nothing",), ("./nothing",), ("/etc/motd/nothing",)):
        result = box.run(*argv)
        assert result.code == 127, result
        assert result.err.startswith("NotFoundError: execute ")
        assert argv[0] in result.err


def test_a_program_that_cannot_be_executed_is_126(box: Box) -> None:
    for argv in (("/etc/motd",), ("/etc",), ("/proc/self/mem",)):
        result = box.run(*argv)
        assert result.code == 126, result
        assert result.err.startswith("NotExecutableError: execute ")
    assert box.run("sh", process={"uid": 1000, "env": ("PATH=/root/none:/bin",)}, input=b"").code == 0


def test_scripts_and_their_interpreters(box: Box) -> None:
    files = {
        **busybox_files(),
        "bin/script": File(b"#!/bin/sh\necho script $0 $1; readlink /proc/$$/exe\n", mode=0o755),
        "bin/lost": File(b"#!/no/interpreter\n", mode=0o755),
        "bin/garbage": File(b"\x00\x01\x02\x03", mode=0o755),
    }
    image = build(box.folder, [files])
    assert box.run("script", "x", image=image).out == "script /bin/script x\n/bin/busybox\n"
    assert box.run("lost", image=image).code == 127
    assert box.run("garbage", image=image).code == 126


def test_signals_are_passed_on_to_the_container(box: Box) -> None:
    script = "trap 'echo got TERM; exit 9' TERM; echo ready; while :; do sleep 0.02; done"
    with box.start(box.request("sh", "-c", script)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.read() == b"got TERM\n"
        assert process.wait(10) == 9


def test_the_third_interrupt_kills_a_program_that_ignores_them(box: Box) -> None:
    with box.start(box.request("sh", "-c", "echo ready; sleep 100")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(40):  # signals that come together count as one
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                assert process.wait(0.25) == 128 + signal.SIGKILL
                return
    raise AssertionError("it is not killed")


# Streams


def test_standard_input_only_where_asked_for(box: Box) -> None:
    data = os.urandom(300_000)
    assert box.run("wc", "-c", input=data, stdin=True).out.split() == ["300000"]
    assert box.run("wc", "-c", input=b"not for you").out.split() == ["0"]
    assert box.sh("exec < /dev/null; sleep 0.1; echo end", input=data, stdin=True).out == "end\n"


def test_large_output_on_both_streams(box: Box) -> None:
    result = box.sh("yes out | head -c 3000000 & yes err | head -c 2000000 >&2; wait")
    assert (len(result.out), len(result.err)) == (3_000_000, 2_000_000)
    assert set(result.out.split()) | set(result.err.split()) <= {"out", "err", "ou", "er"}


def test_a_reader_that_goes_away_does_not_end_the_container(box: Box) -> None:
    with box.start(box.request("sh", "-c", "seq 100000; echo done >&2; exit 5")) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b"done\n"
        assert process.wait(10) == 5


def test_output_that_nobody_reads_does_not_stop_the_watch(box: Box) -> None:
    reason = "lambda: StopReason(code='revoked', message='the base')"
    with box.start(box.request("yes", stop_grace=0.1), watch=reason, watch_interval="0.2") as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and not programs(box):
            time.sleep(0.01)
        while time.monotonic() < deadline and programs(box):
            time.sleep(0.05)
        assert programs(box) == ""
        out, err = process.communicate(timeout=10)
    assert len(out) < 1_000_000
    assert err == b"stopped: revoked: the base\n"
    assert process.returncode == 128 + signal.SIGKILL


def test_a_reason_that_says_at_once_leaves_no_time_to_end(box: Box) -> None:
    reason = "lambda: StopReason(code='revoked', message='the base', at_once=True)"
    command = box.request("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.05; done", stop_grace=30.0)
    with box.start(command, watch=reason, watch_interval="0.2") as process:
        assert process.wait(10) == 128 + signal.SIGKILL


def programs(box: Box) -> str:
    """The processes in the container, one a line; its launcher may be busy with their output for longer."""
    found = ""
    for group in Path("/sys/fs/cgroup").glob(f"**/{box.cgroup_parent}/box/cgroup.procs"):
        with suppress(OSError):  # the group is gone since
            found += group.read_text()
    return found


# Mounts


def test_tmpfs(box: Box) -> None:
    mount = Tmpfs(target="/run", size=1024 * 1024, mode=0o750, gid=6)
    result = box.sh(
        "stat -c '%a %u %g' /run; dd if=/dev/zero of=/run/x bs=1M count=2; grep ' /run ' /proc/mounts", tmpfs=(mount,)
    )
    assert result.out.splitlines()[0] == "750 0 6"
    assert "nosuid,nodev,noexec" in result.out
    assert "No space left" in result.err


def test_binds(box: Box) -> None:
    source = box.folder / "data"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("from the host\n")
    shutil.copy(need("busybox"), source / "busybox")
    read_only = Bind(source=str(source), target="/srv")
    script = "cat /srv/file; echo x > /srv/new; /srv/busybox true; grep ' /srv ' /proc/mounts"
    result = box.sh(script, mounts=(read_only,))
    assert result.out.startswith("from the host\n")
    assert "ro,nosuid,nodev,noexec" in result.out
    assert "Read-only" in result.err
    assert "Permission denied" in result.err
    writable = Bind(source=str(source), target="/srv", read_only=False, noexec=False)
    assert box.sh("echo x > /srv/new && /srv/busybox echo run", mounts=(writable,)).out == "run\n"
    assert (source / "new").read_text() == "x\n"
    nested = (
        Bind(source=str(source / "below"), target="/srv/below"),
        read_only,
        Bind(source=str(source / "file"), target="/etc/motd"),
    )
    assert box.sh("cat /etc/motd; grep -c /srv /proc/mounts", mounts=nested).out == "from the host\n2\n"


def test_a_bind_on_a_place_that_is_missing(box: Box) -> None:
    (box.folder / "data").mkdir()
    (box.folder / "data/file").write_text("content\n")
    folder = Bind(source=str(box.folder / "data"), target="/srv/a/b")
    file = Bind(source=str(box.folder / "data/file"), target="/srv/c/file")
    refused = box.sh("true", mounts=(folder,))
    assert refused.code == 125
    assert "/srv/a/b" in refused.err
    assert "it is missing, and the root is read-only" in refused.err
    made = box.sh("cat /srv/a/b/file /srv/c/file", mounts=(folder, file), root={"writable": True})
    assert made.out == "content\ncontent\n"


def test_a_bind_of_a_link_or_of_nothing_is_refused(box: Box) -> None:
    (box.folder / "link").symlink_to("/etc")
    for source in ("link", "link/passwd", "nothing"):
        result = box.sh("true", mounts=(Bind(source=str(box.folder / source), target="/srv"),))
        assert result.code == 125
        assert f"HostError: bind {box.folder / source}: " in result.err


def test_a_loop_device_where_the_kernel_cannot_mount_the_file(box: Box) -> None:
    """An index on tmpfs is such a case on every kernel; Linux before 6.12 is one for all files."""
    if not Path("/dev/loop-control").exists():
        lacking("/dev/loop-control")
    folder = Path(f"/dev/shm/{box.cgroup_parent}")
    folder.mkdir()
    try:
        image = build(folder, [busybox_files(), {"etc/motd": "second"}])
        result = box.sh("cat /etc/motd; grep ' / ' /proc/mounts", image=image)
        assert result.out.startswith("second")
        assert "erofs" in result.out
        writable = box.sh("echo x > /x; cat /x", image=image, root={"writable": True})
        assert writable.out == "x\n"
    finally:
        shutil.rmtree(folder)


def test_many_layers(box: Box) -> None:
    layers: list[dict[str, Content]] = [busybox_files()]
    layers += [{f"srv/{number}": f"{number}\n"} for number in range(40)]
    result = box.sh("cat /srv/* | wc -l; cat /srv/39", image=build(box.folder, layers))
    assert result.out.split() == ["40", "39"]


# The reaper


def test_a_reaper_in_front_of_the_program(box: Box) -> None:
    need("catatonit")
    script = "echo $$; cat /proc/1/comm; readlink /proc/1/exe; (sleep 0.05 &); sleep 0.3; ps -o stat,comm; exit 3"
    result = box.sh(script, init=True)
    lines = result.out.splitlines()
    assert int(lines[0]) > 1
    assert lines[2].startswith("/memfd:reaper")
    assert not any(line.startswith("Z") for line in lines)
    assert result.code == 3
    assert box.sh("kill -9 $$", init=True).code == 128 + signal.SIGKILL
    assert box.run("nothing", init=True).code == 127


def test_a_reaper_passes_signals_on(box: Box) -> None:
    need("catatonit")
    with box.start(box.request("sh", "-c", "echo ready; exec sleep 100", init=True)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 128 + signal.SIGTERM


def test_a_missing_or_dynamic_reaper_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no static reaper is installed: looked for /nowhere/tini"):
        open_reaper(("/nowhere/tini",))
    with pytest.raises(HostError, match="not a static ELF program"):
        open_reaper(("/bin/sh",))
    script = tmp_path / "tini"
    script.write_text("#!/bin/sh\n")
    with pytest.raises(HostError, match="not a static ELF program"):
        open_reaper((str(script),))
    assert is_static(Path(need("busybox")).read_bytes())


def test_another_machines_program_is_126(box: Box) -> None:
    header = bytearray(Path(need("busybox")).read_bytes()[:4096])
    header[18] = 0xF3 if platform.machine() != "riscv64" else 0x3E  # e_machine, elf(5)
    image = build(box.folder, [{**busybox_files(), "bin/other": File(bytes(header), mode=0o755)}])
    result = box.run("other", image=image)
    assert result.code == 126
    assert "Exec format error" in result.err


def test_a_caller_with_threads_is_refused(box: Box) -> None:
    """A clone copies one thread; what another one had locked would stay locked in the child."""
    command = box.command(box.request("true"))
    thread = "import threading, time; threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
    done = subprocess.run([*command[:2], thread + command[2]], capture_output=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 125
    assert done.stderr == b"HostError: launch: got a process of 2 threads, expected one\n"


def test_a_relative_state_folder(box: Box) -> None:
    command = box.command(box.request("echo", "here", root={"writable": True}))
    source = command[2].replace(repr(box.state), "Path('state')")
    done = subprocess.run([*command[:2], source], capture_output=True, check=False, cwd=box.folder, env=ENVIRONMENT)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"here\n", b"")


def test_the_launcher_leaves_no_descriptor_in_its_own_process(box: Box) -> None:
    """A caller that starts several containers one after the other keeps as many descriptors as before."""
    source = (
        "import os, dataclasses; from tests.runtime.starter import *; from runtime.launch import run;"
        f"image, request = {box.image!r}, {box.request('true')!r}\n"
        "def count(): return len(os.listdir('/proc/self/fd'))\n"
        "root = image.open(request.root); request = dataclasses.replace(request, root=root); before = count()\n"
        f"for _ in range(3): run(request, state_dir={box.state!r}, cgroup_parent={box.cgroup_parent!r})\n"
        "assert count() == before, (before, count())\n"
    )
    command = [*box.command(box.request("true"))[:2], source]
    subprocess.run(command, check=True, timeout=60, cwd=REPOSITORY)
