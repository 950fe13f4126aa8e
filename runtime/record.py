"""What is known of one container, and its form on disk: canonical enough for a file that only we write and read."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Literal

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from runtime.errors import RequestError, StateError
from runtime.linux.cgroups import Group, find_hierarchies
from runtime.model import ContainerId, Shown, StopReason

MAX_STATE = 1024 * 1024
"""Bytes of a state file; a command line may be long."""

Status = Literal["starting", "running", "exited"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """What is known of one container. Times are RFC 3339 in UTC, empty while they are not known."""

    name: ContainerId
    status: Status
    created: str
    started: str = ""
    finished: str = ""
    pid: int = 0
    """Of its first process, in the host's namespace; 0 once it is gone."""
    pid_start: int = 0
    """Start time of that process in clock ticks: a pid alone may be another process's by now."""
    supervisor: int = 0
    exit_code: int | None = None
    reason: StopReason | None = None
    argv: tuple[str, ...] = ()
    shown: Shown = field(default_factory=Shown)
    hostname: str = ""
    network: str = ""
    memory: int | None = None
    pids: int | None = None
    cpu: int | None = None
    stop_signal: int = 15
    stop_grace: float = 10.0
    cgroup_parent: str = ""
    cgroup: str = ""
    """The name of its cgroups below that; empty: the container's own."""
    detached: bool = False
    keep: bool = False

    @property
    def group(self) -> Group:
        """Its cgroups."""
        return Group(hierarchies=find_hierarchies(), parent=self.cgroup_parent, name=self.cgroup or str(self.name))


def to_json(container: Container) -> bytes:
    """The bytes of the state file."""
    shown, reason = container.shown, container.reason
    return json.dumps(
        {
            "status": container.status,
            "created": container.created,
            "started": container.started,
            "finished": container.finished,
            "pid": container.pid,
            "pid_start": container.pid_start,
            "supervisor": container.supervisor,
            "exit_code": container.exit_code,
            "reason": None if reason is None else {"code": reason.code, "message": reason.message},
            "argv": container.argv,
            "image": shown.image,
            "digest": shown.digest,
            "level": shown.level,
            "notes": shown.notes,
            "hostname": container.hostname,
            "network": container.network,
            "memory": container.memory,
            "pids": container.pids,
            "cpu": container.cpu,
            "stop_signal": container.stop_signal,
            "stop_grace_ms": round(container.stop_grace * 1000),
            "cgroup_parent": container.cgroup_parent,
            "cgroup": container.cgroup,
            "detached": container.detached,
            "keep": container.keep,
        }
    ).encode()


def from_json(name: ContainerId, raw: bytes) -> Container:
    """The container that a state file tells of.

    Raises:
        StateError: the file is damaged.
    """
    try:
        return _from_json(name, parse_object(raw, what=f"state of {name}", max_bytes=MAX_STATE))
    except (SpecError, RequestError) as error:
        raise StateError(str(error)) from error


def _from_json(name: ContainerId, members: dict[str, JsonValue]) -> Container:
    what = f"state of {name}"

    def text(key: str) -> str:
        return fields.text(members, key, what=what)

    def number(key: str) -> int:
        return fields.integer(members, key, what=what)

    def maybe(key: str) -> int | None:
        return None if members.get(key) is None else number(key)

    reason = fields.child(members, "reason", what=what)
    return Container(
        name=name,
        status=_status(text("status"), what),
        created=text("created"),
        started=text("started"),
        finished=text("finished"),
        pid=number("pid"),
        pid_start=number("pid_start"),
        supervisor=number("supervisor"),
        exit_code=maybe("exit_code"),
        reason=None if reason is None else _reason(reason),
        argv=fields.texts(members, "argv", what=what, limit=1_000_000),
        shown=Shown(
            image=text("image"),
            digest=text("digest"),
            level=text("level"),
            notes=fields.texts(members, "notes", what=what),
        ),
        hostname=text("hostname"),
        network=text("network"),
        memory=maybe("memory"),
        pids=maybe("pids"),
        cpu=maybe("cpu"),
        stop_signal=number("stop_signal"),
        stop_grace=number("stop_grace_ms") / 1000,
        cgroup_parent=str(ContainerId(text("cgroup_parent"))),
        cgroup=_group_name(text("cgroup")),
        detached=fields.boolean(members, "detached", what=what),
        keep=fields.boolean(members, "keep", what=what),
    )


def _group_name(text: str) -> str:
    """A name as the broker gives them to groups (`_` and a container's name), or none."""
    return f"_{ContainerId(text.removeprefix('_'))}" if text else ""


def _status(text: str, what: str) -> Status:
    match text:
        case "starting" | "running" | "exited":
            return text
    raise SpecError(f"{what}: status {text[:40]!r} is unknown")


def reason_to_json(reason: StopReason) -> bytes:
    """The bytes of a stop file."""
    return json.dumps({"code": reason.code, "message": reason.message}).encode()


def reason_from_json(raw: bytes) -> StopReason:
    """The reason that a stop file holds.

    Raises:
        StateError: the file is damaged.
    """
    try:
        return _reason(parse_object(raw, what="stop", max_bytes=MAX_STATE))
    except SpecError as error:
        raise StateError(str(error)) from error


def _reason(members: dict[str, JsonValue]) -> StopReason:
    what = "reason"
    return StopReason(
        code=fields.text(members, "code", what=what, default=""),
        message=fields.text(members, "message", what=what, default=""),
    )
