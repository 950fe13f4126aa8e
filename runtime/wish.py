"""What somebody asks for when starting an image, and what becomes of it: nothing here comes from the image.

A wish is first put to the start policy (`judged`), with the limits that the policy sets where none is named.
Then, with what the signed clearance says of the image, it becomes the request to the sandbox (`request`).
"""

from __future__ import annotations

import re
import signal
from dataclasses import dataclass, replace
from typing import Final

from policy import model
from policy.globs import any_of
from policy.settings import ConfigField, Level, StartTerms
from policy.statements import Clearance, ResolvedUser
from runtime.errors import RequestError
from runtime.model import MAX_ID, Bind, ContainerId, Network, Process, Root, Shown, StartRequest, Tmpfs

DEFAULT_PATH: Final = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where the image sets none, as docker and podman have it."""

MICROSECONDS_PER_MILLI: Final = 100
"""A thousandth of a processor, in microseconds of CPU in each runtime.model.CPU_PERIOD."""

_USER = re.compile(r"([0-9]{1,10})(?::([0-9]{1,10}))?", re.ASCII)
_REAL_TIME = re.compile(r"(?:SIG)?RTM(IN|AX)(?:([+-])([0-9]{1,2}))?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One start as it is asked for; sizes in bytes.

    `arguments` replace the image's Cmd, `entrypoint` its Entrypoint and Cmd. `env` are NAME=VALUE on top of the
    image's. `user` is `uid` or `uid:gid`: a name would have to be looked up in the image.
    """

    name: ContainerId
    arguments: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    user: str | None = None
    working_dir: str | None = None
    hostname: str = ""
    memory: int | None = None
    pids: int | None = None
    cpus_milli: int | None = None
    network: Network = "none"
    mounts: tuple[Bind, ...] = ()
    tmpfs: tuple[Tmpfs, ...] = ()
    capabilities: tuple[str, ...] = ()
    writable: bool = False
    upper_max: int | None = None
    init: bool = False
    stdin: bool = False
    keep: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no environment or no user id."""
        for entry in self.env:
            if entry.find("=") < 1:
                raise RequestError(f"environment entry {entry[:80]!r}: expected NAME=VALUE")
        if self.user is not None:
            _numbers(self.user)

    def limited(self, terms: StartTerms) -> Wish:
        """This wish with the policy's limits where it names none."""
        return replace(
            self,
            memory=self.memory if self.memory is not None else terms.memory_default,
            pids=self.pids if self.pids is not None else terms.pids_default,
        )

    def judged(self, level: Level | None) -> model.StartRequest:
        """What the start policy judges, for an image of `level`.

        A variable that the level lets a config change without approval is data; any other one may choose what
        runs, and is an override of the command, as is another working directory.
        """
        overrides = bool(self.arguments) or self.entrypoint is not None or self.working_dir is not None
        sources = tuple(dict.fromkeys(mount.source for mount in self.mounts))
        return model.StartRequest(
            memory=self.memory,
            pids=self.pids,
            cpus_milli=self.cpus_milli,
            network=self.network,
            mounts=sources,
            capabilities=self.capabilities,
            user_override=self.user is not None,
            command_override=overrides or not all(_is_data(entry, level) for entry in self.env),
            writable=self.writable,
            writable_mounts=tuple(mount.source for mount in self.mounts if not mount.read_only),
            executable_mounts=tuple(
                mount.source for mount in self.mounts if not (mount.noexec and mount.nosuid and mount.nodev)
            ),
        )

    def request(self, clearance: Clearance, root: Root, shown: Shown) -> StartRequest:
        """The request to the sandbox: the clearance's facts, with what was asked instead of them.

        Raises:
            RequestError: nothing to execute, or values that no process can have.
        """
        facts = clearance.config_facts
        if self.entrypoint is not None:
            argv = self.entrypoint + self.arguments
        else:
            argv = facts.entrypoint + (self.arguments or facts.cmd)
        user = _numbers(self.user) if self.user is not None else clearance.user
        return StartRequest(
            name=self.name,
            root=replace(root, writable=self.writable, upper_max=self.upper_max),
            process=Process(
                argv=argv,
                env=environment(facts.env, self.env, user.home),
                cwd=self.working_dir or facts.working_dir or "/",
                uid=user.uid,
                gid=user.gid,
                groups=user.groups,
                capabilities=self.capabilities,
                ambient=self.capabilities if user.uid else (),
            ),
            hostname=self.hostname,
            memory=self.memory,
            pids=self.pids,
            cpu=self.cpus_milli * MICROSECONDS_PER_MILLI if self.cpus_milli is not None else None,
            network=self.network,
            mounts=self.mounts,
            tmpfs=self.tmpfs,
            init=self.init,
            stdin=self.stdin,
            stop_signal=signal_number(facts.stop_signal),
            keep=self.keep,
            shown=shown,
        )


def environment(image: tuple[str, ...], asked: tuple[str, ...], home: str) -> tuple[str, ...]:
    """The whole environment: the image's in its order, replaced and followed by what was asked for.

    PATH and HOME are added where neither sets them.
    """
    variables = {entry.partition("=")[0]: entry for entry in (*image, *asked)}
    variables.setdefault("PATH", DEFAULT_PATH)
    variables.setdefault("HOME", f"HOME={home or '/'}")
    return tuple(variables.values())


def signal_number(text: str) -> int:
    """The number of a config's StopSignal: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`; SIGTERM where it is empty.

    Raises:
        RequestError: no such signal.
    """
    if not text:
        return int(signal.SIGTERM)
    if text.isascii() and text.isdigit() and len(text) <= 3 and 1 <= int(text) <= 64:
        return int(text)
    if (match := _REAL_TIME.fullmatch(text)) is not None:
        base = int(signal.SIGRTMIN if match[1] == "IN" else signal.SIGRTMAX)
        number = base + int(f"{match[2] or '+'}{match[3] or 0}")
        if int(signal.SIGRTMIN) <= number <= int(signal.SIGRTMAX):
            return number
    name = text.upper().removeprefix("SIG")
    known = {member.name.removeprefix("SIG"): int(member) for member in signal.Signals}
    if name not in known:
        raise RequestError(f"stop signal {text[:40]!r}: no such signal")
    return known[name]


def _is_data(entry: str, level: Level | None) -> bool:
    name = entry.partition("=")[0]
    if level is None or ConfigField.ENV not in level.config.may_change:
        return False
    return any_of(level.config.env_allow)(name) and not any_of(level.config.env_deny)(name)


def _numbers(text: str) -> ResolvedUser:
    match = _USER.fullmatch(text)
    if match is None or max(int(match[1]), int(match[2] or 0)) > MAX_ID:
        raise RequestError(f"user {text[:80]!r}: expected uid or uid:gid, numbers up to {MAX_ID}")
    return ResolvedUser(uid=int(match[1]), gid=int(match[2] or 0))
