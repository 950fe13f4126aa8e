"""What is asked for at a start, as the policy judges it and as the sandbox gets it."""

from __future__ import annotations

import signal
from dataclasses import replace

import pytest

from policy.load import load
from policy.settings import Level, Policy
from policy.statements import ConfigFacts, ResolvedUser
from runtime.errors import RequestError
from runtime.model import Bind, ContainerId, Root, Shown
from runtime.wish import DEFAULT_PATH, Wish, environment, signal_number
from tests.support.cleared import POLICY
from tests.support.trust import scene

NAME = ContainerId("app")
ROOT = Root(index_fd=3, layer_fds=(4,))


@pytest.fixture(scope="module")
def policy() -> Policy:
    return load(POLICY)


def _level(policy: Policy, name: str = "application") -> Level | None:
    return policy.level(name)


def test_the_policys_limits_hold_where_none_is_named(policy: Policy) -> None:
    limited = Wish(name=NAME).limited(policy.start)
    assert (limited.memory, limited.pids) == (64 * 1024**2, 64)
    named = Wish(name=NAME, memory=5, pids=6).limited(policy.start)
    assert (named.memory, named.pids) == (5, 6)


@pytest.mark.parametrize(
    ("wish", "overrides"),
    [
        (Wish(name=NAME), False),
        (Wish(name=NAME, env=("COLOUR=red",)), False),
        (Wish(name=NAME, env=("COLOUR=red", "LD_PRELOAD=/x")), True),
        (Wish(name=NAME, env=("PATH=/srv/data",)), True),
        (Wish(name=NAME, env=("PYTHONSTARTUP=/x",)), True),
        (Wish(name=NAME, arguments=("sh",)), True),
        (Wish(name=NAME, entrypoint=()), True),
        (Wish(name=NAME, working_dir="/srv"), True),
    ],
)
def test_what_chooses_the_program_is_an_override_of_the_command(policy: Policy, wish: Wish, overrides: bool) -> None:
    assert wish.judged(_level(policy)).command_override is overrides


def test_a_level_that_lets_no_variable_differ_lets_none_be_given(policy: Policy) -> None:
    wish = Wish(name=NAME, env=("COLOUR=red",))
    assert wish.judged(_level(policy, "base")).command_override
    assert wish.judged(None).command_override


def test_everything_that_is_asked_for_is_judged(policy: Policy) -> None:
    wish = Wish(
        name=NAME,
        user="0",
        network="host",
        capabilities=("CAP_CHOWN",),
        writable=True,
        cpus_milli=1500,
        mounts=(
            Bind(source="/srv/a", target="/a"),
            Bind(source="/srv/a", target="/b", read_only=False),
            Bind(source="/srv/c", target="/c", noexec=False),
            Bind(source="/srv/d", target="/d", nosuid=False),
        ),
    )
    judged = wish.judged(_level(policy))
    assert judged.mounts == ("/srv/a", "/srv/c", "/srv/d")
    assert judged.writable_mounts == ("/srv/a",)
    assert judged.executable_mounts == ("/srv/c", "/srv/d")
    assert (judged.user_override, judged.network, judged.capabilities) == (True, "host", ("CAP_CHOWN",))
    assert (judged.writable, judged.cpus_milli) == (True, 1500)


def test_the_request_is_made_of_the_clearance() -> None:
    clearance = scene().clearance
    request = Wish(name=NAME, memory=2**26, cpus_milli=500).request(clearance, ROOT, Shown(image="x"))
    assert request.process.argv == ("/app",)
    assert request.process.env == ("LANG=C", DEFAULT_PATH, "HOME=/home/app")
    assert (request.process.uid, request.process.gid, request.process.groups) == (1000, 1000, (1000,))
    assert (request.process.cwd, request.cpu, request.memory) == ("/", 50_000, 2**26)
    assert request.process.capabilities == ()
    assert request.root == ROOT


def test_what_is_asked_for_takes_the_place_of_the_clearances_facts() -> None:
    clearance = scene().clearance
    wish = Wish(name=NAME, arguments=("-v",), user="5:6", working_dir="/srv", writable=True, upper_max=9)
    request = wish.request(clearance, ROOT, Shown())
    assert request.process.argv == ("-v",)
    assert (request.process.uid, request.process.gid, request.process.groups) == (5, 6, ())
    assert (request.process.cwd, request.root.writable, request.root.upper_max) == ("/srv", True, 9)
    request = Wish(name=NAME, entrypoint=("/bin/sh",), arguments=("-c", "x")).request(clearance, ROOT, Shown())
    assert request.process.argv == ("/bin/sh", "-c", "x")


def test_an_ambient_set_is_for_those_who_are_not_root() -> None:
    clearance = scene().clearance
    wish = Wish(name=NAME, capabilities=("CAP_CHOWN",))
    assert wish.request(clearance, ROOT, Shown()).process.ambient == ("CAP_CHOWN",)
    root = Wish(name=NAME, capabilities=("CAP_CHOWN",), user="0").request(clearance, ROOT, Shown())
    assert (root.process.capabilities, root.process.ambient) == (("CAP_CHOWN",), ())


def test_the_last_of_two_variables_counts() -> None:
    made = environment(("A=1", "PATH=/bin", "HOME=/x"), ("A=2", "B=3", "B=4"), "/home/app")
    assert made == ("A=2", "PATH=/bin", "HOME=/x", "B=4")
    assert environment((), (), "") == (DEFAULT_PATH, "HOME=/")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("", signal.SIGTERM),
        ("SIGINT", signal.SIGINT),
        ("quit", signal.SIGQUIT),
        ("9", 9),
        ("64", 64),
        ("SIGRTMIN", signal.SIGRTMIN),
        ("SIGRTMIN+3", signal.SIGRTMIN + 3),
        ("RTMAX-1", signal.SIGRTMAX - 1),
    ],
)
def test_stop_signals_are_names_or_numbers(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["SIGNOTHING", "0", "65", "-1", "SIGRTMIN+99", "RTMAX+1", "\u0669", "9 "])
def test_a_stop_signal_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="no such signal"):
        signal_number(text)


@pytest.mark.parametrize("user", ["app", "", "1000:app", "-1", "4294967295", "1:4294967295", "1:2:3", "1 "])
def test_x7_a_user_is_a_number_in_range(user: str) -> None:
    with pytest.raises(RequestError, match="expected uid or uid:gid"):
        Wish(name=NAME, user=user)


@pytest.mark.parametrize("entry", ["A", "=x", ""])
def test_a_variable_has_a_name(entry: str) -> None:
    with pytest.raises(RequestError, match="expected NAME=VALUE"):
        Wish(name=NAME, env=(entry,))


def test_an_image_with_no_program_is_not_started() -> None:
    empty = replace(scene().clearance, config_facts=ConfigFacts(), user=ResolvedUser(uid=0, gid=0))
    with pytest.raises(RequestError, match="no program"):
        Wish(name=NAME).request(empty, ROOT, Shown())
