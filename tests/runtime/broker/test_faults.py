"""Whatever is killed, and whatever fails at whatever step: nothing is left, and the next start works.

Each test ends with the independent look of the desk.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from runtime.linux.cgroups import Hierarchies
from runtime.model import ContainerId, Process, Root, StartRequest
from runtime.plan import HostFacts, plan
from tests.runtime.broker.desk import Desk, stocked
from tests.support.trust import revocation_list

pytestmark = pytest.mark.root

LOOP = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done"
FACTS = HostFacts(hierarchies=Hierarchies(), last_capability=40, scaffold_point="/p", root_point="/r", files_point="/f")
_REQUEST = StartRequest(name=ContainerId("x"), root=Root(index_fd=0), process=Process(argv=("x",)))
_PLAN = plan(_REQUEST, FACTS, b"")
STEPS = _PLAN.describe()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # another one's end was its too
        os.kill(pid, signal.SIGKILL)


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _nursery(desk: Desk) -> int:
    assert desk.broker is not None
    found = [pid for pid in _children(desk.broker.pid) if _comm(pid) == "pratique-nurse"]
    return found[0] if found else 0


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except FileNotFoundError:
        return ""


def _running(desk: Desk, name: str) -> bool:
    found = desk.containers().get(name)
    return found is not None and found.status == "running"


@contextmanager
def _foreground(desk: Desk, name: str = "fore") -> Iterator[object]:
    with desk.popen("sh", "-c", LOOP, options=("--name", name)) as process:
        desk.until(lambda: _running(desk, name))
        yield process


def _detached(desk: Desk, name: str = "back") -> None:
    assert desk.run("sh", "-c", LOOP, options=("--detach", "--name", name)).code == 0


# The broker


def test_containers_outlive_a_broker_that_is_killed_and_the_next_one_finds_them(desk: Desk) -> None:
    _detached(desk)
    with desk.popen("sh", "-c", LOOP, options=("--name", "fore")) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        parked = desk.slots() - 2
        assert parked >= 1
        desk.kill()
        desk.until(lambda: desk.slots() == 2)  # those that waited have ended
        assert {name for name in desk.containers() if _running(desk, name)} == {"back", "fore"}
        desk.start()
        assert desk.sh("echo new").out == "new\n"
        process.terminate()
        assert process.wait(10) == 3, "its caller is told by its slot"
    found = desk.containers()["back"]
    os.kill(found.pid, signal.SIGTERM)
    desk.until(lambda: desk.containers()["back"].exit_code == 3)


def test_an_upgrade_stops_no_container(desk: Desk) -> None:
    _detached(desk)
    with desk.popen("sh", "-c", LOOP, options=("--name", "fore")) as process:
        assert process.stdout is not None
        process.stdout.readline()
        desk.stop()
        desk.start()
        assert _running(desk, "back")
        process.terminate()
        assert process.wait(10) == 3
    os.kill(desk.containers()["back"].pid, signal.SIGKILL)
    desk.until(lambda: desk.containers()["back"].status == "exited")


def test_without_a_broker_the_command_starts_by_itself(idle: Desk) -> None:
    result = idle.run("true")
    # By the clock of the machine, which these tests are behind: what matters is who answered.
    assert result.code == 125
    assert result.err.startswith("refused: ")
    idle.start()
    assert idle.run("true").code == 0
    idle.kill()
    assert idle.run("true").err.startswith("refused: "), "a dead broker's socket leads nowhere"


def test_a_second_broker_is_refused_and_a_dead_ones_socket_is_taken(desk: Desk) -> None:
    first = desk.broker
    with pytest.raises(AssertionError, match="a broker listens there already"):
        desk.start(within=2)
    second, desk.broker = desk.broker, first
    assert second is not None
    assert second.wait(10) != 0
    desk.kill()
    desk.start()
    assert desk.run("true").code == 0


# Slots, first processes, the nursery


def test_a_slot_that_is_killed_takes_its_container_along(desk: Desk) -> None:
    with desk.popen("sh", "-c", LOOP, options=("--name", "fore")) as process:
        desk.until(lambda: _running(desk, "fore"))
        _kill(desk.containers()["fore"].supervisor)
        assert process.wait(10) == 125
        assert process.stderr is not None
        assert b"the connection was lost" in process.stderr.read()
    desk.until(lambda: desk.containers() == {})
    assert desk.sh("echo again").out == "again\n"


def test_a_slot_that_is_killed_leaves_the_record_of_what_was_to_be_kept(desk: Desk) -> None:
    _detached(desk)
    _kill(desk.containers()["back"].supervisor)
    desk.until(lambda: desk.containers()["back"].status == "exited")
    reason = desk.containers()["back"].reason
    assert reason is not None
    assert reason.code == "supervisor-died"


def test_slots_and_first_processes_that_wait_are_replaced_when_they_are_killed(desk: Desk) -> None:
    for deep in (False, True):
        for slot in _children(_nursery(desk)):
            for pid in _children(slot) if deep else [slot]:
                _kill(pid)
        again = desk.sh("echo again")
        assert again.out == "again\n" or (deep and "was killed before it could execute anything" in again.err), again
        desk.until(lambda: desk.slots() >= 2)
        assert desk.sh("echo again").out == "again\n"


def test_a_nursery_that_is_killed_is_replaced(desk: Desk) -> None:
    before = _nursery(desk)
    _kill(before)
    desk.until(lambda: _nursery(desk) not in {0, before})
    assert [desk.run("true").code for _ in range(4)] == [0] * 4


def test_everything_at_once(desk: Desk) -> None:
    _detached(desk)
    assert desk.broker is not None
    slot = desk.containers()["back"].supervisor
    for pid in (slot, _nursery(desk), *_children(_nursery(desk)), desk.broker.pid):
        _kill(pid)
    desk.broker.wait(10)
    desk.broker = None
    assert desk.containers()["back"].status == "exited", "the next command clears up"
    desk.until(lambda: desk.slots() == 0 or desk.containers() is None)
    desk.start()
    assert desk.sh("echo again").out == "again\n"


@pytest.mark.parametrize("seed", range(6))
def test_kill_9_of_the_broker_at_any_time(idle: Desk, seed: int) -> None:
    idle.parked = 1 + seed % 3
    idle.start()
    running = [idle.popen("sh", "-c", "exit 0", options=("--name", f"box-{number}")) for number in range(4)]
    time.sleep(0.02 * seed)
    idle.kill()
    for process in running:
        with process:
            process.communicate(timeout=30)
            assert process.returncode in {0, 125}
    idle.until(lambda: idle.containers() == {} and idle.slots() == 0)
    idle.start()
    assert idle.sh("echo again").out == "again\n"


# Steps


FAULT = """
import dataclasses, runtime.broker.starting as starting
from runtime.ops import Names
original = starting.plan
def planted(request, facts, seccomp):
    made = original(request, facts, seccomp)
    if request.name.value != "bad":
        return made
    operations = made.operations[:{step}] + (Names("x" * 65),) + made.operations[{step}:]
    return dataclasses.replace(made, operations=operations)
