"""Logins that other clients keep: docker, podman, buildah, skopeo, oras and their kin share one form of file.

    {"auths": {"registry.example:5000": {"auth": "<base64 of name:secret>"}}, "credHelpers": {"HOST": "NAME"}}

The first file that names the registry counts: $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json,
~/.config/containers/auth.json, $DOCKER_CONFIG/config.json, ~/.docker/config.json (containers-auth.json(5)). A
credential helper is asked where the file names one for this registry or for all. Nothing is ever written there.
"""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from pratique.exits import CommandError

MAX_FILE: Final = 1 << 20
MAX_SECRET: Final = 64 * 1024
HELPER_SECONDS: Final = 30.0
"""A helper may ask its user for a password."""

_HELPER: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_NOT_FOUND: Final = "credentials not found"
"""What a helper says on standard output when it has none (docker-credential-helpers, "protocol")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A name and its secret."""

    name: str
    secret: str = field(repr=False)


def find(registry: str) -> Login | None:
    """What other clients would log in to `registry` with; None if they would not.

    Raises:
        CommandError: a file or a helper cannot be used.
    """
    for path in files():
        try:
            with path.open("rb") as file:
                raw = file.read(MAX_FILE + 1)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue
        try:
            found = _find(parse_object(raw, what=str(path), max_bytes=MAX_FILE), registry, str(path))
        except SpecError as error:
            raise CommandError(f"logins: {error}") from error
        if found is not None:
            return found
    return None


def files() -> Iterator[Path]:
    """Where logins may be, in the order in which they count."""
    environment, home = os.environ, Path.home()
    if override := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(override)
        return
    if run := environment.get("XDG_RUNTIME_DIR"):
        yield Path(run) / "containers" / "auth.json"
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _find(members: dict[str, JsonValue], registry: str, what: str) -> Login | None:
    helpers = fields.text_map(members, "credHelpers", what=what)
    store = fields.text(members, "credsStore", what=what, default="")
    if helper := helpers.get(registry) or store:
        found = _ask(helper, registry)
        if found is not None:
            return found
    auths = fields.child(members, "auths", what=what) or {}
    for key in (registry, f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/"):
        entry = auths.get(key)
        if isinstance(entry, dict) and entry.get("auth"):
            return _decode(fields.text(entry, "auth", what=f"{what}: auths[{key}]"), f"{what}: auths[{key}]")
    return None


def _decode(encoded: str, what: str) -> Login:
    try:
        name, colon, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:
        raise SpecError(f"{what}: auth is not base64") from None
    if not colon or not name or not secret:
        raise SpecError(f"{what}: auth is no name and secret")
    return Login(name=name, secret=secret.rstrip("\0"))


def _ask(helper: str, registry: str) -> Login | None:
    """What `docker-credential-HELPER get` answers."""
    if _HELPER.fullmatch(helper) is None:
        raise SpecError(f"credential helper {helper[:80]!r}: expected letters, digits, dots and dashes")
    name = f"docker-credential-{helper}"
    program = shutil.which(name)
    if program is None:
        raise SpecError(f"credential helper {name}: not on PATH")
    try:
        done = subprocess.run(
            [program, "get"],
            input=registry.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=HELPER_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SpecError(f"credential helper {name}: {error}") from None
    if done.returncode != 0:
        if _NOT_FOUND in done.stdout[:4096].decode(errors="replace").lower():
            return None
        raise SpecError(f"credential helper {name}: ended with {done.returncode}")
    answer = parse_object(done.stdout, what=name, max_bytes=MAX_SECRET)
    login = Login(name=fields.text(answer, "Username", what=name), secret=fields.text(answer, "Secret", what=name))
    if login.name == "<token>":
        raise SpecError(f"credential helper {name}: has an identity token, expected a name and its secret")
    return login if login.name and login.secret else None
