"""The runtime attacks of the design, each planted for real: a canary on the host that must not change.

Names are those of the attack list: X1 overwriting the runtime's executable, X2 leaked descriptors, X3 masked
paths, X4 and X5 links where the runtime mounts, X6 cgroups and new namespaces, X8 privileges.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from runtime.model import Bind, Tmpfs
from runtime.plan import MASKED, READ_ONLY
from tests.runtime.boxes import REPOSITORY, Box, build, build_hostile, busybox_files
from tests.runtime.test_cleanup import start_with_fault
from tests.support.images import Content, Dir, File, Link
from tests.support.tools import need

pytestmark = pytest.mark.root


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """A folder of the host that nothing may be written to, renamed in or mounted on."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "file").write_text("untouched\n")
    yield folder
    assert [path.name for path in folder.iterdir()] == ["file"]
    assert (folder / "file").read_text() == "untouched\n"
    assert (folder.stat().st_mode, (folder / "file").stat().st_mode) == (0o40755, 0o100644)


@pytest.fixture
def interpreter() -> Iterator[Path]:
    """The host's Python, which is what a starting container's /proc/self/exe is."""
    path = Path(sys.executable).resolve()
    before = hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns
    yield path
    assert (hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) == before


def with_files(box: Box, files: Mapping[str, Content]) -> Any:
    return build(box.folder, [busybox_files(), files])


# X1


def elf_with_interpreter(path: bytes) -> bytes:
    """A program that the kernel starts by way of the interpreter `path` (elf(5), PT_INTERP)."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0x400000, 64, 0, 0, 64, 56, 2, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 4096, 4096, 4096)
    interp = struct.pack("<IIQQQQQQ", 3, 4, 256, 0x400100, 0x400100, len(path) + 1, len(path) + 1, 1)
    return (header + load + interp).ljust(256, b"\0") + path + b"\0" * (4096 - 256 - len(path))


@pytest.mark.parametrize(
    "program",
    [
        Link("/proc/self/exe"),
        Link("/proc/1/exe"),
        Link("../proc/self/exe"),
        File(b"#!/proc/self/exe\nprint('python runs inside')\n", mode=0o755),
        File(b"#!/proc/self/exe -c\n", mode=0o755),
        File(elf_with_interpreter(b"/proc/self/exe"), mode=0o755),
    ],
    ids=["link", "link-to-pid-1", "relative-link", "script", "script-with-argument", "elf-interpreter"],
)
@pytest.mark.parametrize("init", [False, True])
def test_x1_an_entrypoint_that_leads_to_the_runtimes_executable(
    box: Box, interpreter: Path, program: Content, init: bool
) -> None:
    """CVE-2019-5736: the runtime's file ran again inside, with the attacker's libraries, and could be written."""
    if init:
        need("catatonit")
    image = with_files(box, {"bin/entry": program})
    argv = ("/bin/entry", "-c", "print('python runs inside')")
    result = box.run(*argv, image=image, init=init, process={"env": ("PATH=/bin", "PYTHONHOME=/")})
    assert result.code != 0
    assert "python" not in result.out + result.err.lower().replace(str(interpreter), "")


def test_x1_the_executable_of_each_process_is_the_images_own(box: Box, interpreter: Path) -> None:
    script = "sleep 1 & for p in /proc/[0-9]*; do readlink $p/exe; done; echo overwrite > /proc/1/exe"
    result = box.sh(script)
    assert set(result.out.split()) == {"/bin/busybox"}
    assert "an't create /proc/1/exe" in result.err
    capable = {"capabilities": ("CAP_DAC_OVERRIDE", "CAP_FOWNER")}
    assert "an't create /proc/1/exe" in box.sh(script, process=capable).err


def test_x1_the_reaper_is_a_sealed_copy(box: Box) -> None:
    reaper = Path(need("catatonit")).resolve()
    before = reaper.read_bytes()
    result = box.sh("echo overwrite > /proc/1/exe; chmod 777 /proc/1/exe; echo overwrite > /proc/1/exe", init=True)
    assert result.err.count("an't create /proc/1/exe") == 2
    assert reaper.read_bytes() == before


@pytest.mark.parametrize("step", [1, 11, 19])
def test_x1_before_execve_the_first_process_is_not_dumpable(box: Box, step: int) -> None:
    """PR_GET_DUMPABLE is 3: its /proc files are root's, and nobody else may trace it."""
    check = "import ctypes; answer = ctypes.CDLL(None).prctl(3, 0, 0, 0, 0); raise OSError(5, f'dumpable {answer}')"
    with start_with_fault(box, step, check) as process:
        assert process.communicate(timeout=20)[1] == b"StepError: a planted fault: dumpable 0\n"