starting.plan = planted
"""
"""Before this step one that the kernel refuses: the name of a host has 64 characters."""


@pytest.mark.parametrize("step", range(_PLAN.prepared, len(STEPS)), ids=lambda step: STEPS[step].replace(" ", "-"))
def test_a_fault_at_each_step_after_the_order(idle: Desk, step: int) -> None:
    idle.fault = FAULT.format(step=step)
    idle.start()
    failed = idle.run("true", options=("--name", "bad"))
    assert failed.code == 125
    assert failed.err.startswith(f"pratique: set the host name {'x' * 65}: "), failed
    assert idle.containers() == {}
    assert idle.sh("echo again").out == "again\n"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("who", ["slot", "first", "caller"])
def test_kill_9_at_any_time_of_a_start(desk: Desk, seed: int, who: str) -> None:
    slots = _children(_nursery(desk))
    firsts = [first for slot in slots for first in _children(slot)]
    with desk.popen("true", options=("--name", "bad")) as process:
        desk.until(lambda: not Path(f"/proc/{process.pid}/comm").exists() or _asks(process.pid), 5)
        time.sleep(seed * 0.002)
        for pid in {"slot": slots, "first": firsts, "caller": [process.pid]}[who]:
            _kill(pid)
        process.communicate(timeout=20)
    desk.until(lambda: desk.containers() == {})
    assert desk.sh("echo again").out == "again\n"


def _asks(pid: int) -> bool:
    """True once the command has connected to the broker."""
    try:
        links = [link.readlink() for link in Path(f"/proc/{pid}/fd").iterdir()]
    except FileNotFoundError:
        return True
    return any(str(link).startswith("socket:") for link in links)


def test_first_processes_that_cannot_be_parked_are_said_and_tried_again(idle: Desk) -> None:
    idle.fault = """
