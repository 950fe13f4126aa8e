"""Starting a cleared image, beside crun, runc and podman on the same files.

    python -m benchmarks.start [--rounds 40] [--docs]

Each round runs every command once, in turn: in a hot loop, and after 100 ms in which nothing runs. All start the same
program of the same image, without a network: `pratique run` by a broker (deploy/client.c, and the Python command), by
itself, podman with runc, and crun and runc on a bare bundle, which check nothing. crun refuses hosts with cgroup v1 and
v2 beside each other: there crun and runc are timed in a mount namespace of their own that lacks v2.

CPU is that of the whole machine, by /proc/stat. `--docs` writes docs/start-speed.md.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from runtime.broker import wire
from runtime.linux.cgroups import find_hierarchies
from tests.chain.stage import Chain, Desk, app_image, base_image
from tests.support.images import BuiltImage, Content, File, image
from tests.support.live import prepared
from tests.support.packages import Wheel, python_files
from tests.support.tools import need

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs" / "start-speed.md"
IDLE: Final = 0.1
PROGRAM: Final = b"#!/bin/sh\nread line\nexit 0\n"
"""Ends when its standard input does, which is at once where it has none."""
_TICK: Final = 1000 / os.sysconf("SC_CLK_TCK")


@dataclass(slots=True, kw_only=True)
class Contender:
    """One way to start; `apart` has it timed where there is no cgroup v2 beside v1."""

    name: str
    command: Sequence[str]
    apart: bool = False
    hot: list[float] = field(default_factory=list)
    idle: list[float] = field(default_factory=list)
    cpu: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A host that has pulled a cleared image; `layout` is the same image for podman, `rootfs` for bundles."""

    folder: Path
    desk: Desk
    reference: str
    layout: Path
    rootfs: Path

    @property
    def environment(self) -> Mapping[str, str]:
        """With the host's store and state folder."""
        return self.desk.environment


def app(base: BuiltImage) -> BuiltImage:
    """An application whose program ends at once."""
    files: dict[str, Content] = dict(python_files(Wheel(name="itsdangerous", version="2.2.0", licence="BSD-3-Clause")))
    files["srv/app/main"] = File(PROGRAM, mode=0o755)
    return image([files], parent=base, user="65534:65534", created="2026-11-20T00:00:00Z")


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """Push, approve, clear and pull it with the real registry, which then ends."""
    base = base_image()
    built = app(base)
    desk = Desk.at(folder)
    with prepared() as live:
        live.start()
        try:
            chain = Chain(live=live, desk=desk, base=base, app=app_image(base))
            chain.set_up()
            chain.approve_base(chain.push(base, "bench/base"))
            reference = chain.push(built, "bench/app")
            chain.approve_top(reference)
            chain.cleared(reference)
            desk.fine("pull", reference)
        finally:
            live.stop()
    layout, rootfs = folder / "layout", folder / "rootfs"
    built.write_layout(layout)
    rootfs.mkdir()
    for layer in built.layers:
        subprocess.run(["tar", "-x", "-C", str(rootfs)], input=layer.tar, check=True)
    time.sleep(2.1)  # what changed just now is not sealed (runtime.seals)
    yield Scene(folder=folder, desk=desk, reference=reference, layout=layout, rootfs=rootfs)


