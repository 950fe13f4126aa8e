"""Compile a seccomp profile to a BPF filter: architecture first, then an interval tree over the call's number.

All conditions of a profile are heeded: arguments, capabilities, architectures, kernel version. The tree needs
a fifth of the instructions of a list, and a look-up seven comparisons. The data is struct seccomp_data of
linux/seccomp.h: number at 0, architecture at 4, arguments from 16.
"""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from runtime.errors import RequestError
from runtime.linux import bpf
from runtime.linux import constants as c

_NUMBERS: Final = Path(__file__).parent.parent / "data" / "syscalls.json"

ARCHES: Final = {
    "x86_64": (c.AUDIT_ARCH_X86_64, "amd64", "SCMP_ARCH_X86_64"),
    "i386": (c.AUDIT_ARCH_I386, "x86", "SCMP_ARCH_X86"),
    "aarch64": (c.AUDIT_ARCH_AARCH64, "arm64", "SCMP_ARCH_AARCH64"),
    "arm": (c.AUDIT_ARCH_ARM, "arm", "SCMP_ARCH_ARM"),
}
"""Table name to (AUDIT_ARCH_*, the name in a profile's conditions, the name in its archMap)."""
_PERMISSIVE: Final = frozenset({c.SECCOMP_RET_ALLOW, c.SECCOMP_RET_LOG})