import dataclasses, runtime.broker.server as server
original = server.host_facts
server.host_facts = lambda store: dataclasses.replace(original(store), scaffold_point="/nowhere")
"""
    words = idle.command("true")
    with pytest.raises(AssertionError):
        idle.start(within=2)
    assert "No such file or directory" in idle.log
    asked = idle.run(*words[words.index(str(idle.stock.app.reference)) + 1 :])
    assert asked.code == 125
    assert "no first process was ready" in asked.err
    assert "/nowhere" in asked.err


# What runs is watched


def test_a_revocation_stops_what_runs_also_what_a_former_broker_started(tmp_path: Path) -> None:
    with stocked(tmp_path / "stock") as stock, Desk(tmp_path, stock) as desk:
        desk.start()
        _detached(desk, "first")
        desk.kill()
        desk.start()
        _detached(desk, "second")
        with desk.popen("sh", "-c", LOOP, options=("--name", "third")) as process:
            desk.until(lambda: _running(desk, "third"))
            stock.registry.revoke(revocation_list(8, digests=(stock.app.built.digest,)))
            assert stock.host.sync(stock.registry.now).fine
            assert process.wait(5) == 137
            assert process.stderr is not None
            assert process.stderr.read().startswith(b"stopped: revoked-digest: ")
        desk.until(lambda: all(found.status == "exited" for found in desk.containers().values()))
        reasons = {name: found.reason.code for name, found in desk.containers().items() if found.reason is not None}
        assert reasons == {"first": "revoked-digest", "second": "revoked-digest"}
        again = desk.run("true")
        assert again.err.splitlines()[0] == "refused: revoked-digest"


def test_what_runs_out_is_told_to_stop_first(tmp_path: Path) -> None:
    with stocked(tmp_path / "stock") as stock, Desk(tmp_path, stock) as desk:
        desk.start()
        with desk.popen("sh", "-c", LOOP, options=("--name", "box")) as process:
            desk.until(lambda: _running(desk, "box"))
            desk.set_clock(stock.registry.now + timedelta(days=30))
            out, err = process.communicate(timeout=10)
        assert process.returncode == 3
        assert out == b"ready\nbye\n"
        assert err.startswith(b"stopped: ")


def test_what_nobody_knows_the_origin_of_is_stopped(desk: Desk) -> None:
    _detached(desk)
    desk.kill()
    (desk.state / "containers" / "back" / "watched").write_text("{}")
    desk.start()
    desk.until(lambda: desk.containers()["back"].status == "exited")
    reason = desk.containers()["back"].reason
    assert reason is not None
    assert reason.code == "unknown"


def test_proofs_are_warm_and_what_changes_is_seen_at_once(tmp_path: Path) -> None:
    with stocked(tmp_path / "stock") as stock, Desk(tmp_path, stock) as desk:
        desk.start()
        assert [desk.run("true").code for _ in range(3)] == [0] * 3
        layer = stock.host.store.layer(stock.app.built.diff_ids[1])
        layer.chmod(0o666)
        assert desk.run("true").err.splitlines()[0] == "refused: layer-unusable"
        layer.chmod(0o444)
        assert desk.run("true").code == 0
        content = layer.read_bytes()
        with layer.open("r+b") as file:
            file.write(b"!")
        assert desk.run("true").err.splitlines()[0] == "refused: layer-changed"
        with layer.open("r+b") as file:
            file.write(content[:1])
        assert desk.run("true").code == 0
        desk.set_clock(stock.registry.now - timedelta(hours=2))
        assert desk.run("true").err.splitlines()[0] == "refused: clock-set-back"
        desk.set_clock(stock.registry.now + timedelta(days=8))
        assert desk.run("true").err.startswith("refused: ")
