"""Nothing is left behind, however a start ends: looked at from outside by tests/support/leftovers.py.

Mounts, cgroups of all hierarchies, network and other namespaces, loop devices, processes, and every process's
descriptors, before and after.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from runtime.launch import parent_of
from tests.chain.clear_line import one_line
from tests.chain.stage import Chain, Desk, Result, app_image, descendants
from tests.runtime.boxes import reap
from tests.support import leftovers

pytestmark = pytest.mark.root

_PR_SET_CHILD_SUBREAPER = 36
NAME = f"leftovers-{os.getpid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """References of cleared images on this host: each differs from the first in its config alone."""

    app: str
    seven: str
    missing: str
    not_executable: str
    uncleared: str


@pytest.fixture(scope="module")
def images(chain: Chain, app: str) -> Images:
    """Pushed, approved by an officer as whole images, and pulled."""
    built = {
        "seven": app_image(chain.base, cmd=["once", "7"]),
        "missing": app_image(chain.base, entrypoint=["/srv/app/nothing"]),
        "not_executable": app_image(chain.base, entrypoint=["/srv/app/data"]),
        "uncleared": app_image(chain.base, entrypoint=["/bin/sh"]),
    }
    names = {}
    for name, each in built.items():
        names[name] = reference = chain.push(each, f"leftovers/{name}")
        if name != "uncleared":
            approve = ("approve", reference, "--level", "application", *chain.keys("alice"), "--account", "alice")
            chain.desk.fine(*approve)
            chain.cleared(reference)
            chain.desk.fine("pull", reference)
    chain.desk.fine("pull", app)
    return Images(app=app, **names)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outside:
    """What there was before. The registry's own processes are left out: they come and go without us.

    `cgroups` is the group that holds those of this state folder; that the look sees them is a test of its own.
    """

    before: dict[str, list[str]]
    registry: int
    cgroups: str

    @classmethod
    def look(cls, chain: Chain) -> Outside:
        """Look now; orphans of what is killed become our children, so that they are found."""
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        reap()
        assert chain.live.process is not None
        cgroups = parent_of(chain.desk.state)
        before = leftovers.take(os.getpid(), cgroups)
        return cls(before=before, registry=chain.live.process.pid, cgroups=cgroups)

    def left(self) -> list[str]:
        """What there is now and was not, once nothing is or ten seconds are over."""
        left = self.more()
        deadline = time.monotonic() + 10
        while left and time.monotonic() < deadline:
            time.sleep(0.1)
            left = self.more()
        return left

    def more(self) -> list[str]:
        """What there is now and was not."""
        reap()
        ours = {self.registry, *descendants(self.registry)}
        theirs = [f"{kind} {pid} *" for pid in ours for kind in ("process", "descriptor")]
        return leftovers.difference(self.before, leftovers.take(os.getpid(), self.cgroups), theirs)


@pytest.fixture
def outside(chain: Chain, images: Images) -> Iterator[Outside]:
    """Everything that was there before a test is all that is there after it."""
    found = Outside.look(chain)
    try:
        yield found
        left = found.left()
        assert left == []
        assert json.loads(chain.desk.fine("ps", "--all", "--json")) == []
    finally:
        chain.desk.pratique("rm", "--force", NAME)


def run(desk: Desk, image: str, *options: str) -> Result:
    """Start it in the foreground."""
    return desk.pratique("run", "--name", NAME, *options, image)


def detach(desk: Desk, image: str) -> int:
    """Start it in the background; its first process."""
    desk.fine("run", "--detach", "--name", NAME, image)
    return pid_of(desk)


def pid_of(desk: Desk) -> int:
    """The first process of the container that runs; 0 if none does."""
    return next((int(each["pid"]) for each in json.loads(desk.fine("ps", "--json"))), 0)


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---- ordinary ends -------------------------------------------------------------------------------------------------


def test_a_program_that_ends(chain: Chain, images: Images, outside: Outside) -> None:
    ended = run(chain.desk, images.seven)
    assert ended.code == 7, ended
    assert "pid 1\n" in ended.out, ended


def test_a_container_that_is_stopped(chain: Chain, images: Images, outside: Outside) -> None:
    detach(chain.desk, images.app)
    while_it_runs = outside.more()
    assert any(line.startswith("process ") for line in while_it_runs), "the look sees what runs"
    assert any(line.startswith("cgroup ") for line in while_it_runs)
    chain.desk.fine("stop", NAME)
    chain.desk.fine("rm", NAME)


def test_a_container_that_is_removed_by_force(chain: Chain, images: Images, outside: Outside) -> None:
    detach(chain.desk, images.app)
    chain.desk.fine("rm", "--force", NAME)


# ---- starts that fail ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--init",), ("--writable",)], ids=["plain", "init", "writable"])
def test_a_program_that_is_not_there(chain: Chain, images: Images, outside: Outside, flags: tuple[str, ...]) -> None:
    one_line(run(chain.desk, images.missing, *flags), 127, "/srv/app/nothing")


def test_a_program_that_is_not_there_in_the_background(chain: Chain, images: Images, outside: Outside) -> None:
    one_line(run(chain.desk, images.missing, "--detach"), 127, "/srv/app/nothing")


def test_a_program_that_cannot_be_executed(chain: Chain, images: Images, outside: Outside) -> None:
    one_line(run(chain.desk, images.not_executable), 126, "/srv/app/data")


def test_an_image_that_may_not_start(chain: Chain, images: Images, outside: Outside) -> None:
    refused = run(chain.desk, images.uncleared)
    assert (refused.code, refused.out) == (125, ""), refused
    assert "config-not-approved" in refused.err, refused


def test_more_memory_than_the_policy_gives(chain: Chain, images: Images, outside: Outside) -> None:
    refused = run(chain.desk, images.app, "--memory", "64g")
    assert refused.code == 125, refused
    assert "memory" in refused.err, refused


def test_a_name_that_is_taken(chain: Chain, images: Images, outside: Outside) -> None:
    detach(chain.desk, images.app)
    one_line(run(chain.desk, images.app), 125, f"container {NAME}: the name is taken")
    assert pid_of(chain.desk)
    chain.desk.fine("rm", "--force", NAME)


# ---- kill -9 -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0.1, 0.2, 0.3, 0.4], ids=lambda seconds: f"{seconds * 1000:.0f}ms")
def test_kill_9_of_the_launcher_while_it_starts(chain: Chain, images: Images, outside: Outside, after: float) -> None:
    with chain.desk.start("run", "--name", NAME, images.app) as launcher:
        time.sleep(after)
        launcher.kill()
        launcher.communicate()


def test_kill_9_of_the_launcher_while_the_program_runs(chain: Chain, images: Images, outside: Outside) -> None:
    with chain.desk.start("run", "--name", NAME, images.app) as launcher:
        until(lambda: pid_of(chain.desk))
        launcher.kill()
        launcher.communicate()


@pytest.mark.parametrize("after", [0.2, 0.35], ids=lambda seconds: f"{seconds * 1000:.0f}ms")
def test_kill_9_of_the_launcher_of_a_background_start(
    chain: Chain, images: Images, outside: Outside, after: float
) -> None:
    """Its supervisor may be there already: then the container runs on, and can be stopped."""
    with chain.desk.start("run", "--detach", "--name", NAME, images.app) as launcher:
        time.sleep(after)
        launcher.kill()
        launcher.communicate()
    time.sleep(0.2)
    if json.loads(chain.desk.fine("ps", "--all", "--json")):
        chain.desk.fine("rm", "--force", NAME)


def test_kill_9_of_the_supervisor(chain: Chain, images: Images, outside: Outside) -> None:
    first = detach(chain.desk, images.app)
    os.kill(parent(first), signal.SIGKILL)
    until(lambda: not pid_of(chain.desk))
    assert outside.left() == []
    (ended,) = json.loads(chain.desk.fine("ps", "--all", "--json"))
    assert ended["stopped_by"]["code"] == "supervisor-died", ended
    chain.desk.fine("rm", NAME)


def test_kill_9_of_supervisor_and_guard_and_the_next_verb_clears_up(
    chain: Chain, images: Images, outside: Outside
) -> None:
    first = detach(chain.desk, images.app)
    supervisor = parent(first)
    for pid in {*descendants(supervisor), supervisor} - {first}:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    until(lambda: not pid_of(chain.desk))
    assert outside.left() == []
    chain.desk.fine("rm", NAME)