@dataclass(frozen=True, slots=True)
class Argument:
    """One comparison: argument `index` against `value`; MASKED_EQ masks with `value` and wants `value_two`."""

    index: int
    operator: str
    value: int
    value_two: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Where a rule is in force, or is not."""

    arches: frozenset[str] = frozenset()
    capabilities: frozenset[str] = frozenset()
    min_kernel: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What happens (`action`, SECCOMP_RET_*) to calls of these names if all of `arguments` hold."""

    names: tuple[str, ...]
    action: int
    arguments: tuple[Argument, ...]
    includes: Condition
    excludes: Condition

    def applies(self, arch: str, capabilities: frozenset[str], kernel: tuple[int, int]) -> bool:
        """True under this architecture, bounding set and kernel: all of `includes`, and nothing of `excludes`."""
        includes, excludes = self.includes, self.excludes
        if includes.arches and arch not in includes.arches:
            return False
        if includes.min_kernel is not None and kernel < includes.min_kernel:
            return False
        if not includes.capabilities <= capabilities:
            return False
        newer = excludes.min_kernel is not None and kernel >= excludes.min_kernel
        return not (arch in excludes.arches or excludes.capabilities & capabilities or newer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A parsed profile; `companions` maps an architecture to those of older programs that it runs."""

    default: int
    rules: tuple[Rule, ...]
    companions: Mapping[str, tuple[str, ...]]


@lru_cache(maxsize=1)
def syscall_numbers() -> dict[str, dict[str, int]]:
    """Machine to the numbers of its system calls by name."""
    tables: dict[str, dict[str, int]] = json.loads(_NUMBERS.read_bytes())
    return tables


def compile_filter(profile: Profile, *, machine: str, capabilities: Sequence[str], kernel: tuple[int, int]) -> bytes:
    """The filter of a container with this bounding set, as struct sock_filter instructions.

    Calls of another architecture than the machine's, and of those that the profile gives it as companions
    and we have numbers for, kill the process. x32 calls, which share AUDIT_ARCH_X86_64, fail with ENOSYS.

    Raises:
        RequestError: there is no table for this machine; a rule that forbids names a call that does not
            exist; or the filter is longer than the kernel takes.
    """
    if machine not in ARCHES:
        raise RequestError(f"seccomp: got machine {machine}, expected one of {', '.join(ARCHES)}")
    _check_names(profile)
    arch, caps = ARCHES[machine][1], frozenset(capabilities)
    rules = [rule for rule in profile.rules if rule.applies(arch, caps, kernel)]
    companions = profile.companions.get(ARCHES[machine][2], ())
    code = bpf.load(4)
    for name in (machine, *(name for name, (_, _, scmp) in ARCHES.items() if scmp in companions)):
        code += bpf.if_equal(ARCHES[name][0], _one_machine(profile.default, rules, name))
    code += bpf.ret(c.SECCOMP_RET_KILL_PROCESS)
    if len(code) > bpf.MAX_INSTRUCTIONS:
        raise RequestError(f"seccomp profile: {len(code)} instructions, expected at most {bpf.MAX_INSTRUCTIONS}")
    return b"".join(code)


def _check_names(profile: Profile) -> None:
    """Where what is not named is allowed, a misspelt name would be a hole."""
    if profile.default not in _PERMISSIVE:
        return
    known = frozenset[str]().union(*syscall_numbers().values())
    for rule in profile.rules:
        if rule.action not in _PERMISSIVE and (unknown := [name for name in rule.names if name not in known]):
            raise RequestError(f"seccomp profile: forbids {unknown[0][:80]!r}, which is no system call we know")


def _strictness(action: int) -> int:
    """The kernel's own order of actions (Documentation/userspace-api/seccomp_filter.rst): higher wins."""
    kind = action & 0xFFFF0000
    return -(kind - 2**32 if kind & 2**31 else kind)


@dataclass(slots=True)
class _Call:
    """What the rules say of one system call: comparisons with their action in order, then what holds otherwise.

    Of two rules without comparisons the stricter one holds (the shared profile has such a pair for setns;
    libseccomp silently keeps the first).
    """

    compared: tuple[tuple[tuple[Argument, ...], int], ...] = ()
    otherwise: int | None = None

    def add(self, rule: Rule) -> None:
        if rule.arguments:
            self.compared += ((rule.arguments, rule.action),)
        elif self.otherwise is None or _strictness(rule.action) > _strictness(self.otherwise):
            self.otherwise = rule.action

    def code(self, default: int) -> tuple[bytes, ...]:
        otherwise = default if self.otherwise is None else self.otherwise
        code: bpf.Block = []
        for arguments, action in self.compared:
            then = bpf.ret(action)
            for argument in reversed(arguments):
                offset = 16 + 8 * argument.index
                then = bpf.compare(offset, argument.operator, argument.value, argument.value_two, then)
            code += then
        return (*code, *bpf.ret(otherwise))


def _one_machine(default: int, rules: Sequence[Rule], machine: str) -> bpf.Block:
    numbers = syscall_numbers()[machine]
    calls: dict[int, _Call] = {}
    for rule in rules:
        for name in rule.names:
            if name in numbers:
                calls.setdefault(numbers[name], _Call()).add(rule)
    code = bpf.load(0)
    tree = _tree(_intervals({number: call.code(default) for number, call in calls.items()}, (*bpf.ret(default),)))
    if machine == "x86_64":
        return code + bpf.at_least(c.X32_SYSCALL_BIT, bpf.ret(c.SECCOMP_RET_ERRNO | errno.ENOSYS), tree)
    return code + tree


def _intervals(codes: Mapping[int, tuple[bytes, ...]], gap: tuple[bytes, ...]) -> list[tuple[int, tuple[bytes, ...]]]:
    """Neighbouring numbers with the same code joined: (first number, code), from 0 to the end of all numbers."""
    found: list[tuple[int, tuple[bytes, ...]]] = []
    following = 0
    for number in sorted(codes):
        wanted = [(following, gap), (number, codes[number])] if number > following else [(number, codes[number])]
        for start, code in wanted:
            if not found or found[-1][1] != code:
                found.append((start, code))
        following = number + 1
    if not found or found[-1][1] != gap:
        found.append((following, gap))
    return found


def _tree(intervals: Sequence[tuple[int, tuple[bytes, ...]]]) -> bpf.Block:
    """Find the interval that the accumulator lies in, by halves."""
    if len(intervals) == 1:
        return list(intervals[0][1])
    middle = len(intervals) // 2
    return bpf.at_least(intervals[middle][0], _tree(intervals[middle:]), _tree(intervals[:middle]))
