"""Nothing is left when the launcher, the supervisor, the guard or all of them are killed, at whatever step.

The box looks from outside at the end of each test: mounts, cgroups, namespaces, processes, descriptors.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runtime import container
from runtime.linux.cgroups import Hierarchies
from runtime.model import ContainerId, Process, Root, StartRequest
from runtime.plan import HostFacts, plan
from tests.runtime.boxes import Box
from tests.runtime.starter import Image
from tests.runtime.test_container import LOOP, cleared, detach, look, until

pytestmark = pytest.mark.root

_ = cleared  # an autouse fixture, used here as well
REQUEST = StartRequest(name=ContainerId("x"), root=Root(index_fd=0), process=Process(argv=("x",)))
FACTS = HostFacts(hierarchies=Hierarchies(), last_capability=40, scaffold_point="/p", root_point="/r", files_point="/f")
STEPS = plan(REQUEST, FACTS, b"").describe()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def running_first_process(box: Box) -> int:
    until(lambda: (box.state / "containers/box/state").exists() and look(box).status == "running")
    return look(box).pid


def gone(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    return stat.rpartition(")")[2].split()[0] == "Z"


def guard_of(supervisor: int, first: int) -> int:
    children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
    return next(int(pid) for pid in children if int(pid) != first)


def test_kill_9_of_a_foreground_launcher(box: Box) -> None:
    with box.start(box.request("sh", "-c", LOOP)) as process:
        first = running_first_process(box)
        process.kill()
    until(lambda: gone(first))
    assert box.left() == []
    assert container.list_containers(box.state) == ()
    assert box.sh("echo again").out == "again\n"


def test_kill_9_of_a_supervisor(box: Box) -> None:
    detach(box, "sh", "-c", LOOP)
    running = look(box)
    kill(running.supervisor)
    until(lambda: gone(running.pid))
    assert box.left() == []
    ended = look(box)
    assert (ended.status, ended.exit_code) == ("exited", 137)
    assert ended.reason is not None
    assert ended.reason.code == "supervisor-died"


def test_kill_9_of_a_guard_and_then_of_its_supervisor(box: Box) -> None:
    """A supervisor replaces its guard."""
    detach(box, "sh", "-c", LOOP)
    running = look(box)
    first_guard = guard_of(running.supervisor, running.pid)
    kill(first_guard)
    until(lambda: str(first_guard) not in children(running.supervisor) and len(children(running.supervisor)) == 2)
    kill(running.supervisor)
    until(lambda: gone(running.pid))
    assert box.left() == []


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_kill_9_of_both_and_the_next_command_clears_up(box: Box) -> None:
    detach(box, "sh", "-c", f"setsid sleep 1000 & {LOOP}")
    running = look(box)
    for pid in (guard_of(running.supervisor, running.pid), running.supervisor):
        kill(pid)
    until(lambda: gone(running.pid))  # its parent-death signal
    assert running.group.exists()
    assert look(box).reason is not None
    assert not running.group.exists()
    assert look(box).status == "exited"


def test_kill_9_of_the_containers_first_process(box: Box) -> None:
    detach(box, "sh", "-c", LOOP)
    kill(look(box).pid)
    until(lambda: look(box).status == "exited")
    assert (look(box).exit_code, look(box).reason) == (137, None)


INJECT = """
import dataclasses, time, runtime.launch
original = runtime.launch.plan
@dataclasses.dataclass(frozen=True)
class Fault:
    def describe(self): return "a planted fault"
    def execute(self, kernel, stage):
        {action}
def planted(*arguments):
    made = original(*arguments)
    return dataclasses.replace(made, operations=made.operations[:{step}] + (Fault(),) + made.operations[{step}:])
runtime.launch.plan = planted
"""


def start_with_fault(box: Box, step: int, action: str, image: Image | None = None) -> subprocess.Popen[bytes]:
    command = box.command(box.request("true", root={"writable": step % 2 == 1}), image)
    imports, call = command[2].split("; ", 1)
    source = f"{imports}\n{INJECT.format(step=step, action=action)}\n{call}"
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [command[0], "-c", source], cwd=Path(__file__).parent.parent.parent, stdout=pipe, stderr=pipe
    )


@pytest.mark.parametrize("step", range(len(STEPS)), ids=[text.split(",")[0].replace(" ", "-") for text in STEPS])
def test_a_fault_at_each_step(box: Box, step: int) -> None:
    with start_with_fault(box, step, "raise OSError(5, 'planted')") as process:
        _, error = process.communicate(timeout=20)
    assert process.returncode == 125
    assert error == b"StepError: a planted fault: planted\n"
    assert container.list_containers(box.state) == ()


@pytest.mark.parametrize("step", range(0, len(STEPS), 2))
def test_kill_9_of_the_launcher_at_steps(box: Box, step: int) -> None:
    with start_with_fault(box, step, "time.sleep(1000)") as process:
        until(lambda: any(sleeps(pid) for pid in children(process.pid)))
        process.kill()
    assert box.left() == []
    assert container.list_containers(box.state) == ()


def sleeps(pid: str) -> bool:
    try:
        return "nanosleep" in Path(f"/proc/{pid}/wchan").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("seed", range(12))
def test_kill_9_of_the_launcher_at_any_time(box: Box, seed: int) -> None:
    chance = random.Random(seed)
    with box.start(box.request("sleep", "1000", root={"writable": chance.random() < 0.5})) as process:
        until((box.state / "lock").exists)
        time.sleep(chance.random() * 0.03)
        process.kill()
    assert [line for line in box.left(2) if not line.startswith("cgroup")] == []
    assert container.list_containers(box.state) == ()


def test_a_dead_container_of_the_same_name_is_no_obstacle(box: Box) -> None:
    detach(box, "sh", "-c", LOOP, keep=False)
    running = look(box)
    for pid in (guard_of(running.supervisor, running.pid), running.supervisor):
        kill(pid)
    assert box.sh("echo again").out == "again\n"


def test_a_cgroup_that_is_in_use_is_not_taken(box: Box) -> None:
    """Another state folder with the same parent: its containers are not ours to kill."""
    detach(box, "sh", "-c", LOOP)
    other = Box(box.folder / "other", box.image, box.cgroup_parent)
    other.folder.mkdir()
    result = other.sh("true")
    assert result.code == 125
    assert "HostError: cgroup" in result.err
    assert "it is in use" in result.err
    assert look(box).status == "running"


def test_a_state_folder_of_somebody_else_is_refused(box: Box) -> None:
    for mode, owner in ((0o755, 0), (0o700, 1000)):
        box.state.mkdir(exist_ok=True)
        box.state.chmod(mode)
        os.chown(box.state, owner, 0)
        result = box.sh("true")
        assert result.code == 125
        assert result.err.startswith(f"StateError: state folder {box.state}: got mode")
    shutil.rmtree(box.state)
    (box.folder / "elsewhere").mkdir(mode=0o700)
    box.state.symlink_to(box.folder / "elsewhere")
    assert "StateError" in box.sh("true").err
    box.state.unlink()