def test_x1_a_module_that_the_image_brings_is_never_imported(box: Box) -> None:
    """CVE-2019-14271: a helper loaded a library from the container's root, with the host's privileges."""
    planted: dict[str, Content] = {}
    for folder in {path for path in sys.path if path.startswith("/")} | {str(REPOSITORY)}:
        planted |= {f"{folder.strip('/')}/planted_module.py": "raise SystemExit('planted code ran')\n"}
    image = build(box.folder, [{**busybox_files(), **planted}])
    for step in (3, 16, 20):
        with start_with_fault(box, step, "import planted_module", image) as process:
            error = process.communicate(timeout=20)[1]
        assert process.returncode == 125
        assert b"StepError: a planted fault: " in error
        assert b"No module named 'planted_module'" in error
        assert b"planted code ran" not in error


# X2


def test_x2_descriptors_of_the_launcher_do_not_get_inside(box: Box) -> None:
    command = box.command(box.request("sh", "-c", "ls /proc/self/fd; readlink /proc/self/cwd"))
    fds = [os.open("/", os.O_RDONLY | os.O_DIRECTORY), os.open("/etc/shadow", os.O_RDONLY)]
    try:
        done = subprocess.run(
            command, cwd=REPOSITORY, capture_output=True, check=False, pass_fds=fds, timeout=20, text=True
        )
    finally:
        for fd in fds:
            os.close(fd)
    assert done.stdout.split() == ["0", "1", "2", "3", "/"]  # 3 is the folder that ls reads


@pytest.mark.parametrize("writable", [False, True])
def test_x2_a_working_directory_by_descriptor(box: Box, canary: Path, writable: bool) -> None:
    """CVE-2024-21626: WORKDIR /proc/self/fd/8 was the host's cgroup folder."""
    links: dict[str, Content] = {f"srv/{fd}": Link(f"/proc/self/fd/{fd}") for fd in range(3, 16)}
    image = with_files(box, {**links, "srv/cwd": Link("/proc/self/cwd"), "srv/root": Link("/proc/1/root")})
    names = [f"/proc/self/fd/{fd}" for fd in (3, 4, 7, 10)] + [f"/srv/{name}" for name in (5, 8, 12, "cwd", "root")]
    for name in (*names, f"/proc/self/fd/7/../../..{canary}", f"/srv/root{canary}"):
        result = box.run("pwd", image=image, process={"cwd": name}, root={"writable": writable})
        assert (result.code, result.out) == (125, ""), name
        assert f"enter the working directory {name}" in result.err


def test_x2_the_streams_are_not_the_callers_files(box: Box, tmp_path: Path) -> None:
    """A container could open its standard output again for reading, or cut the file off."""
    target = tmp_path / "out"
    target.write_text("secret of the host\n")
    script = "cat /proc/self/fd/1 < /dev/null & sleep 0.1; kill %1; : > /proc/self/fd/1; echo written"
    with target.open("ab") as file:
        subprocess.run(
            box.command(box.request("sh", "-c", script)), cwd=REPOSITORY, stdout=file, check=True, timeout=20
        )
    assert target.read_text().startswith("secret of the host\n")
    assert "secret" not in target.read_text().removeprefix("secret of the host\n")


def test_x2_the_null_device_of_the_host_keeps_its_mode(box: Box) -> None:
    before = Path("/dev/null").stat().st_mode
    box.sh("chmod 600 /proc/self/fd/0; chmod 600 /dev/null", process={"capabilities": ("CAP_FOWNER",)})
    assert Path("/dev/null").stat().st_mode == before


# X3


def test_x3_masked_paths_are_empty_and_stay_masked(box: Box) -> None:
    paths = [f"/{mount}/{path}" for mount, path in MASKED]
    script = (
        f"for p in {' '.join(paths)}; do [ -e $p ] || continue; if [ -d $p ]; then ls -A $p; echo x > $p/x; "
        "else stat -c %t:%T $p; cat $p; fi; umount $p 2>&1; done"
    )
    result = box.sh(script, process={"capabilities": ("CAP_DAC_OVERRIDE", "CAP_MKNOD")})
    lines = set(result.out.split("\n")) - {""}
    assert {line for line in lines if not line.startswith("umount")} == {"1:3"}
    assert "Read-only file system" in result.err


@pytest.mark.parametrize("null", [Link("/proc/sysrq-trigger"), Link("/etc/passwd"), File(b"content")])
def test_x3_a_null_device_that_the_image_brings(box: Box, null: Content) -> None:
    """CVE-2025-31133: /dev/null was a link, and what it led to was mounted over the masked path."""
    files = {**busybox_files(), "dev/null": null, "dev/pts": Link("/proc"), "dev/console": Link("/proc/sysrq-trigger")}
    result = box.sh("stat -c %t:%T /proc/keys /dev/null; ls /dev/console", image=build_hostile(box.folder, files))
    assert result.out.split() == ["1:3", "1:3"]


