"""Read a seccomp profile in the form that docker and podman share.

Strict: an unknown member, action, operator or error is refused, for a profile that is not understood is not
in force. Field meanings: containers/common, pkg/seccomp; the runtime specification, config-linux.md.
"""

from __future__ import annotations

import errno
from functools import lru_cache
from pathlib import Path
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from runtime.errors import RequestError
from runtime.linux import constants as c
from runtime.linux.seccomp import Argument, Condition, Profile, Rule

MAX_PROFILE: Final = 1024 * 1024
"""Bytes of a profile that we read."""
_DATA: Final = Path(__file__).parent / "data"
_ARGUMENTS: Final = 6
_ACTIONS: Final = {
    "SCMP_ACT_ALLOW": c.SECCOMP_RET_ALLOW,
    "SCMP_ACT_LOG": c.SECCOMP_RET_LOG,
    "SCMP_ACT_ERRNO": c.SECCOMP_RET_ERRNO,
    "SCMP_ACT_TRAP": c.SECCOMP_RET_TRAP,
    "SCMP_ACT_KILL": c.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_THREAD": c.SECCOMP_RET_KILL_THREAD,
    "SCMP_ACT_KILL_PROCESS": c.SECCOMP_RET_KILL_PROCESS,
}
_OPERATORS: Final = frozenset(f"SCMP_CMP_{name}" for name in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"))


@lru_cache(maxsize=1)
def default_profile() -> Profile:
    """The shared profile, and our additions to it."""
    shared = parse_profile((_DATA / "seccomp.json").read_bytes())
    rules = _additions(parse_object((_DATA / "seccomp-additions.json").read_bytes(), what="seccomp additions"))
    return Profile(default=shared.default, rules=shared.rules + rules, companions=shared.companions)


def _additions(members: dict[str, JsonValue]) -> tuple[Rule, ...]:
    what = "seccomp additions"
    entries = _objects(members, "syscalls", what=what, limit=4096)
    return tuple(rule for entry in entries for rule in _rules(entry, what))


def parse_profile(raw: bytes) -> Profile:
    """Read a profile.

    Raises:
        RequestError: not the format, an unknown member, action or operator, or too large.
    """
    try:
        return _parse(parse_object(raw, what="seccomp profile", max_bytes=MAX_PROFILE))
    except SpecError as error:
        raise RequestError(str(error)) from error


def _parse(members: dict[str, JsonValue]) -> Profile:
    what = "seccomp profile"
    _only(members, {"defaultAction", "defaultErrnoRet", "defaultErrno", "archMap", "syscalls"}, what)
    companions: dict[str, tuple[str, ...]] = {}
    for entry in _objects(members, "archMap", what=what, limit=64):
        _only(entry, {"architecture", "subArchitectures"}, f"{what}: archMap")
        older = fields.texts(entry, "subArchitectures", what=what, limit=16)
        companions[fields.text(entry, "architecture", what=what)] = older
    return Profile(
        default=_action(members, ("defaultAction", "defaultErrnoRet", "defaultErrno"), what),
        rules=tuple(
            rule
            for number, entry in enumerate(_objects(members, "syscalls", what=what, limit=4096))
            for rule in _rules(entry, f"{what}: syscalls[{number}]")
        ),
        companions=companions,
    )


def _only(members: dict[str, JsonValue], known: set[str], what: str) -> None:
    if unknown := sorted(set(members) - known):
        raise SpecError(f"{what}: unknown member {unknown[0][:80]!r}")


def _objects(members: dict[str, JsonValue], name: str, *, what: str, limit: int) -> list[dict[str, JsonValue]]:
    found: list[dict[str, JsonValue]] = []
    for item in fields.items(members, name, what=what, limit=limit):
        if not isinstance(item, dict):
            raise SpecError(f"{what}: {name} holds something that is no object")
        found.append(item)
    return found


def _rules(entry: dict[str, JsonValue], what: str) -> list[Rule]:
    """One entry as rules: comparing one argument twice means either, and libseccomp wants it as two rules."""
    _only(entry, {"names", "name", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes"}, what)
    single = fields.text(entry, "name", what=what, default="")
    names = fields.texts(entry, "names", what=what, limit=4096) + ((single,) if single else ())
    arguments = [_argument(item, what) for item in _objects(entry, "args", what=what, limit=16)]
    alternatives = [tuple(arguments)]
    if len({argument.index for argument in arguments}) < len(arguments):
        alternatives = [(argument,) for argument in arguments]
    return [
        Rule(
            names=names,
            action=_action(entry, ("action", "errnoRet", "errno"), what),
            arguments=compared,
            includes=_condition(fields.child(entry, "includes", what=what), what),
            excludes=_condition(fields.child(entry, "excludes", what=what), what),
        )
        for compared in alternatives
    ]


def _action(members: dict[str, JsonValue], keys: tuple[str, str, str], what: str) -> int:
    action_key, number_key, name_key = keys
    action = fields.text(members, action_key, what=what)
    if action not in _ACTIONS:
        raise SpecError(f"{what}: action {action[:40]!r} is not one of {', '.join(_ACTIONS)}")
    if action != "SCMP_ACT_ERRNO":
        return _ACTIONS[action]
    name = fields.text(members, name_key, what=what, default="")
    number = members.get(number_key)
    if name:
        named = getattr(errno, name, None)
        if named is None or number not in (None, named):
            raise SpecError(f"{what}: {name_key} {name[:40]!r} does not name the error {number}")
        number = named
    if number is None:
        number = errno.EPERM
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 4096:
        raise SpecError(f"{what}: {number_key} {number!r} is not an error number")
    return c.SECCOMP_RET_ERRNO | number


def _argument(item: dict[str, JsonValue], what: str) -> Argument:
    _only(item, {"index", "value", "valueTwo", "op"}, what)
    numbers = [item.get(name, 0) for name in ("index", "value", "valueTwo")]
    operator = fields.text(item, "op", what=what)
    if operator not in _OPERATORS:
        raise SpecError(f"{what}: operator {operator[:40]!r} is unknown")
    checked: list[int] = []
    for number, limit in zip(numbers, (_ARGUMENTS, 2**64, 2**64), strict=True):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < limit:
            raise SpecError(f"{what}: argument {str(number)[:40]} is out of range")
        checked.append(number)
    return Argument(checked[0], operator, checked[1], checked[2])


def _condition(members: dict[str, JsonValue] | None, what: str) -> Condition:
    if not members:
        return Condition()
    _only(members, {"arches", "caps", "minKernel"}, what)
    version = fields.text(members, "minKernel", what=what, default="")
    return Condition(
        arches=frozenset(fields.texts(members, "arches", what=what, limit=64)),
        capabilities=frozenset(fields.texts(members, "caps", what=what, limit=64)),
        min_kernel=kernel_version(version) if version else None,
    )


def kernel_version(release: str) -> tuple[int, int]:
    """Major and minor of a release such as `6.12.101-1`.

    Raises:
        SpecError: it does not begin with two numbers.
    """
    major, _, rest = release.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not (major.isascii() and major.isdigit() and minor):
        raise SpecError(f"kernel version {release[:40]!r}: expected MAJOR.MINOR")
    return int(major), int(minor)
