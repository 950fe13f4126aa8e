"""Which advisory data speak of a component, and in which order of versions.

OSV's ecosystem names (schema, `affected[].package`): `Debian:13`, `Ubuntu:24.04:LTS`, `PyPI`. Distributions' data
name source packages and their versions; a range of an upstream project is never applied to a deb version
(matching.md, case 1).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from scanner.model import Component, OperatingSystem
from scanner.versions.dpkg import DpkgOrder
from scanner.versions.interface import VersionOrder
from scanner.versions.pep440 import Pep440Order

DPKG: Final[VersionOrder] = DpkgOrder()
PEP440: Final[VersionOrder] = Pep440Order()

ORDERS: Final[Mapping[str, VersionOrder]] = {"deb": DPKG, "pypi": PEP440}
"""The version order of each component type."""

_FOREIGN: Final[Mapping[str, str]] = {
    r"\+rp[it]\d": "Raspberry Pi OS",
    r"ubuntu\d": "Ubuntu",
    r"\+esm\d": "Ubuntu Pro",
    r"\.pgdg\d": "the PostgreSQL project",
    r"\bkali\d": "Kali",
    r"\bparrot\d": "Parrot",
}
_FOREIGN_PATTERN: Final = {name: re.compile(pattern, re.ASCII) for pattern, name in _FOREIGN.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Where to look a component up: `ecosystems`, the first of which must have records; name and version there."""

    ecosystems: tuple[str, ...]
    name: str
    version: str
    order: VersionOrder


def distribution(system: OperatingSystem | None) -> tuple[str, ...]:
    """The OSV ecosystems of a distribution's release; empty where there is none that we can match.

    Testing and unstable have no VERSION_ID: their fixes cannot be told from a stable release's.
    """
    if system is None or not system.version_id:
        return ()
    if system.id == "debian":
        return (f"Debian:{system.version_id.partition('.')[0]}", "Debian")
    if system.id == "ubuntu":
        year, _, month = system.version_id.partition(".")
        lts = ":LTS" if month == "04" and year.isdigit() and int(year) % 2 == 0 else ""
        return (f"Ubuntu:{system.version_id}{lts}",)
    return ()


def scope(component: Component, system: OperatingSystem | None) -> Scope | None:
    """Where to look `component` up, or None where no data that we know speak of it."""
    if component.type == "pypi":
        # "2.0.0+cpu" is a build of 2.0.0 and has its holes: specifiers ignore the local part as well (PEP 440).
        public = component.version.partition("+")[0]
        return Scope(ecosystems=("PyPI",), name=component.name, version=public, order=PEP440)
    if component.type == "deb" and (ecosystems := distribution(system)):
        return Scope(
            ecosystems=ecosystems,
            name=component.source or component.name,
            version=component.source_version or component.version,
            order=DPKG,
        )
    return None


def foreign_origin(component: Component, system: OperatingSystem | None) -> str:
    """Who else built a deb than the image's distribution, as its version tells; "" if nobody.

    A vendor's epoch or suffix sorts above every fix of the distribution and hides it (matching.md, case 1).
    """
    if component.type != "deb" or system is None or system.id not in {"debian", "ubuntu"}:
        return ""
    own = {"ubuntu": {"Ubuntu", "Ubuntu Pro"}}.get(system.id, set())
    version = component.source_version or component.version
    found = (name for name, pattern in _FOREIGN_PATTERN.items() if name not in own and pattern.search(version))
    return next(found, "")