def test_x3_read_only_paths(box: Box) -> None:
    paths = [f"/{mount}/{path}" for mount, path in READ_ONLY if Path(f"/{mount}/{path}").exists()]
    for path in paths:
        assert f" {path} proc ro,nosuid,nodev,noexec" in box.run("cat", "/proc/mounts").out, path
    capable = {"capabilities": ("CAP_NET_ADMIN", "CAP_DAC_OVERRIDE")}
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity"):
        if Path(path).exists():
            assert "Read-only file system" in box.sh(f"echo 1 > {path}", process=capable).err, path


# X4, X5


def place(name: str, content: Content | None) -> dict[str, Content]:
    files = busybox_files()
    files.pop(f"{name}/", None)
    files.pop(name, None)
    return {**files, **({} if content is None else {name: content})}


@pytest.mark.parametrize("name", ["proc", "sys", "dev", "etc/hosts", "etc/resolv.conf"])
@pytest.mark.parametrize("kind", ["absolute", "relative", "inside", "magic", "missing", "other"])
@pytest.mark.parametrize("writable", [False, True])
def test_x5_mount_points_that_are_not_what_they_should_be(
    box: Box, canary: Path, name: str, kind: str, writable: bool
) -> None:
    """CVE-2023-27561, CVE-2026-41579: /proc or /dev as a link led the runtime's mounts elsewhere."""
    folder = "/" not in name
    content: Content | None = {
        "absolute": Link(str(canary if folder else canary / "file")),
        "relative": Link(f"{'../' * 12}{canary if folder else canary / 'file'}"),
        "inside": Link("/srv" if folder else "/etc/passwd"),
        "magic": Link("/proc/self/cwd"),
        "missing": None,
        "other": File(b"") if folder else Dir(),
    }[kind]
    image = build_hostile(box.folder, place(name, content))
    result = box.sh("true", image=image, root={"writable": writable})
    assert result.code == 125
    assert result.err.startswith("StepError: ")
    assert name.rsplit("/", maxsplit=1)[-1] in result.err


@pytest.mark.parametrize("writable", [False, True])
def test_x5_targets_of_binds_that_lead_out(box: Box, canary: Path, writable: bool) -> None:
    """Links in a target are followed inside the container's root only, and not through /proc at all."""
    (box.folder / "data").mkdir()
    (box.folder / "data/mine").write_text("data\n")
    links: dict[str, Content] = {
        "srv/absolute": Link(str(canary)),
        "srv/relative": Link(f"{'../' * 12}{canary}"),
        "srv/inside": Link("/var"),
        "srv/root": Link("/"),
        "srv/magic": Link("/proc/self/cwd"),
        "srv/proc": Link("/proc"),
    }
    image = with_files(box, links)

    def start(target: str) -> tuple[int, str]:
        bind = Bind(source=str(box.folder / "data"), target=target, read_only=False)
        result = box.sh(f"cat {target}/mine; ls /var", image=image, mounts=(bind,), root={"writable": writable})
        return result.code, result.out

    assert start("/srv/inside") == (0, "data\nmine\n")
    for target in ("/srv/root", "/srv/magic", "/srv/proc", "/proc", "/proc/sys", "/sys/fs/cgroup", "/sys/fs"):
        assert start(target) == (125, ""), target
    for target in ("/srv/absolute", "/srv/absolute/below", "/srv/relative"):  # their targets do not exist inside
        assert start(target) == (125, ""), target


def test_x5_a_target_that_is_swapped_during_the_start(box: Box, canary: Path) -> None:
    """CVE-2021-30465: a volume shared with another container had a folder swapped for a link."""
    shared = box.folder / "shared"
    (shared / "x").mkdir(parents=True)
    (box.folder / "data").mkdir()
    ended = threading.Event()

    (shared / "link").symlink_to(canary)

    def swap() -> None:
        while not ended.is_set():
            for first, second in (("x", "kept"), ("link", "x"), ("x", "link"), ("kept", "x")):
                with suppress(OSError):  # what a start has mounted on or made there is in the way
                    (shared / first).rename(shared / second)

    attacker = threading.Thread(target=swap)
    attacker.start()
    mounts = (
        Bind(source=str(shared), target="/srv", read_only=False),
        Bind(source=str(box.folder / "data"), target="/srv/x/new", read_only=False),
        Bind(source=str(box.folder / "data"), target="/srv/x", read_only=False),
    )
    try:
        codes = {box.sh("echo x > /srv/x/planted", mounts=mounts, root={"writable": True}).code for _ in range(12)}
    finally:
        ended.set()
        attacker.join()
    assert codes <= {0, 1, 125}
    shutil.rmtree(shared)


