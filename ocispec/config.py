"""The image config: image specification 1.1, config.md. What a container starts with, and the diff_ids.

The fields that steer the process (entrypoint, environment, user and so on) are content too: an image
with approved layers and another entrypoint is another image (S11). Labels never steer anything.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from ocispec import fields
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.platform import Platform
from ocispec.strictjson import JsonValue, parse_object

MAX_CONFIG = 4 * 1024 * 1024
"""Bytes of a config that we read (CVE-2023-25153: an importer without a limit)."""

_CREATED = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d{1,12})?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII)
"""RFC 3339, section 5.6: date-time."""

_NAMES = fields.fold(
    "created", "author", "architecture", "os", "os.version", "os.features", "variant", "config", "rootfs", "history"
)
_ROOTFS_NAMES = fields.fold("type", "diff_ids")
_RUN_NAMES = fields.fold(
    *("User", "ExposedPorts", "Env", "Entrypoint", "Cmd", "Volumes", "WorkingDir", "Labels", "StopSignal"),
    *("ArgsEscaped", "Healthcheck", "OnBuild", "Shell", "StopTimeout"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageConfig:
    """A parsed config; `raw` are the bytes that `digest` names. `created` is RFC 3339 text as written, or ""."""

    raw: bytes = field(repr=False)
    digest: Digest
    platform: Platform
    diff_ids: tuple[Digest, ...]
    created: str = ""
    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    stop_signal: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    history_count: int = 0

    @property
    def argv(self) -> tuple[str, ...]:
        """Entrypoint and Cmd joined: what runs if nobody says otherwise."""
        return self.entrypoint + self.cmd


def parse_config(raw: bytes, *, algorithm: str = "sha256") -> ImageConfig:
    """Return the config in `raw`; `algorithm` is that of the digest that named it.

    Raises:
        LimitError: larger than MAX_CONFIG, or too deep.
        SpecError: a member is missing, malformed, or there in another case.
    """
    digest = Digest.of(raw, algorithm)
    what = f"config {digest}"
    members = parse_object(raw, what=what, max_bytes=MAX_CONFIG)
    fields.refuse_variants(members, _NAMES, what=what)
    rootfs = fields.child(members, "rootfs", what=what)
    if rootfs is None:
        raise SpecError(f"{what}: rootfs is missing, expected an object")
    if (kind := fields.text(rootfs, "type", what=f"{what}: rootfs")) != "layers":
        raise SpecError(f"{what}: rootfs.type is {kind[:40]!r}, expected 'layers'")
    fields.refuse_variants(rootfs, _ROOTFS_NAMES, what=f"{what}: rootfs")
    run = fields.child(members, "config", what=what) or {}
    where = f"{what}: config"
    fields.refuse_variants(run, _RUN_NAMES, what=where)
    return ImageConfig(
        raw=raw,
        digest=digest,
        platform=Platform.from_json(members, what=what),
        diff_ids=tuple(
            Digest.parse(text) for text in fields.texts(rootfs, "diff_ids", what=f"{what}: rootfs", limit=512)
        ),
        created=_created(members, what),
        user=_no_nul(fields.text(run, "User", what=where, default=""), f"{where}: User"),
        env=_environment(fields.texts(run, "Env", what=where), f"{where}: Env"),
        entrypoint=_arguments(run, "Entrypoint", where),
        cmd=_arguments(run, "Cmd", where),
        working_dir=_no_nul(fields.text(run, "WorkingDir", what=where, default=""), f"{where}: WorkingDir"),
        volumes=_keys(run, "Volumes", where),
        exposed_ports=_keys(run, "ExposedPorts", where),
        stop_signal=_no_nul(fields.text(run, "StopSignal", what=where, default=""), f"{where}: StopSignal"),
        labels=tuple(sorted(fields.text_map(run, "Labels", what=where).items())),
        history_count=len(fields.items(members, "history", what=what, limit=10_000)),
    )


def chain_ids(diff_ids: Sequence[Digest]) -> tuple[Digest, ...]:
    """The chain ID of each layer with all below it (image specification, config.md, "Layer ChainID")."""
    chain: list[Digest] = []
    for diff_id in diff_ids:
        if not chain:
            chain.append(diff_id)
            continue
        joined = f"{chain[-1]} {diff_id}".encode()
        chain.append(Digest("sha256", hashlib.sha256(joined).hexdigest()))
    return tuple(chain)


def _created(members: dict[str, JsonValue], what: str) -> str:
    created = fields.text(members, "created", what=what, default="")
    if created and _CREATED.fullmatch(created) is None:
        raise SpecError(f"{what}: created is {created[:40]!r}, expected an RFC 3339 date-time")
    return created


def _no_nul(value: str, what: str) -> str:
    if "\0" in value:
        raise SpecError(f"{what}: holds a NUL, which no argument or path can")
    return value


def _arguments(run: dict[str, JsonValue], name: str, where: str) -> tuple[str, ...]:
    return tuple(_no_nul(argument, f"{where}: {name}") for argument in fields.texts(run, name, what=where))


def _environment(entries: tuple[str, ...], what: str) -> tuple[str, ...]:
    seen: set[str] = set()
    for entry in entries:
        name, equals, _ = _no_nul(entry, what).partition("=")
        if not equals or not name:
            raise SpecError(f"{what}: {entry[:80]!r} is not NAME=VALUE")
        if name in seen:
            # Programs differ in which of two values they see: getenv takes the first, shells the last.
            raise SpecError(f"{what}: {name[:80]!r} is set twice")
        seen.add(name)
    return entries


def _keys(run: dict[str, JsonValue], name: str, where: str) -> tuple[str, ...]:
    return tuple(sorted(_no_nul(key, f"{where}: {name}") for key in fields.child(run, name, what=where) or {}))
