"""The filter compiler against a second reading of the profile, on an interpreter of classic BPF.

The interpreter and the reading below share nothing with the compiler but the instruction format.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import json
import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.errors import RequestError
from runtime.filters import filter_for
from runtime.linux import constants as c
from runtime.linux.seccomp import compile_filter, syscall_numbers
from runtime.profile import default_profile, parse_profile
from tests.support.tools import lacking, need_root

RAW = (Path(__file__).parent.parent.parent / "runtime" / "data" / "seccomp.json").read_bytes()
KERNEL = (6, 12)
FIRST = (0, 8, 9, 16, 0x20000, 0x20008, 0xFFFFFFFF, 0x7E020000)
THIRD = (0, 9)
OPERATORS = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]


def run(program: bytes, number: int, arguments: Sequence[int] = (0,) * 6, arch: int = c.AUDIT_ARCH_X86_64) -> int:
    """What the kernel would answer."""
    data = struct.pack("<IIQ6Q", number, arch, 0, *arguments)
    instructions = list(struct.iter_unpack("<HBBI", program))
    position = accumulator = steps = 0
    while True:
        steps += 1
        assert steps < 1000, "a look-up takes too long"
        code, true, false, k = instructions[position]
        position += 1
        match code:
            case 0x20:
                accumulator = int.from_bytes(data[k : k + 4], "little")
            case 0x54:
                accumulator &= k
            case 0x05:
                position += k
            case 0x15 | 0x25 | 0x35:
                holds = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
                position += true if holds else false
            case 0x06:
                return int(k)
            case _:
                raise AssertionError(f"instruction {code:#x}")


def compiled(raw: bytes, capabilities: Sequence[str] = (), machine: str = "x86_64") -> bytes:
    return compile_filter(parse_profile(raw), machine=machine, capabilities=capabilities, kernel=KERNEL)


Json = dict[str, Any]
"""Raw JSON, which the tests read in their own way."""


def holds(argument: Json, actual: Sequence[int]) -> bool:
    value, second, got = argument["value"], argument["valueTwo"], actual[argument["index"]]
    answers: dict[str, bool] = {
        "SCMP_CMP_EQ": got == value,
        "SCMP_CMP_NE": got != value,
        "SCMP_CMP_LT": got < value,
        "SCMP_CMP_LE": got <= value,
        "SCMP_CMP_GT": got > value,
        "SCMP_CMP_GE": got >= value,
        "SCMP_CMP_MASKED_EQ": got & value == second,
    }
    return answers[argument["op"]]


def in_force(document: Json, capabilities: Sequence[str]) -> list[Json]:
    """The rules that hold on amd64 with these capabilities, read in the plainest way."""
    found: list[Json] = []
    for rule in document["syscalls"]:
        includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
        fits = "amd64" in includes.get("arches", ["amd64"]) and set(includes.get("caps", ())) <= set(capabilities)
        if fits and not set(excludes.get("caps", ())) & set(capabilities):
            found.append(rule)
    return found


def action(rule: Json) -> int:
    error: int = c.SECCOMP_RET_ERRNO | rule.get("errnoRet", errno.EPERM)
    return {"SCMP_ACT_ALLOW": c.SECCOMP_RET_ALLOW, "SCMP_ACT_ERRNO": error}[rule["action"]]


def expected(document: Json, rules: list[Json], name: str, arguments: Sequence[int]) -> int:
    """The answer read off the profile: comparisons before the rest, and of the rest the strictest."""
    matching = [rule for rule in rules if name in rule["names"]]
    for rule in matching:
        if rule.get("args") and all(holds(argument, arguments) for argument in rule["args"]):
            return action(rule)
    plain = [action(rule) for rule in matching if not rule.get("args")]
    return min(plain, default=c.SECCOMP_RET_ERRNO | int(document["defaultErrnoRet"]))


@pytest.mark.parametrize("capabilities", [(), ("CAP_SYS_ADMIN",), ("CAP_AUDIT_WRITE", "CAP_BPF"), ("CAP_SYS_PTRACE",)])
def test_each_call_of_the_shipped_profile_is_answered_as_the_profile_says(capabilities: tuple[str, ...]) -> None:
    document = json.loads(RAW)
    rules = in_force(document, capabilities)
    program = compiled(RAW, capabilities)
    for name, number in syscall_numbers()["x86_64"].items():
        for first, third in itertools.product(FIRST, THIRD):
            arguments = (first, 0, third, 0, 0, 0)
            assert run(program, number, arguments) == expected(document, rules, name, arguments), name


@pytest.mark.parametrize("capabilities", [(), ("CAP_SYS_ADMIN",)])
def test_the_filter_answers_as_that_of_libseccomp(capabilities: tuple[str, ...]) -> None:
    """Which is what runc and crun load. Only `setns` differs: libseccomp keeps the first of two rules."""
    peer = libseccomp_filter(in_force(json.loads(RAW), capabilities))
    program = compiled(RAW, capabilities)
    for name, number in syscall_numbers()["x86_64"].items():
        for first, third in itertools.product(FIRST, THIRD):
            arguments = (first, 0, third, 0, 0, 0)
            if name != "setns":
                assert run(program, number, arguments) == run(peer, number, arguments), name


def libseccomp_filter(rules: list[Json]) -> bytes:
    """The filter that libseccomp makes of these rules for x86-64."""
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        lacking("libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(c.SECCOMP_RET_ERRNO | errno.ENOSYS)))
    numbers = syscall_numbers()["x86_64"]
    operators = {f"SCMP_CMP_{name}": position for position, name in enumerate(OPERATORS, 1)}  # enum scmp_compare
    for rule in rules:
        given = rule.get("args") or ()
        compared = [ScmpArgCmp(a["index"], operators[a["op"]], a["value"], a["valueTwo"]) for a in given]
        arguments, count = (ScmpArgCmp * 6)(*compared), len(compared)
        for name in rule["names"]:
            if name in numbers:
                number = ctypes.c_int(numbers[name])
                assert not library.seccomp_rule_add_array(
                    context, ctypes.c_uint32(action(rule)), number, ctypes.c_uint(count), arguments
                )
    with tempfile.TemporaryFile() as file:
        assert library.seccomp_export_bpf(context, file.fileno()) == 0
        file.seek(0)
        return file.read()


class ScmpArgCmp(ctypes.Structure):
    """struct scmp_arg_cmp, seccomp.h."""

    _fields_: ClassVar = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    ]


def test_a_call_that_no_table_knows_gets_the_default() -> None:
    program = compiled(RAW)
    for number in (1000, 0x3FFFFFFF):
        assert run(program, number) == c.SECCOMP_RET_ERRNO | errno.ENOSYS


def test_arch_prctl_stands_under_a_condition_and_is_allowed() -> None:
    """Without it not even a static busybox can start ("Cannot allocate TLS block")."""
    assert run(compiled(RAW), syscall_numbers()["x86_64"]["arch_prctl"]) == c.SECCOMP_RET_ALLOW


def test_x32_calls_do_not_slip_past_a_profile_that_allows_what_it_does_not_name() -> None:
    raw = profile({"names": ["mount"], "action": "SCMP_ACT_ERRNO"}, default="SCMP_ACT_ALLOW")
    program = compiled(raw)
    mount = syscall_numbers()["x86_64"]["mount"]
    assert run(program, mount) == c.SECCOMP_RET_ERRNO | errno.EPERM
    assert run(program, mount | c.X32_SYSCALL_BIT) == c.SECCOMP_RET_ERRNO | errno.ENOSYS
    assert run(program, 2**32 - 1) == c.SECCOMP_RET_ERRNO | errno.ENOSYS


def test_another_architecture_is_killed_and_a_companion_has_its_own_numbers() -> None:
    program = compiled(RAW)
    i386 = syscall_numbers()["i386"]
    assert run(program, 0, arch=c.AUDIT_ARCH_AARCH64) == c.SECCOMP_RET_KILL_PROCESS
    assert run(program, i386["write"], arch=c.AUDIT_ARCH_I386) == c.SECCOMP_RET_ALLOW
    assert run(program, i386["swapon"], arch=c.AUDIT_ARCH_I386) == c.SECCOMP_RET_ERRNO | errno.EPERM


def test_the_filter_of_another_machine() -> None:
    program = compiled(RAW, machine="aarch64")
    numbers = syscall_numbers()
    assert run(program, numbers["aarch64"]["openat"], arch=c.AUDIT_ARCH_AARCH64) == c.SECCOMP_RET_ALLOW
    assert run(program, numbers["arm"]["set_tls"], arch=c.AUDIT_ARCH_ARM) == c.SECCOMP_RET_ALLOW
    assert run(program, 0, arch=c.AUDIT_ARCH_X86_64) == c.SECCOMP_RET_KILL_PROCESS


def profile(*rules: Json, default: str = "SCMP_ACT_ERRNO") -> bytes:
    return json.dumps({"defaultAction": default, "syscalls": list(rules)}).encode()


def test_a_long_filter_with_jumps_beyond_255_instructions() -> None:
    numbers = syscall_numbers()["x86_64"]
    names = sorted(numbers, key=numbers.__getitem__)[::2]
    rules = [
        {"names": [name], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_EQ", "value": position}]}
        for position, name in enumerate(names)
    ]
    program = compiled(profile(*rules))
    assert len(program) // 8 > 800
    for position, name in enumerate(names):
        assert run(program, numbers[name], (position, 0, 0, 0, 0, 0)) == c.SECCOMP_RET_ALLOW
        assert run(program, numbers[name], (position + 1, 0, 0, 0, 0, 0)) == c.SECCOMP_RET_ERRNO | errno.EPERM


NUMBER = st.one_of(
    st.integers(0, 2**53 - 1), st.sampled_from([0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**52, 2**53 - 1])
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_comparisons_of_64_bit_arguments(data: st.DataObject) -> None:
    arguments: list[Json] = [
        {
            "index": index,
            "op": f"SCMP_CMP_{data.draw(st.sampled_from(OPERATORS))}",
            "value": data.draw(NUMBER),
            "valueTwo": data.draw(NUMBER),
        }
        for index in data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
    ]
    near = [argument["value"] + step for argument in arguments for step in (-1, 0, 1) if argument["value"] + step >= 0]
    near += [argument["valueTwo"] for argument in arguments]
    actual = tuple(data.draw(st.one_of(st.sampled_from(near), st.integers(0, 2**64 - 1))) for _ in range(6))
    program = compiled(profile({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": arguments}))
    allowed = run(program, syscall_numbers()["x86_64"]["read"], actual) == c.SECCOMP_RET_ALLOW
    assert allowed == all(holds(argument, actual) for argument in arguments)


def test_one_argument_compared_twice_means_either() -> None:
    arguments = [{"index": 1, "op": "SCMP_CMP_EQ", "value": value} for value in (3, 5)]
    program = compiled(profile({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": arguments}))
    answers = [run(program, 0, (0, value, 0, 0, 0, 0)) == c.SECCOMP_RET_ALLOW for value in range(7)]
    assert answers == [False, False, False, True, False, True, False]


def test_kernel_version_conditions() -> None:
    raw = profile({"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}})
    number = syscall_numbers()["x86_64"]["ptrace"]
    for kernel, allowed in (((4, 8), True), ((6, 1), True), ((4, 7), False), ((3, 10), False)):
        program = compile_filter(parse_profile(raw), machine="x86_64", capabilities=(), kernel=kernel)
        assert (run(program, number) == c.SECCOMP_RET_ALLOW) is allowed


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["read"], "action": "SCMP_ACT_ALOW"}, "is not one of"),
        ({"names": ["read"], "action": "SCMP_ACT_NOTIFY"}, "is not one of"),
        ({"names": ["read"], "action": "SCMP_ACT_ALLOW", "arguments": []}, "unknown member"),
        ({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 6, "op": "SCMP_CMP_EQ"}]}, "out of range"),
        ({"names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [{"index": 0, "op": "SCMP_CMP_XX"}]}, "is unknown"),
        ({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errno": "ENONSENSE"}, "does not name the error"),
        ({"names": ["read"], "action": "SCMP_ACT_ERRNO", "errno": "EPERM", "errnoRet": 2}, "does not name the error"),
        ({"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"cap": ["CAP_BPF"]}}, "unknown member"),
        ({"names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "new"}}, "kernel version"),
    ],
)
def test_a_profile_that_is_not_understood_is_refused(change: Json, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        parse_profile(profile(change))


def test_of_two_contradicting_rules_the_stricter_holds() -> None:
    allow: Json = {"names": ["read"], "action": "SCMP_ACT_ALLOW"}
    refuse: Json = {"names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5}
    kill: Json = {"names": ["read"], "action": "SCMP_ACT_KILL_PROCESS"}
    for rules, wanted in (
        ((allow, refuse), c.SECCOMP_RET_ERRNO | 5),
        ((refuse, allow), c.SECCOMP_RET_ERRNO | 5),
        ((refuse, kill, allow), c.SECCOMP_RET_KILL_PROCESS),
    ):
        assert run(compiled(profile(*rules)), 0) == wanted


def test_a_forbidden_name_that_does_not_exist_is_refused() -> None:
    """In a profile that allows the rest, a misspelt name would be a hole."""
    raw = profile({"names": ["mnt"], "action": "SCMP_ACT_ERRNO"}, default="SCMP_ACT_ALLOW")
    with pytest.raises(RequestError, match="no system call we know"):
        compiled(raw)


def test_an_unknown_machine_is_refused() -> None:
    with pytest.raises(RequestError, match="got machine vax"):
        compiled(RAW, machine="vax")


def default(*capabilities: str) -> bytes:
    return compile_filter(default_profile(), machine="x86_64", capabilities=capabilities, kernel=KERNEL)


def test_x6_no_namespace_and_no_mount_without_cap_sys_admin() -> None:
    """CVE-2022-0492: a new user namespace gave the capabilities to mount, and release_agent did the rest."""
    numbers, program = syscall_numbers()["x86_64"], default()
    refused = c.SECCOMP_RET_ERRNO | errno.EPERM
    for name in ("unshare", "setns", "mount", "umount2", "move_mount", "open_tree", "fsopen", "pivot_root", "keyctl"):
        assert run(program, numbers[name], (0,) * 6) == refused, name
    assert run(program, numbers["clone3"]) == c.SECCOMP_RET_ERRNO | errno.ENOSYS
    for flag in ("NS", "CGROUP", "UTS", "IPC", "USER", "PID", "NET"):
        assert run(program, numbers["clone"], (getattr(c, f"CLONE_NEW{flag}") | 17, 0, 0, 0, 0, 0)) == refused, flag
    assert run(program, numbers["clone"], (0x01200011, 0, 0, 0, 0, 0)) == c.SECCOMP_RET_ALLOW
    powerful = default("CAP_SYS_ADMIN")
    for name in ("unshare", "mount", "clone3", "clone"):
        assert run(powerful, numbers[name], (c.CLONE_NEWUSER, 0, 0, 0, 0, 0)) == c.SECCOMP_RET_ALLOW, name


def test_a_cached_filter_is_that_of_its_profile_and_capabilities(tmp_path: Path) -> None:
    first = filter_for(None, capabilities=(), cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    assert filter_for(None, capabilities=(), cache=tmp_path) == first == filter_for(None, capabilities=())
    assert filter_for(None, capabilities=("CAP_SYS_ADMIN",), cache=tmp_path) != first
    other = profile({"names": ["read"], "action": "SCMP_ACT_ALLOW"})
    assert filter_for(other, capabilities=(), cache=tmp_path) == filter_for(other, capabilities=())
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.root
def test_the_kernel_takes_the_filter_and_applies_it() -> None:
    need_root()
    from runtime.linux import syscalls

    program = filter_for(None, capabilities=())
    pid = os.fork()
    if pid == 0:
        try:
            syscalls.prctl(c.PR_SET_NO_NEW_PRIVS, 1)
            syscalls.set_filter(program)
            os.getpid()
            try:
                syscalls.unshare(c.CLONE_NEWNS)
            except OSError as error:
                os._exit(error.errno or 0)
            os._exit(200)
        finally:
            os._exit(201)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == errno.EPERM