def test_x4_nothing_mounts_over_proc_from_a_request(box: Box) -> None:
    for target in ("/proc", "/proc/self", "/sys", "/dev/../proc"):
        try:
            mount = Tmpfs(target=target)
        except Exception as error:
            assert "without '..'" in str(error)  # noqa: PT017  # one of the four is refused earlier
            continue
        assert box.sh("true", tmpfs=(mount,)).code == 125


# X6


def test_x6_cgroups_are_read_only_and_without_a_release_agent(box: Box) -> None:
    script = (
        "find /sys/fs/cgroup -name release_agent; find /sys/fs/cgroup -name cgroup.procs | head -1 | xargs cat;"
        "for f in $(find /sys/fs/cgroup -name cgroup.procs -o -name devices.allow); do echo 1 > $f; done;"
        "mount -o remount,rw /sys/fs/cgroup; mount -t cgroup -o memory none /tmp; echo $?; cat /proc/self/cgroup"
    )
    result = box.sh(script, process={"capabilities": ("CAP_DAC_OVERRIDE", "CAP_FOWNER")}, root={"writable": True})
    first, *rest = result.out.splitlines()
    assert first == "1"
    groups = [line for line in rest if ":" in line]
    assert rest[0] not in groups
    assert rest[0] != "0"
    assert all(
        line.rsplit(":", 1)[1] == "/" for line in groups if box.cgroup_parent in Path("/proc/self/cgroup").read_text()
    )
    assert "Operation not permitted" in result.err or "ermission denied" in result.err


def test_x6_no_new_namespace(box: Box) -> None:
    """CVE-2022-0492: a new user namespace brought the capability to mount a cgroup hierarchy."""
    for options in ("-U", "-Ur", "-m", "-p", "-n", "-Urm"):
        result = box.run("unshare", options, "true")
        assert result.code == 1, options
        assert "Operation not permitted" in result.err


# X8


def test_x8_devices_are_denied_by_default(box: Box) -> None:
    """GHSA-g54h-m393-cpwq: whoever may make a node must not reach the device behind it."""
    major, minor = os.major(os.stat("/").st_dev), os.minor(os.stat("/").st_dev)  # noqa: PTH116
    script = (
        f"mknod /root/disk b {major} {minor}; mknod /root/mem c 1 1; mknod /root/zero c 1 5; "
        f"mknod /dev/disk b {major} {minor}; mknod /dev/mem c 1 1; mknod /dev/zero2 c 1 5;"
        "for f in /root/disk /root/mem /root/zero /dev/disk /dev/mem; do head -c 1 $f > /dev/null && echo $f; done;"
        "head -c 1 /dev/zero2 | wc -c"
    )
    result = box.sh(script, process={"capabilities": ("CAP_MKNOD",)}, root={"writable": True})
    assert result.out == "1\n"
    assert "ermission denied" in result.err or "not permitted" in result.err


def program_that_ends_with_its_effective_uid() -> bytes:
    """A static program: exit(geteuid()). busybox gives a set-user-ID bit up by itself."""
    machine, code = {
        "x86_64": (62, bytes.fromhex("b86b000000 0f05 89c7 b83c000000 0f05")),
        "aarch64": (183, struct.pack("<4I", 0xD28015E8, 0xD4000001, 0xD2800BA8, 0xD4000001)),
    }[platform.machine()]
    numbers = (2, machine, 1, 0x400078, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", *numbers)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0x400000, 0x400000, 4096, 4096, 0x10000) + code.ljust(4096, b"\0")


def test_x8_set_user_id_programs_give_nothing(box: Box) -> None:
    program = File(program_that_ends_with_its_effective_uid(), mode=0o4755)
    image = with_files(box, {"srv/euid": program})
    members = {"uid": 200, "gid": 200}
    assert box.run("/srv/euid", image=image, process=members).code == 200
    assert box.run("/srv/euid", image=image, process=members, root={"writable": True}).code == 200
    assert box.run("/srv/euid", image=image, process={**members, "no_new_privs": False}).code == 0


def test_x8_the_launchers_keyring_is_not_the_containers(box: Box) -> None:
    assert box.run("cat", "/proc/keys").out == ""


def test_x8_processes_of_the_host_are_not_seen(box: Box) -> None:
    with box.start(box.request("sleep", "1000", name="other")) as process:
        time.sleep(0.2)
        result = box.sh("ps -o pid,args; kill -9 $(seq 2 400) 2>/dev/null; echo end")
        assert process.poll() is None
        process.kill()
    pids = [line.split()[0] for line in result.out.splitlines()[1:-1]]
    assert set(map(int, pids)) <= set(range(1, 10))
