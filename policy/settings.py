"""A policy as values: what `load.py` made of a document, section by section.

The shapes that documents must have are in `vocabulary.py`; here is what the rest of the code reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from ocispec.digest import Digest
from policy.globs import Glob
from policy.statements import Role

if TYPE_CHECKING:
    from policy.model import Verdict
    from policy.rules.interface import View


class Action(StrEnum):
    """What a rule does about what it met."""

    ALLOW = "allow"
    WARN = "warn"
    DENY = "deny"


class Accepts(StrEnum):
    """Which kinds of approval bring an image to a level.

    `either`: the whole image, or each of its layers above the parent. `layers` and `both`: each layer must be
    approved by itself.
    """

    IMAGE = "image"
    LAYERS = "layers"
    EITHER = "either"
    BOTH = "both"


class Chain(StrEnum):
    """When a layer's approval must name its chain ID: where it writes a package database (L8), or always."""

    DATABASE = "database"
    ALWAYS = "always"


class ConfigField(StrEnum):
    """The fields of an image config that steer its process (S11)."""

    USER = "user"
    ENV = "env"
    ENTRYPOINT = "entrypoint"
    CMD = "cmd"
    WORKING_DIR = "working-dir"
    VOLUMES = "volumes"
    STOP_SIGNAL = "stop-signal"


@dataclass(frozen=True, slots=True)
class Quorum:
    """How many different owners of keys of each role must have signed; one owner counts once."""

    counts: tuple[tuple[Role, int], ...]

    def met_by(self, owners: Iterable[tuple[Role, str]]) -> bool:
        """True if different owners can be assigned to all places (Hall's condition over the roles)."""
        by_role: dict[Role, set[str]] = {}
        for role, owner in owners:
            by_role.setdefault(role, set()).add(owner)
        roles = list(self.counts)
        for subset in range(1, 1 << len(roles)):
            chosen = [pair for bit, pair in enumerate(roles) if subset >> bit & 1]
            able = set[str]().union(*(by_role.get(role, set()) for role, _ in chosen))
            if len(able) < sum(count for _, count in chosen):
                return False
        return bool(roles)

    def __str__(self) -> str:
        return " and ".join(f"{count} {role}{'s' if count > 1 else ''}" for role, count in self.counts)


def spell_quorums(alternatives: tuple[Quorum, ...]) -> str:
    """The alternatives for people: `2 officers, or 1 team`."""
    return ", or ".join(str(quorum) for quorum in alternatives) or "nobody"