@contextmanager
def broker(scene: Scene) -> Iterator[int]:
    """A broker that is up; its pid."""
    command = [sys.executable, "-m", "pratique", "broker"]
    with subprocess.Popen(command, env=scene.environment, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
        try:
            deadline = time.monotonic() + 20
            while not (slots := scene.desk.state / "slots").exists() or len(list(slots.iterdir())) < 4:
                if time.monotonic() > deadline:
                    raise SystemExit("start: the broker does not come up")
                time.sleep(0.05)
            time.sleep(0.5)
            yield process.pid
        finally:
            process.terminate()


class Apart:
    """Times commands in a mount namespace of its own without cgroup v2, if there is v1 as well."""

    def __init__(self) -> None:
        """Start the process that times them."""
        found = find_hierarchies()
        unmount = f"umount -l {found.v2};" if found.v1 and found.v2 is not None else ""
        program = f"{unmount} exec {sys.executable} -c 'from benchmarks.start import serve_apart; serve_apart()'"
        command = [need("unshare"), "--mount", "--propagation", "private", "sh", "-c", program]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True)

    def time(self, command: Sequence[str]) -> float:
        """Milliseconds that it took."""
        if self._process.stdin is None or self._process.stdout is None:
            raise SystemExit("start: no process to time with")
        self._process.stdin.write(json.dumps(list(command)) + "\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.communicate()


def serve_apart() -> None:
    """Time the commands that come on standard input."""
    for text in sys.stdin:
        print(timed(json.loads(text), os.environ), flush=True)


def timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Milliseconds from the start of a command to its end, which must be a good one."""
    begun = time.perf_counter()
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    took = (time.perf_counter() - begun) * 1000
    if done.returncode != 0:
        raise SystemExit(f"start: {' '.join(command[:4])}: exit code {done.returncode}: {done.stderr.decode()[:300]}")
    return took


def busy() -> float:
    """Milliseconds that the processors were busy since boot."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return (sum(ticks) - ticks[3] - ticks[4]) * _TICK


def bundle(scene: Scene, runtime: str) -> Sequence[str]:
    """A bundle with the same program in the same files, and the command that runs it."""
    folder = scene.folder / f"bundle-{runtime}"
    folder.mkdir()
    subprocess.run([need(runtime), "spec"], cwd=folder, check=True)
    config = json.loads((folder / "config.json").read_text())
    config["root"] = {"path": str(scene.rootfs), "readonly": True}
    config["process"] |= {"args": ["/srv/app/main"], "terminal": False, "user": {"uid": 65534, "gid": 65534}}
    (folder / "config.json").write_text(json.dumps(config))
    return [need(runtime), "run", "--bundle", str(folder), f"pratique-bench-{runtime}"]


def podman(scene: Scene) -> Sequence[str]:
    """The image in podman's storage, and the command that runs it."""
    storage = [need("podman"), "--root", str(scene.folder / "podman"), "--runroot", str(scene.folder / "podman-run")]
    storage += ["--cgroup-manager", "cgroupfs", "--runtime", need("runc")]
    pulled = subprocess.run(
        [*storage, "pull", "--quiet", f"oci:{scene.layout}"], check=True, capture_output=True, text=True
    )
    return [*storage, "run", "--rm", "--network=none", pulled.stdout.split()[-1]]


def contenders(scene: Scene) -> list[Contender]:
    """All of them; the first is what the others are compared with."""
    client = scene.folder / "client"
    source = str(ROOT / "deploy" / "client.c")
    subprocess.run([need("cc"), "-O2", "-static", "-o", str(client), source], check=True)
    python = [sys.executable, "-m", "pratique"]
    alone = ["env", f"PRATIQUE_STATE={scene.folder}/alone"]
    return [
        Contender(name="pratique run, broker", command=[str(client), "run", scene.reference]),
        Contender(name="pratique run, broker, Python command", command=[*python, "run", scene.reference]),
        Contender(name="pratique run by itself", command=[*alone, *python, "run", scene.reference]),
        Contender(name="crun, bare bundle", command=bundle(scene, "crun"), apart=True),
        Contender(name="runc, bare bundle", command=bundle(scene, "runc"), apart=True),
        Contender(name="podman run", command=podman(scene)),
    ]


def measure(found: Sequence[Contender], scene: Scene, rounds: int) -> None:
    """Time each of them in turn, hot and after a pause."""
    apart = Apart()
    try:
        for number in range(-2, rounds):
            for each in found:
                time.sleep(IDLE)
                before = busy()
                times = [
                    apart.time(each.command) if each.apart else timed(each.command, scene.environment) for _ in range(6)
                ]
                if number >= 0:
                    each.cpu += (busy() - before) / 6
                    each.idle.append(times[0])
                    each.hot += times[1:]
    finally:
        apart.close()


def rate(
    start: Callable[[], object], finish: Callable[[object], None], seconds: float = 4.0, at_once: int = 4
) -> float:
    """Starts a second, so many under way at a time."""
    running: list[object] = [start() for _ in range(at_once)]
    begun, count = time.monotonic(), 0
    while time.monotonic() < begun + seconds:
        finish(running.pop(0))
        count += 1
        running.append(start())
    took = time.monotonic() - begun
    for each in running:
        finish(each)
    return count / took


def ask(scene: Scene, *words: str) -> socket.socket:
    """Ask the broker as its clients do."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(f"{scene.desk.state}.sock")
    asked = ("1", "run", str(scene.desk.store), str(scene.desk.state), *words, scene.reference)
    with Path(os.devnull).open("r+b") as null:
        wire.send(connection, b"".join(os.fsencode(word) + b"\0" for word in asked), [null.fileno()] * 3)
    return connection


def answered(connection: object) -> None:
    """Wait until it is over, well."""
    if not isinstance(connection, socket.socket):
        raise TypeError
    with connection:
        while (answer := connection.recv(65536))[:1] != b"x":
            if not answer:
                raise SystemExit("start: the broker does not answer")
        if answer != b"x0":
            raise SystemExit(f"start: the broker answers {answer!r}")


def to_exec(scene: Scene, rounds: int) -> float:
    """Milliseconds from asking until the caller knows that the program was executed (a detached start), idle."""
    took = []
    for number in range(rounds):
        time.sleep(IDLE)
        begun = time.perf_counter()
        answered(ask(scene, "--detach", "--name", f"exec-{number}"))
        took.append((time.perf_counter() - begun) * 1000)
        scene.desk.fine("rm", "--force", f"exec-{number}")
    return statistics.median(took)


def memory(pid: int, name: str) -> float:
    """MiB of one figure of /proc/PID/smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def below(pid: int) -> list[int]:
    """All processes below one."""
    children = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [each for child in children for each in below(child)]


def report(found: Sequence[Contender], figures: Mapping[str, str]) -> str:
    """The tables."""
    first = found[0]
    lines = [
        "| | hot, ms | p90 | of ours | after 100 ms idle | of ours | CPU, ms |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in found:
        hot, idle = statistics.median(each.hot), statistics.median(each.idle)
        tail = statistics.quantiles(each.hot, n=10)[-1]
        ratios = (hot / statistics.median(first.hot), idle / statistics.median(first.idle))
        cells = (f"{hot:.1f}", f"{tail:.1f}", f"{ratios[0]:.2f}", f"{idle:.1f}", f"{ratios[1]:.2f}")
        lines.append(f"| {each.name} | {' | '.join(cells)} | {each.cpu / len(each.idle):.1f} |")
    lines += [
        "",
        "| | measured | wanted |",
        "| --- | --- | --- |",
        *(f"| {name} | {text} |" for name, text in figures.items()),
    ]
    return "\n".join(lines) + "\n"


def figures(scene: Scene, pid: int, rounds: int) -> dict[str, str]:
    """What is wanted of the broker besides."""
    client = str(scene.folder / "client")
    command = [client, "run", scene.reference]

    def begin() -> object:
        return subprocess.Popen(command, env=scene.environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)

    def wait(process: object) -> None:
        if not isinstance(process, subprocess.Popen) or process.wait() != 0:
            raise SystemExit("start: a command failed")

    by_command = rate(begin, wait)
    by_socket = rate(lambda: ask(scene), answered)
    executed = to_exec(scene, rounds)
    others = [each for each in below(pid) if Path(f"/proc/{each}/comm").read_text().startswith("pratique-")]
    whole = memory(pid, "Pss:") + sum(memory(each, "Pss:") for each in others)
    return {
        "starts a second by the command, 4 at once": f"{by_command:.0f} | 60",
        "starts a second by the socket, 4 at once": f"{by_socket:.0f} | 100",
        "request to exec, as its caller sees it, ms": f"{executed:.1f} | 2",
        "memory of the broker, MiB (proportional set)": f"{memory(pid, 'Pss:'):.1f} | 40",
        "with its nursery and the slots that wait": f"{whole:.1f} |",
        "private memory of a container's supervisor, MiB": f"{supervisor(scene):.2f} | 2",
    }


def supervisor(scene: Scene) -> float:
    """Private memory of the supervisor of a container that runs, in MiB."""
    command = [str(scene.folder / "client"), "run", "--interactive", "--name", "waits", scene.reference]
    with subprocess.Popen(command, env=scene.environment, stdin=subprocess.PIPE) as process:
        state = scene.desk.state / "containers" / "waits" / "state"
        while not state.exists() or json.loads(state.read_text())["status"] != "running":
            time.sleep(0.05)
        time.sleep(1)
        found = memory(json.loads(state.read_text())["supervisor"], "Private_")
        process.communicate()
    return found


def main() -> None:
    """Measure, and print or write the tables."""
    parser = argparse.ArgumentParser(prog="start", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--docs", action="store_true", help="write docs/start-speed.md")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="pratique-bench-", dir="/var/tmp"))
    os.environ["PODMAN_IGNORE_CGROUPSV1_WARNING"] = "1"
    try:
        with scene(folder) as made, broker(made) as pid:
            found = contenders(made)
            measure(found, made, arguments.rounds)
            table = report(found, figures(made, pid, arguments.rounds))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(table)
    if arguments.docs:
        DOCS.write_text(f"{HEAD}{table}")


HEAD: Final = """# How long a start takes

Written by `python -m benchmarks.start --docs`: medians of one run on one machine, every command in turn. All start the
same program of the same image without a network; crun and runc start a bare bundle and check nothing. CPU is the whole
machine's. How a start goes: [runtime.md](runtime.md#the-broker).

"""


if __name__ == "__main__":
    main()
