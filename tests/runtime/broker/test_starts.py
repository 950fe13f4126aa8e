"""A start by the broker is what a start without it is: output, input, exit codes, signals, refusals, limits."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.runtime.boxes import REPOSITORY, Result
from tests.runtime.broker.desk import Desk
from tests.support.tools import need

pytestmark = pytest.mark.root

LOOP = "trap 'echo bye; exit 3' TERM; echo ready; while :; do sleep 0.02; done"


def test_output_errors_and_exit_codes_are_the_programs(desk: Desk) -> None:
    assert desk.sh("echo out; echo err >&2; exit 7") == Result(7, "out\n", "err\n")
    assert desk.run("true") == Result(0, "", "")


def test_it_is_a_slot_of_the_brokers_that_starts_it(desk: Desk) -> None:
    seen = desk.sh("cat /proc/self/cgroup").out.splitlines()
    assert all(line.endswith(":/") for line in seen if "memory" in line or line.startswith("0:")), seen
    before = desk.slots()
    assert before >= 1
    with desk.popen("sleep", "100", options=("--name", "box")) as process:
        desk.until(lambda: "box" in desk.containers())
        found = desk.containers()["box"]
        assert found.cgroup.startswith("_")
        assert Path(f"/proc/{found.supervisor}/comm").read_text() == "pratique-slot\n"
        process.kill()


def test_standard_input_is_passed_on_to_its_end(desk: Desk) -> None:
    text = os.urandom(300_000).hex().encode()
    result = desk.run("sha256sum", options=("--interactive",), send=text)
    assert (
        result.out.split()[0]
        == subprocess.run(["sha256sum"], input=text, capture_output=True, check=True).stdout.decode().split()[0]
    )
    assert desk.run("cat", send=b"not asked for") == Result(0, "", "")


def test_much_output_comes_whole(desk: Desk) -> None:
    assert len(desk.sh("head -c 3000000 /dev/zero").out) == 3_000_000


def test_signals_are_passed_on(desk: Desk) -> None:
    for number, script, code in (
        (signal.SIGTERM, LOOP, 3),
        (signal.SIGUSR1, "trap 'exit 5' USR1; echo ready; while :; do sleep 0.02; done", 5),
        (signal.SIGINT, "trap 'exit 6' INT; echo ready; while :; do sleep 0.02; done", 6),
    ):
        with desk.popen("sh", "-c", script) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(number)
            assert process.wait(10) == code


def test_impatience_kills(desk: Desk) -> None:
    with desk.popen("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.02; done") as process:
        assert process.stdout is not None
        process.stdout.readline()
        for _ in range(3):
            process.terminate()
            time.sleep(0.1)  # of two that come at once, one is passed on
        assert process.wait(10) == 137


def test_a_program_that_is_not_there_or_cannot_be_executed(desk: Desk) -> None:
    assert desk.run("nothing-of-this-name", options=("--entrypoint", "/bin/none")).code == 127
    result = desk.run(options=("--entrypoint", "/srv/name"))
    assert result.code == 126
    assert "not an executable file" in result.err
    assert desk.sh("echo again").out == "again\n", "the slots are as good as before"


def test_a_refusal_is_the_one_without_a_broker(desk: Desk) -> None:
    options = ("--memory", "100g")
    asked = desk.run("true", options=options)
    assert asked.code == 125
    assert asked.err.splitlines()[0] == "refused: memory-over-cap"
    assert asked.err.splitlines()[1:] == [
        "  object: memory",
        "  reason: memory: 107374182400 bytes were asked for; the cap is 1073741824 bytes",
    ]
    assert desk.sh("echo fine").out == "fine\n"


def test_wrong_words_are_wrong_usage(desk: Desk) -> None:
    assert desk.run("true", options=("--memory", "much")).code == 2
    assert desk.run("true", options=("--no-such-option",)).code == 2
    bad = desk.run("true", options=("--name", "../x"))
    assert bad.code == 125
    assert "container name '../x'" in bad.err


def test_limits_hostname_and_environment(desk: Desk) -> None:
    options = ("--memory", "32m", "--pids-limit", "9", "--hostname", "web-1", "--name", "box")
    v1 = "cat memory/memory.limit_in_bytes pids/pids.max 2>/dev/null"
    script = f"cd /sys/fs/cgroup; {v1} || cat memory.max pids.max; hostname; id -u"
    assert desk.sh(script, options=options).out.split() == ["33554432", "9", "web-1", "1000"]


def test_a_writable_root_a_tmpfs_and_a_reaper(desk: Desk) -> None:
    if shutil.which("catatonit") is None:
        need("tini-static")
    options = ("--writable", "--tmpfs", "/run:1m", "--init")
    result = desk.sh(
        "echo x >/tmp/x && cat /tmp/x && df -k /run | tail -1 | grep -c 1024; cat /proc/1/comm", options=options
    )
    assert result.out.split()[:2] == ["x", "1"]
    assert result.out.split()[2] == "memfd:reaper"


def test_the_hosts_network_is_given_where_it_is_asked_for(desk: Desk) -> None:
    own = Path("/proc/self/ns/net").readlink()
    for options, same in (((), False), (("--network", "host"), True)):
        found = desk.run("readlink", "/proc/self/ns/net", options=options)
        assert found.code == 0, found
        assert (found.out.strip() == str(own)) is same


def test_detached_with_a_log_and_stopped(desk: Desk) -> None:
    assert desk.run("sh", "-c", LOOP, options=("--detach", "--name", "box")) == Result(0, "box\n", "")
    found = desk.containers()["box"]
    assert (found.status, found.detached, found.shown.level) == ("running", True, "application")
    taken = desk.run("true", options=("--name", "box"))
    assert (taken.code, taken.err) == (125, "pratique: container box: the name is taken\n")
    command = [
        need("env"),
        *(f"{name}={value}" for name, value in desk.environment.items() if name.startswith("PRATIQUE")),
    ]

    def pratique(*words: str) -> str:
        done = subprocess.run(
            [*command, *desk.command()[:3], *words], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        return done.stdout

    desk.until(lambda: pratique("logs", "box") == "ready\n")
    pratique("stop", "box")
    assert desk.containers()["box"].exit_code == 3
    assert pratique("logs", "box") == "ready\nbye\n"
    pratique("rm", "box")
    assert desk.containers() == {}


def test_who_asks_and_is_killed_takes_the_container_along(desk: Desk) -> None:
    with desk.popen("sleep", "1000", options=("--name", "box")) as process:
        desk.until(lambda: desk.containers().get("box") is not None and desk.containers()["box"].status == "running")
        process.kill()
    desk.until(lambda: desk.containers() == {})


def test_many_at_once(desk: Desk) -> None:
    running = [desk.popen("sh", "-c", f"echo {number}") for number in range(12)]
    for number, process in enumerate(running):
        with process:
            out, err = process.communicate(timeout=60)
        assert (out, err) == (f"{number}\n".encode(), b"")


def test_a_slot_is_used_again_and_remembers_nothing(desk: Desk) -> None:
    used = "cat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null || echo 0"
    script = f"ls /proc | grep -c '^[0-9]'; ls -l /proc/self/fd | wc -l; {used}"
    seen = set()
    for number in range(8):
        result = desk.sh(
            script,
            options=("--name", f"box-{number}"),
        )
        processes, fds, nanoseconds = result.out.split()
        assert int(processes) <= 3, result
        assert int(fds) == 5, result
        assert int(nanoseconds) < 500_000_000, "its group is its own"
        seen.add(result.out)
    assert desk.slots() <= 2


def test_the_client_without_an_interpreter(desk: Desk, tmp_path: Path) -> None:
    client = tmp_path / "pratique"
    source = REPOSITORY / "deploy" / "client.c"
    subprocess.run([need("cc"), "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(client), str(source)], check=True)
    asked = desk.command("sh", "-c", "echo out; echo err >&2; cat; exit 4", options=("--interactive",))[3:]
    done = subprocess.run([client, *asked], env=desk.environment, input=b"in\n", capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (4, b"out\nin\n", b"err\n")
    with subprocess.Popen(
        [client, *desk.command("sh", "-c", LOOP)[3:]], env=desk.environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(10) == 3
    # What the broker leaves to it is the Python command's.
    stand_in = tmp_path / "command"
    stand_in.write_text('#!/bin/sh\necho "$@"\n')
    stand_in.chmod(0o755)
    environment = {**desk.environment, "PRATIQUE_COMMAND": str(stand_in)}
    for words in (["ps", "--all"], ["run", "--pull", "always", "registry.test/x"], ["run", "--store", "/x", "y"]):
        done = subprocess.run([client, *words], env=environment, capture_output=True, check=True)
        assert done.stdout.decode().split() == words
    desk.stop()
    done = subprocess.run([client, "run", "x"], env=environment, capture_output=True, check=True)
    assert done.stdout == b"run x\n"
