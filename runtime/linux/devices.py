"""Which devices a container may use: a list of rules, everything else denied, for both kinds of cgroup.

cgroup v1 takes the rules as text (devices.allow). cgroup v2 takes an eBPF program that answers for each
access (kernel Documentation/admin-guide/cgroup-v2.rst, "Device controller"); it is compiled here.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Final, Literal

from runtime.linux import constants as c
from runtime.linux import structs, syscalls

_ACCESS: Final = {"r": c.BPF_DEVCG_ACC_READ, "w": c.BPF_DEVCG_ACC_WRITE, "m": c.BPF_DEVCG_ACC_MKNOD}
_KIND: Final = {"c": c.BPF_DEVCG_DEV_CHAR, "b": c.BPF_DEVCG_DEV_BLOCK}


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceRule:
    """One kind of device that may be used; a `minor` of None is every minor."""

    kind: Literal["c", "b"] = "c"
    major: int
    minor: int | None
    access: str = "rwm"

    def text(self) -> str:
        """As devices.allow wants it: `c 1:3 rwm`."""
        return f"{self.kind} {self.major}:{'*' if self.minor is None else self.minor} {self.access}"


DEFAULT_RULES: Final = (
    DeviceRule(major=1, minor=3),  # null
    DeviceRule(major=1, minor=5),  # zero
    DeviceRule(major=1, minor=7),  # full
    DeviceRule(major=1, minor=8),  # random
    DeviceRule(major=1, minor=9),  # urandom
    DeviceRule(major=5, minor=0),  # tty
    DeviceRule(major=5, minor=2),  # ptmx
    DeviceRule(major=136, minor=None),  # pts/*
)
"""The default devices of the runtime specification (config-linux.md, "Default Devices")."""

# linux/bpf_common.h and linux/bpf.h: operation codes of the few instructions that are needed.
_LOAD_WORD, _MOV_REG, _MOV_IMM, _AND_IMM, _SHIFT_IMM, _JUMP_NE, _EXIT = 0x61, 0xBF, 0xB7, 0x54, 0x74, 0x55, 0x95
_RESULT, _CONTEXT, _KIND_REG, _ACCESS_REG, _MAJOR, _MINOR = 0, 1, 2, 3, 4, 5


def _instruction(code: int, dst: int = 0, *, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return structs.bpf_insn.pack(code, dst | src << 4, off, imm)


def compile_rules(rules: tuple[DeviceRule, ...]) -> bytes:
    """The eBPF program that allows what the rules allow, and denies all else.

    Its context is struct bpf_cgroup_dev_ctx (linux/bpf.h): access_type (access << 16 | kind), major, minor.
    """
    program = [
        _instruction(_LOAD_WORD, _KIND_REG, src=_CONTEXT, off=0),
        _instruction(_MOV_REG, _ACCESS_REG, src=_KIND_REG),
        _instruction(_AND_IMM, _KIND_REG, imm=0xFFFF),
        _instruction(_SHIFT_IMM, _ACCESS_REG, imm=16),
        _instruction(_LOAD_WORD, _MAJOR, src=_CONTEXT, off=4),
        _instruction(_LOAD_WORD, _MINOR, src=_CONTEXT, off=8),
    ]
    for rule in rules:
        program += _rule(rule)
    return b"".join([*program, _instruction(_MOV_IMM, _RESULT, imm=0), _instruction(_EXIT)])


def _rule(rule: DeviceRule) -> list[bytes]:
    """Allow, or jump behind this rule as soon as something differs."""
    refused = 7 & ~sum(_ACCESS[letter] for letter in rule.access)
    tests = [(_KIND_REG, _KIND[rule.kind]), (_MAJOR, rule.major)]
    if rule.minor is not None:
        tests.append((_MINOR, rule.minor))
    tail = [
        _instruction(_MOV_REG, _RESULT, src=_ACCESS_REG),
        _instruction(_AND_IMM, _RESULT, imm=refused),
        _instruction(_JUMP_NE, _RESULT, off=2, imm=0),
        _instruction(_MOV_IMM, _RESULT, imm=1),
        _instruction(_EXIT),
    ]
    count = len(tests) + len(tail)
    head = [
        _instruction(_JUMP_NE, register, off=count - position - 1, imm=value)
        for position, (register, value) in enumerate(tests)
    ]
    return head + tail


def restrict(cgroup_fd: int, rules: tuple[DeviceRule, ...]) -> None:
    """Attach the rules to a cgroup v2 folder; the kernel drops the program with the folder.

    Raises:
        OSError: the kernel has no eBPF for cgroups (CONFIG_CGROUP_BPF), or does not let us.
    """
    program = compile_rules(rules)
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    count = len(program) // structs.bpf_insn.size
    load = structs.bpf_prog_load.pack(
        *(c.BPF_PROG_TYPE_CGROUP_DEVICE, count, ctypes.addressof(code), ctypes.addressof(licence)),
        *(0, 0, 0, 0, 0, b"pratique", 0, c.BPF_CGROUP_DEVICE),
    )
    program_fd = syscalls.bpf(c.BPF_PROG_LOAD, load, f"device program of {count} instructions")
    try:
        attach = structs.bpf_prog_attach.pack(cgroup_fd, program_fd, c.BPF_CGROUP_DEVICE, c.BPF_F_ALLOW_MULTI, 0)
        syscalls.bpf(c.BPF_PROG_ATTACH, attach, "device program to a cgroup")
    finally:
        syscalls.close(program_fd)
