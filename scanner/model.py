"""The scanner's values: what it found in an image, and what it could not tell.

What could not be read is part of the answer (`Unknown`), never left out: the policy treats it as not
allowed. All values turn into JSON and back in `codec.py`, the same way on every side.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Severity of an advisory; `NONE` means that its source names none."""

    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"
    NONE = "none"


class FixState(StrEnum):
    """What the advisory's source says of a fix (matching.md, case 7)."""

    FIXED = "fixed"
    NOT_FIXED = "not-fixed"
    WONT_FIX = "wont-fix"


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatingSystem:
    """What os-release(5) of the merged tree says, and the layer that wrote it."""

    id: str
    version_id: str = ""
    codename: str = ""
    pretty_name: str = ""
    layer: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A package found in an image.

    `purl` names it (package URL specification). `type` is the purl's type: `deb`, `pypi`. `source` is the
    source package that advisories of a distribution name, with its own version. `licences` is a valid SPDX
    expression, or "" where it is not known. `layer` is the index of the layer in which this version first
    appeared. `location` is the path of the record that it was read from. `owner` is the purl of the
    component that owns its files, where a distribution's package contains a language's package.
    `files` counts the regular files that it owns in the merged tree.
    """

    purl: str
    type: str
    name: str
    version: str
    source: str = ""
    source_version: str = ""
    licences: str = ""
    layer: int = 0
    location: str = ""
    owner: str = ""
    files: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Something that could not be told, and why; `code` is a stable word, `subject` a purl or path.

    Codes: `unreadable-record`, `unreadable-version`, `database-contradicts-files`, `unsupported-ecosystem`,
    `unowned-executable`, `no-operating-system`, `unreadable-licence`, `foreign-origin` (a deb of somebody else than
    the image's distribution), `no-end-of-life-date` (of the operating system). docs/scanner.md tells each.
    """

    code: str
    subject: str
    detail: str
    layer: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A component met by an advisory or an end-of-life date.

    `kind` is `advisory` or `end-of-life`. `id` is the advisory's own, `aliases` its other names (a waiver for
    one covers all), `upstream` the vulnerabilities that it bundles, if those are others (a waiver for one does
    not cover it). `fixed_in` is the version that mends it, "" if none. `exploited` is true where KEV lists
    it or one of `upstream`. `published`, `fixed_since` and `ended` are dates (YYYY-MM-DD) or "". `ended` may lie up
    to a year ahead, so that a policy can warn; `fixed_in` is then the next release that is maintained. `source`
    names the data (`Debian:13`). `suppressed` says why a match does not count (e.g. the owning distribution package's
    data decide), "" if it counts.
    """

    kind: str
    id: str
    purl: str
    layer: int
    summary: str = ""
    aliases: tuple[str, ...] = ()
    severity: Severity = Severity.NONE
    fix_state: FixState = FixState.NOT_FIXED
    fixed_in: str = ""
    exploited: bool = False
    published: str = ""
    fixed_since: str = ""
    ended: str = ""
    source: str = ""
    suppressed: str = ""
    upstream: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """A set of advisory, exploit or end-of-life records that a scan used; `date` is when it was imported (RFC 3339).

    `broken` counts its records that could not be read; `records` does not include them.
    """

    name: str
    digest: str
    date: str
    records: int
    broken: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What is in one image: a function of its layers, whatever the advisories say."""

    operating_system: OperatingSystem | None
    components: tuple[Component, ...]
    unknowns: tuple[Unknown, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An inventory judged by advisory data: the scanner's whole answer."""

    inventory: Inventory
    findings: tuple[Finding, ...]
    unknowns: tuple[Unknown, ...]
    data: tuple[DataSource, ...]
    scanner_version: str
