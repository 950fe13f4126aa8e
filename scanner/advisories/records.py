"""The records of the advisory data as values; times are dates as YYYY-MM-DD, or "" where there is none."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from scanner.model import Severity


class RangeKind(StrEnum):
    """By which order a range's versions are compared (OSV schema, `affected[].ranges[].type`)."""

    ECOSYSTEM = "ECOSYSTEM"
    SEMVER = "SEMVER"
    GIT = "GIT"


class EventKind(StrEnum):
    """What happened at a version (OSV schema, `affected[].ranges[].events`)."""

    INTRODUCED = "introduced"
    FIXED = "fixed"
    LAST_AFFECTED = "last_affected"
    LIMIT = "limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One point on the timeline of a range."""

    kind: EventKind
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """A range of affected versions."""

    kind: RangeKind
    events: tuple[Event, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Affected:
    """What an advisory says of one package: affected where a range or the list of versions holds the version.

    `wont_fix` is true only where the vendor says that there will be no fix.
    """

    ecosystem: str
    name: str
    ranges: tuple[Range, ...] = ()
    versions: tuple[str, ...] = ()
    severity: Severity = Severity.NONE
    wont_fix: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """One OSV record. `aliases` name the same vulnerability, `upstream` those that it is about (several, often).

    `modified` is a whole RFC 3339 time: of two records with one id, the later one counts.
    """

    id: str
    modified: str
    published: str = ""
    withdrawn: str = ""
    summary: str = ""
    aliases: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    severity: Severity = Severity.NONE
    affected: tuple[Affected, ...] = ()

    @property
    def names(self) -> frozenset[str]:
        """The ids that mean this very vulnerability: its own, its aliases, and the CVE that a record was made of.

        A distribution that tracks each CVE by itself may not call it an alias (OSV schema, `upstream`), but says
        it in the id: `DEBIAN-CVE-2025-48384`. A record with several upstream ids is none of them.
        """
        same = {cve for cve in self.upstream if self.id.endswith(f"-{cve}")} if len(self.upstream) == 1 else set()
        return frozenset({self.id, *self.aliases, *same})


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenRecord:
    """A record that could not be read, for a package that it names: what it says of it is not known."""

    id: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploited:
    """An entry of CISA's KEV catalogue."""

    cve: str
    added: str
    due: str = ""
    ransomware: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle:
    """A release cycle of a product: its name (`3.2`, `13`) and when it ends or ended.

    `ended` is true where the source says that it has ended without saying when.
    """

    product: str
    name: str
    codename: str = ""
    eol: str = ""
    ended: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """A product of the end-of-life data; `identifiers` are purls without version."""

    name: str
    label: str
    category: str
    identifiers: tuple[str, ...]
    cycles: tuple[Cycle, ...]