@dataclass(frozen=True, slots=True, kw_only=True)
class TeamTerms:
    """Team keys whose owner fits `owner` count for images in these repositories (`registry/repository`)."""

    owner: Glob
    repositories: tuple[Glob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalTerms:
    """Whose approvals bring an image to a level; of the alternatives in `image` and `layers`, one must be met."""

    accepts: Accepts
    image: tuple[Quorum, ...]
    layers: tuple[Quorum, ...]
    chain: Chain
    max_age: timedelta | None
    teams: tuple[TeamTerms, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigTerms:
    """Which config fields may differ from the parent's without an approval that names the config."""

    may_change: tuple[ConfigField, ...]
    env_allow: tuple[Glob, ...]
    env_deny: tuple[Glob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A place in the hierarchy; `rank` is its position in the policy, lowest first."""

    name: str
    rank: int
    stands_on: tuple[str, ...]
    needs_parent: bool
    approval: ApprovalTerms
    config: ConfigTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class WaiverTerms:
    """Who may waive these rules, at which levels (none named: all), for how long at most."""

    rules: tuple[str, ...]
    levels: tuple[str, ...]
    by: tuple[Quorum, ...]
    max_duration: timedelta

    def __str__(self) -> str:
        return f"{spell_quorums(self.by)}, for {spell_duration(self.max_duration)} at most"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnknownTerms:
    """What to do about what the scanner could not tell; the first entry that fits decides, none: deny."""

    code: str
    action: Action
    levels: tuple[str, ...]
    subjects: tuple[Glob, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DataTerms:
    """A set of records that must have been used by the scan, imported at most `max_age` ago."""

    source: Glob
    max_age: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanTerms:
    """What a scan must be to be believed."""

    unknowns: tuple[UnknownTerms, ...]
    data: tuple[DataTerms, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearanceTerms:
    """How long a clearance holds, and when it is renewed while the image still passes."""

    lifetime: timedelta
    renew_after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationTerms:
    """How long a revocation list is current, and how long a host may go on without a newer one.

    `required`: the registry, too, decides nothing before there is a list.
    """

    lifetime: timedelta
    offline_grace: timedelta
    required: bool


class RunAction(StrEnum):
    """What a host does with a container that runs."""

    NOTHING = "nothing"
    WARN = "warn"
    FREEZE = "freeze"
    STOP = "stop"
    KILL = "kill"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTerms:
    """An action on what runs, taken `after` this time."""

    action: RunAction
    after: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningTerms:
    """What happens to what runs when its image is revoked or denied, or its clearance runs out."""

    revoked: RunTerms
    denied: RunTerms
    expired: RunTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTerms:
    """What a host may be asked for. Sizes in bytes; None caps nothing; an empty tuple allows none.

    `memory_default` and `pids_default` are what a host sets where a request names no limit. `mounts` are globs
    over host paths; a mount may be writable or executable only if the other two fit it as well.
    """

    levels: tuple[str, ...]
    platforms: tuple[str, ...]
    max_clearance_age: timedelta
    clock_tolerance: timedelta
    memory: int | None
    memory_default: int | None
    pids: int | None
    pids_default: int | None
    cpus_milli: int | None
    networks: tuple[str, ...]
    capabilities: tuple[str, ...]
    mounts: tuple[Glob, ...]
    writable_mounts: tuple[Glob, ...]
    executable_mounts: tuple[Glob, ...]
    writable: bool
    user_override: bool
    command_override: bool


Check = Callable[["View"], "Iterable[Verdict]"]
"""A compiled rule: everything that it has to say about one image. Silence means: nothing against it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One compiled rule of a policy; it applies at `levels`, at all if none is named."""

    name: str
    kind: str
    levels: frozenset[str]
    check: Check = field(compare=False, repr=False)

    def applies(self, level: str) -> bool:
        """True at this level; an image without a level is met by every rule."""
        return not self.levels or not level or level in self.levels


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """A whole policy; `digest` is of the document's exact bytes."""

    name: str
    version: int
    digest: Digest
    description: str
    levels: tuple[Level, ...]
    rules: tuple[Rule, ...]
    waivers: tuple[WaiverTerms, ...]
    scan: ScanTerms
    clearance: ClearanceTerms
    revocation: RevocationTerms
    running: RunningTerms
    start: StartTerms
    artifacts: tuple[Glob, ...]

    def level(self, name: str) -> Level | None:
        """The level of this name, None if the policy has none."""
        return next((level for level in self.levels if level.name == name), None)

    def waiver_terms(self, rule: str, level: str) -> WaiverTerms | None:
        """Who may waive `rule` at `level`; None if nobody may. The first entry that names the rule decides."""
        for terms in self.waivers:
            if rule in terms.rules and (not terms.levels or level in terms.levels):
                return terms
        return None

    def serves_artifact(self, media_type: str) -> bool:
        """True if hosts may get artifacts of this type that have no subject (trust.md, States)."""
        return any(glob.matches(media_type) for glob in self.artifacts)

    def clearance_ends(self, issued: datetime, valid_until: datetime | None) -> datetime:
        """When a clearance issued now ends: after its lifetime, or when the first thing it rests on does."""
        end = issued + self.clearance.lifetime
        return end if valid_until is None else min(end, valid_until)


def spell_duration(duration: timedelta) -> str:
    """The duration for people, in its largest whole unit: `7 days`, `90 minutes`."""
    seconds = int(duration.total_seconds())
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute"), (1, "second")):
        if seconds % size == 0:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    raise AssertionError("every whole number of seconds is a multiple of one")
