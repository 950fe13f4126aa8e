"""Detached containers: listed, stopped, read, removed; and what several commands at once do."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtime import container
from runtime.errors import NoSuchContainerError, StateError
from runtime.model import ContainerId, LogLimits, Shown, StopReason
from runtime.record import Container
from tests.runtime.boxes import Box, Result

pytestmark = pytest.mark.root

NAME = ContainerId("box")
LOOP = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done"


def detach(box: Box, *argv: str, watch: str = "None", name: str = "box", **members: Any) -> Result:
    """Start it detached, and return when its program runs."""
    request = box.request(*argv, name=name, **{"keep": True, **members})
    command = box.command(request, detach="True", watch=watch, watch_interval="0.1")
    done = subprocess.run(
        command, capture_output=True, timeout=30, check=False, cwd=Path(__file__).parent.parent.parent
    )
    return Result(done.returncode, done.stdout.decode(), done.stderr.decode())


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Wait for something that another process brings about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


def look(box: Box, name: ContainerId = NAME) -> Container:
    return container.inspect(name, box.state)


def text(box: Box) -> str:
    return "".join(line.text for line in container.logs(NAME, state_dir=box.state))


def test_a_detached_container_from_start_to_removal(box: Box) -> None:
    shown = Shown(image="registry.test/app:1", digest="sha256:" + "a" * 64, level="application", notes=("override",))
    members: dict[str, Any] = {"shown": shown, "hostname": "web", "memory": 64 * 1024 * 1024, "pids": 50, "cpu": 50_000}
    assert detach(box, "sh", "-c", LOOP, **members) == (0, "", "")
    until(lambda: text(box) == "ready\n")
    running = look(box)
    assert running.status == "running"
    assert running.detached
    assert running.exit_code is None
    assert (running.shown, running.hostname, running.network) == (shown, "web", "none")
    assert (running.memory, running.pids, running.cpu) == (64 * 1024 * 1024, 50, 50_000)
    assert running.argv == ("sh", "-c", LOOP)
    assert running.created <= running.started
    assert Path(f"/proc/{running.pid}/exe").samefile(f"/proc/{running.pid}/root/bin/busybox")
    assert container.list_containers(box.state) == (running,)
    with pytest.raises(StateError, match="it is running, expected one that has ended"):
        container.remove(NAME, state_dir=box.state)

    stopped = container.stop(NAME, state_dir=box.state)
    assert stopped is not None
    assert (stopped.status, stopped.exit_code, stopped.pid) == ("exited", 3, 0)
    assert stopped.reason == StopReason(code="stopped", message="stopped by command")
    assert stopped.finished >= stopped.started
    assert text(box) == "ready\nbye\n"
    assert container.stop(NAME, state_dir=box.state) == stopped

    container.remove(NAME, state_dir=box.state)
    assert container.list_containers(box.state) == ()
    for call in (container.inspect, container.stop, container.logs, container.remove):
        with pytest.raises(NoSuchContainerError, match="container box: there is none of this name"):
            call(NAME, state_dir=box.state)


def test_a_start_that_fails_is_told_to_the_caller_and_leaves_nothing(box: Box) -> None:
    result = detach(box, "nothing")
    assert (result.code, result.err) == (127, "NotFoundError: execute nothing: no such file in PATH: nothing\n")
    assert container.list_containers(box.state) == ()


def test_a_container_that_is_not_kept_leaves_nothing(box: Box) -> None:
    detach(box, "sh", "-c", LOOP, keep=False)
    assert look(box).status == "running"
    assert container.stop(NAME, state_dir=box.state) is None
    assert container.list_containers(box.state) == ()
    assert list((box.state / "containers").iterdir()) == []


def test_a_container_that_ends_by_itself(box: Box) -> None:
    detach(box, "sh", "-c", "echo out; echo err >&2; exit 7")
    until(lambda: look(box).status == "exited")
    ended = look(box)
    assert (ended.exit_code, ended.reason) == (7, None)
    lines = {(line.stream, line.text) for line in container.logs(NAME, state_dir=box.state)}
    assert lines == {("stdout", "out\n"), ("stderr", "err\n")}


def test_a_container_that_does_not_stop_is_killed_after_its_grace(box: Box) -> None:
    detach(box, "sleep", "1000")
    stopped = container.stop(NAME, 0.1, state_dir=box.state)
    assert stopped is not None
    assert stopped.exit_code == 137


def test_the_images_stop_signal(box: Box) -> None:
    detach(box, "sh", "-c", "trap 'exit 8' USR1; while :; do sleep 0.02; done", stop_signal=10)
    stopped = container.stop(NAME, 5, state_dir=box.state)
    assert stopped is not None
    assert stopped.exit_code == 8


def test_a_frozen_container_is_stopped(box: Box) -> None:
    """A frozen task of cgroup v1 ignores SIGKILL until it is thawed."""
    detach(box, "sleep", "1000")
    group = look(box).group
    freezers = [folder / "freezer.state" for folder in group.v1_folders if (folder / "freezer.state").exists()]
    for file in freezers:
        file.write_text("FROZEN")
    if not freezers and group.v2_folder is not None:
        (group.v2_folder / "cgroup.freeze").write_text("1")
    stopped = container.stop(NAME, 0.1, state_dir=box.state)
    assert stopped is not None
    assert stopped.exit_code == 137


def test_a_revocation_stops_a_detached_container_and_ps_says_why(box: Box) -> None:
    flag = box.folder / "revoked"
    watch = f"lambda: StopReason(code='revoked', message='base is on the list') if {flag!r}.exists() else None"
    detach(box, "sh", "-c", LOOP, watch=watch)
    time.sleep(0.3)
    assert look(box).status == "running"
    flag.touch()
    until(lambda: look(box).status == "exited")
    assert look(box).reason == StopReason(code="revoked", message="base is on the list")
    assert look(box).exit_code == 3


def test_a_watch_that_breaks_stops_the_container(box: Box) -> None:
    """Crashed is not allowed, with its own reason."""
    detach(box, "sleep", "1000", watch="lambda: 1 // 0", stop_grace=0.1)
    until(lambda: look(box).status == "exited")
    assert look(box).reason == StopReason(
        code="watch-failed", message="ZeroDivisionError: integer division or modulo by zero"
    )


def test_a_supervisor_that_breaks_takes_the_container_with_it(box: Box) -> None:
    detach(box, "sleep", "1000", watch="lambda: sys.exit(3)")
    until(lambda: look(box).status == "exited")
    assert look(box).reason == StopReason(code="supervisor-failed", message="SystemExit: 3")
    with box.start(box.request("sleep", "1000", name="front"), watch="lambda: sys.exit(3)") as process:
        assert process.wait(10) == 3
    assert [str(item.name) for item in container.list_containers(box.state)] == ["box"]


def test_following_a_log_until_the_container_ends(box: Box) -> None:
    detach(box, "sh", "-c", "for i in 1 2 3 4 5; do echo $i; sleep 0.1; done")
    assert [line.text for line in container.logs(NAME, follow=True, state_dir=box.state)] == [
        f"{n}\n" for n in range(1, 6)
    ]


def test_a_log_is_bounded_and_a_follower_sees_all_of_it(box: Box) -> None:
    limits = LogLimits(max_bytes=100_000, files=3)
    detach(box, "sh", "-c", "sleep 0.3; seq 1 3000; sleep 0.3", log=limits)
    followed: list[str] = []
    follower = threading.Thread(
        target=lambda: followed.extend(line.text for line in container.logs(NAME, follow=True, state_dir=box.state))
    )
    follower.start()
    until(lambda: look(box).status == "exited")
    follower.join(10)
    files = list((box.state / "containers/box").glob("log*"))
    assert sorted(file.name for file in files) == ["log", "log.1", "log.2"]
    assert all(file.stat().st_size <= 100_000 for file in files)
    kept = [line.text for line in container.logs(NAME, state_dir=box.state)]
    assert kept[-1] == "3000\n"
    assert kept == [f"{n}\n" for n in range(3001 - len(kept), 3001)]


def test_of_many_starts_of_one_name_one_wins(box: Box) -> None:
    request = box.request("sleep", "1000", keep=True)
    processes = [box.start(request, detach="True") for _ in range(6)]
    results = [process.communicate(timeout=60)[1].decode() for process in processes]
    codes = sorted(process.returncode for process in processes)
    assert codes == [0, 125, 125, 125, 125, 125]
    assert sum("the name is taken" in error for error in results) == 5
    container.remove(NAME, force=True, state_dir=box.state)


def test_several_stops_at_once(box: Box) -> None:
    detach(box, "sh", "-c", LOOP)
    found: list[Container | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(container.stop(NAME, state_dir=box.state))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert [item.exit_code for item in found if item is not None] == [3, 3, 3, 3]


def test_many_containers_side_by_side(box: Box) -> None:
    names = [f"box-{number}" for number in range(5)]
    for name in names:
        assert detach(box, "sh", "-c", LOOP, name=name).code == 0
    assert [str(item.name) for item in container.list_containers(box.state)] == names
    for name in names:
        container.remove(ContainerId(name), force=True, state_dir=box.state)


def test_the_supervisor_is_small_and_holds_nothing_of_its_caller(box: Box) -> None:
    detach(box, "sleep", "1000")
    supervisor = look(box).supervisor
    targets = [str(path.readlink()) for path in Path(f"/proc/{supervisor}/fd").iterdir()]
    allowed = ("/dev/null", "pipe:", "anon_inode:[pidfd]", str(box.state / "containers/box/"))
    assert [target for target in targets if not target.startswith(allowed)] == []
    assert str(Path(f"/proc/{supervisor}/cwd").readlink()) == "/"
    container.remove(NAME, force=True, state_dir=box.state)


@pytest.fixture(autouse=True)
def cleared(box: Box) -> object:
    """Nothing runs on after a test that failed."""
    yield
    for item in container.list_containers(box.state):
        container.remove(item.name, force=True, state_dir=box.state)
