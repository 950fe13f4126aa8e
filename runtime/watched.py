"""What has to be known of a running container to judge whether it may go on, and its form on disk.

    <state>/containers/NAME/watched     written before its program runs; whoever takes the watch over reads it

It outlives the process that started the container, and may be read by a newer version of it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Final

from ocispec import fields
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from policy.settings import RunAction, RunningTerms, RunTerms
from policy.wire.members import Members
from runtime.changed import FileName
from runtime.errors import RequestError, StateError
from runtime.images import ImageRecord
from runtime.model import Bind, ContainerId
from runtime.store import Store
from runtime.wish import Wish

MAX_WATCHED: Final = 8 * 1024 * 1024
_CASES: Final = ("revoked", "denied", "expired")


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """The image that runs, the files it was mounted from, what was asked for, and what its policy did about running."""

    record: ImageRecord
    files: frozenset[FileName]
    wish: Wish
    running: RunningTerms


def encode(watched: Watched) -> bytes:
    """As it is kept."""
    wish = watched.wish
    terms: dict[str, RunTerms] = {name: getattr(watched.running, name) for name in _CASES}
    return json.dumps(
        {
            "version": "1",
            "registry": watched.record.registry,
            "repository": watched.record.repository,
            "manifest": str(watched.record.manifest),
            "files": [{"digest": str(digest), "inode": inode} for digest, inode in sorted(watched.files, key=str)],
            "running": {
                name: {"action": term.action.value, "after": int(term.after.total_seconds())}
                for name, term in terms.items()
            },
            "wish": {
                "name": str(wish.name),
                "arguments": list(wish.arguments),
                "entrypoint": list(wish.entrypoint) if wish.entrypoint is not None else None,
                "env": list(wish.env),
                "user": wish.user,
                "working_dir": wish.working_dir,
                "memory": wish.memory,
                "pids": wish.pids,
                "cpus_milli": wish.cpus_milli,
                "network": wish.network,
                "capabilities": list(wish.capabilities),
                "writable": wish.writable,
                "mounts": [asdict(mount) for mount in wish.mounts],
            },
        }
    ).encode()


def decode(raw: bytes, store: Store, *, what: str) -> Watched:
    """What `encode` wrote; `store` still has the image.

    Raises:
        StateError: it is damaged, or of another version, or the store has no such image.
        StoreError: the image's record is damaged.
    """
    try:
        members = parse_object(raw, what=what, max_bytes=MAX_WATCHED)
        Members({"version": members.get("version")}, what).fixed("version", "1")
        registry, repository = (fields.text(members, name, what=what) for name in ("registry", "repository"))
        record = store.find(registry, repository, Digest.parse(fields.text(members, "manifest", what=what)))
        if record is None:
            raise StateError(f"{what}: its image is not in the store")
        files = (_object(item, what) for item in fields.items(members, "files", what=what, limit=10_000))
        return Watched(
            record=record,
            files=frozenset(
                (Digest.parse(fields.text(file, "digest", what=what)), fields.integer(file, "inode", what=what))
                for file in files
            ),
            wish=_wish(_child(members, "wish", what), what),
            running=_terms(_child(members, "running", what), what),
        )
    except (SpecError, RequestError, ValueError) as error:
        raise StateError(f"{what}: {error}") from None


def _wish(members: dict[str, JsonValue], what: str) -> Wish:
    def texts(name: str) -> tuple[str, ...]:
        return fields.texts(members, name, what=what, limit=1_000_000)

    def text(name: str) -> str | None:
        return None if members.get(name) is None else fields.text(members, name, what=what)

    def number(name: str) -> int | None:
        return None if members.get(name) is None else fields.integer(members, name, what=what)

    mounts = (_object(item, what) for item in fields.items(members, "mounts", what=what, limit=10_000))
    return Wish(
        name=ContainerId(fields.text(members, "name", what=what)),
        arguments=texts("arguments"),
        entrypoint=None if members.get("entrypoint") is None else texts("entrypoint"),
        env=texts("env"),
        user=text("user"),
        working_dir=text("working_dir"),
        memory=number("memory"),
        pids=number("pids"),
        cpus_milli=number("cpus_milli"),
        network="host" if text("network") == "host" else "none",
        capabilities=texts("capabilities"),
        writable=fields.boolean(members, "writable", what=what),
        mounts=tuple(_bind(mount, what) for mount in mounts),
    )


def _bind(members: dict[str, JsonValue], what: str) -> Bind:
    flags = {name: fields.boolean(members, name, what=what) for name in ("read_only", "nosuid", "nodev", "noexec")}
    source, target = (fields.text(members, name, what=what) for name in ("source", "target"))
    return Bind(source=source, target=target, **flags)


def _terms(members: dict[str, JsonValue], what: str) -> RunningTerms:
    terms: dict[str, RunTerms] = {}
    for name in _CASES:
        term = _child(members, name, what)
        after = timedelta(seconds=fields.integer(term, "after", what=what))
        terms[name] = RunTerms(action=RunAction(fields.text(term, "action", what=what)), after=after)
    return RunningTerms(**terms)


def _child(members: dict[str, JsonValue], name: str, what: str) -> dict[str, JsonValue]:
    found = fields.child(members, name, what=what)
    if found is None:
        raise SpecError(f"{what}: {name} is missing")
    return found


def _object(item: JsonValue, what: str) -> dict[str, JsonValue]:
    if not isinstance(item, dict):
        raise SpecError(f"{what}: an entry is no object")
    return item
