"""The operating system of an image: os-release(5) of the merged tree."""

from __future__ import annotations

import re
import shlex

from scanner.model import OperatingSystem, Unknown
from scanner.view import ImageView, Placed

_PLACES = (b"etc/os-release", b"usr/lib/os-release")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)
_CODENAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/ -]{0,63}", re.ASCII)


def operating_system(view: ImageView) -> tuple[OperatingSystem | None, tuple[Unknown, ...]]:
    """What os-release says, and what is wrong with it.

    etc/os-release counts, as os-release(5) has it, and usr/lib/os-release where that is missing. Where both
    are there and name different systems, nobody can tell which advisories apply (L6).
    """
    found = [placed for placed in map(view.record, _PLACES) if placed is not None]
    if not found:
        return None, ()
    system = _read(found[0])
    if system is None:
        detail = "it names no system: expected ID=, in lower-case letters, digits, dots, dashes"
        return None, (_unknown(found[0], detail),)
    other = _read(found[-1])
    if other is None or (other.id, other.version_id) != (system.id, system.version_id):
        detail = f"it says {_names(system)}, and {found[-1].location} says {_names(other) if other else 'nothing'}"
        return system, (_unknown(found[0], detail),)
    return system, ()


def _unknown(placed: Placed, detail: str) -> Unknown:
    return Unknown(code="no-operating-system", subject=placed.location, detail=detail, layer=placed.layer)


def _names(system: OperatingSystem) -> str:
    return f"{system.id} {system.version_id}".strip()


def _read(placed: Placed) -> OperatingSystem | None:
    values: dict[str, str] = {}
    for line in placed.record.text.splitlines():
        name, equals, value = line.strip().partition("=")
        if equals and not name.startswith("#"):
            values[name] = _unquoted(value)
    if _WORD.fullmatch(values.get("ID", "")) is None:
        return None
    version = values.get("VERSION_ID", "")
    codename = values.get("VERSION_CODENAME", "")
    return OperatingSystem(
        id=values["ID"],
        version_id=version if _WORD.fullmatch(version) else "",
        codename=codename if _CODENAME.fullmatch(codename) else "",
        pretty_name="".join(char for char in values.get("PRETTY_NAME", "")[:120] if char.isprintable()),
        layer=placed.layer,
    )


def _unquoted(value: str) -> str:
    # os-release(5): shell-compatible assignments, without expansion.
    try:
        return "".join(shlex.split(value)[:1])
    except ValueError:
        return ""
