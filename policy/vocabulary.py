"""The vocabulary of policy documents: every section and setting, with its shape, meaning and default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from policy.globs import Glob
from policy.rules.config import DANGEROUS_VARIABLES
from policy.rules.interface import Draft
from policy.rules.scan_state import UNKNOWN_CODES
from policy.rules.table import RULE
from policy.settings import (
    Accepts,
    Action,
    ApprovalTerms,
    Chain,
    ClearanceTerms,
    ConfigField,
    ConfigTerms,
    DataTerms,
    Quorum,
    RevocationTerms,
    RunAction,
    RunningTerms,
    RunTerms,
    ScanTerms,
    StartTerms,
    TeamTerms,
    UnknownTerms,
    WaiverTerms,
)
from policy.shape import (
    GLOB,
    NAME,
    Boolean,
    Duration,
    Integer,
    ListOf,
    MapOf,
    Member,
    OneOf,
    Record,
    Size,
    Text,
    Word,
)
from policy.statements import Role

FORMAT: Final = "pratique-policy/1"
"""What a document must say it is; another number will be another vocabulary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LevelDraft:
    """A level as it was read; its rank is its place in the list."""

    name: str
    stands_on: tuple[str, ...]
    needs_parent: bool
    approval: ApprovalTerms
    config: ConfigTerms


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A policy as it was read, before its parts are checked against each other."""

    format: str
    name: str
    version: int
    description: str
    levels: tuple[LevelDraft, ...]
    rules: tuple[Draft[Any], ...]
    waivers: tuple[WaiverTerms, ...]
    scan: ScanTerms
    clearance: ClearanceTerms
    revocation: RevocationTerms
    running: RunningTerms
    start: StartTerms
    artifacts: tuple[Glob, ...]


def _quorum(counts: tuple[tuple[str, int], ...]) -> Quorum:
    return Quorum(tuple((Role(role), count) for role, count in counts))


@dataclass(frozen=True, slots=True)
class _QuorumShape:
    """How many owners of each role."""

    counts: MapOf[int]

    def parse(self, value: Any, where: str) -> Quorum:
        """See Shape."""
        return _quorum(self.counts.parse(value, where))

    def schema(self) -> dict[str, Any]:
        """See Shape."""
        return self.counts.schema()

    def name(self) -> str:
        """See Shape."""
        return "quorum, as `{officer: 2}`"


_QUORUM: Final = _QuorumShape(MapOf(("officer", "team"), Integer(1, 100), 1))
_QUORUMS: Final = ListOf(_QUORUM, most=10)
_LEVELS: Final = ListOf(NAME, most=64)
_RULE_NAMES: Final = ListOf(NAME, least=1, most=200)


def record(kind: Callable[..., Any], words: str, **members: Member) -> Record[Any]:
    """A Record, its members as keywords."""
    return Record(kind, members, words)


TEAM: Final = record(
    TeamTerms,
    "team",
    owner=Member(shape=GLOB, about="Owners of team keys, as trust.json names them."),
    repositories=Member(
        shape=ListOf(GLOB, least=1),
        about="Where their approvals count, as `registry/repository`.",
        default=("**",),
    ),
)

APPROVAL: Final = record(
    ApprovalTerms,
    "approvals",
    accepts=Member(
        shape=Word(Accepts),
        about="What must be approved: the whole `image`, each of its `layers` above the parent by itself, `either`, "
        "or `both`.",
    ),
    image=Member(
        shape=_QUORUMS,
        about="Whose approval of the whole image counts: one of these quorums of different owners must be met.",
        default=(),
    ),
    layers=Member(shape=_QUORUMS, about="The same for a single layer.", default=()),
    chain=Member(
        shape=Word(Chain),
        about="When the approval of a single layer must name the layers below it (their chain ID): where the layer "
        "writes a package `database`, or `always`.",
        default="database",
    ),
    max_age=Member(
        shape=Duration(), about="How old an approval may be, whatever end it has; not said: any age.", default=None
    ),
    teams=Member(
        shape=ListOf(TEAM),
        about="Which teams' approvals count at this level.",
        default=({"owner": "**"},),
    ),
)

CONFIG: Final = record(
    ConfigTerms,
    "config",
    may_change=Member(
        shape=ListOf(Word(ConfigField), most=len(ConfigField)),
        about="Fields that may differ from the parent's without an approval of the config. `user` never allows root.",
        default=(),
    ),
    env_allow=Member(shape=ListOf(GLOB), about="If `env` may change: variables that may, by name.", default=("**",)),
    env_deny=Member(
        shape=ListOf(GLOB),
        about="Variables that may not, even if allowed. If it is not said: those that choose code for the linker, for "
        "shells and for interpreters (`LD_*`, `PATH`, `PYTHON*`, `NODE_*`, `BASH_ENV` and so on).",
        default=DANGEROUS_VARIABLES,
    ),
)

LEVEL: Final = record(
    LevelDraft,
    "level",
    name=Member(shape=NAME, about="The level's name."),
    stands_on=Member(shape=_LEVELS, about="Levels that the parent may have: this one, or lower ones.", default=()),
    needs_parent=Member(
        shape=Boolean(), about="Whether an image of this level must stand on an approved one.", default=True
    ),
    approval=Member(shape=APPROVAL, about="Whose approvals bring an image to this level."),
    config=Member(shape=CONFIG, about="What the config may change.", default={}),
)

WAIVER: Final = record(
    WaiverTerms,
    "waiver term",
    rules=Member(shape=_RULE_NAMES, about="Rules that may be waived, by their names in this policy."),
    levels=Member(shape=_LEVELS, about="At which levels; if none is named, at all.", default=()),
    by=Member(shape=ListOf(_QUORUM, least=1, most=10), about="Who must sign: one of these quorums."),
    max_duration=Member(shape=Duration(), about="The longest time from a waiver's issue to its end."),
)

UNKNOWN: Final = record(
    UnknownTerms,
    "unknown",
    code=Member(shape=OneOf(UNKNOWN_CODES), about="What could not be told."),
    action=Member(shape=Word(Action), about="What to do about it."),
    levels=Member(shape=_LEVELS, about="At which levels; if none is named, at all.", default=()),
    subjects=Member(shape=ListOf(GLOB), about="For which paths or purls; if none is named, for all.", default=()),
)

DATA: Final = record(
    DataTerms,
    "data source",
    source=Member(shape=GLOB, about="The name of the records, as `pratique advisories status` shows it."),
    max_age=Member(shape=Duration(), about="How long ago they may have been imported."),
)

SCAN: Final = record(
    ScanTerms,
    "scan",
    unknowns=Member(
        shape=ListOf(UNKNOWN),
        about="What to do about what the scanner could not tell. The first entry that fits decides; without one: deny.",
        default=(),
    ),
    data=Member(shape=ListOf(DATA), about="Records that a scan must have used, and how old they may be.", default=()),
)

CLEARANCE: Final = record(
    ClearanceTerms,
    "clearance",
    lifetime=Member(shape=Duration(), about="How long a clearance holds.", default="7d"),
    renew_after=Member(
        shape=Duration(), about="After which time it is renewed, while the image still passes.", default="84h"
    ),
)

REVOCATION: Final = record(
    RevocationTerms,
    "revocation",
    lifetime=Member(shape=Duration(), about="How long a revocation list is current after it was dated.", default="24h"),
    offline_grace=Member(
        shape=Duration(), about="How long after that a host goes on without a newer one.", default="7d"
    ),
    required=Member(
        shape=Boolean(), about="Whether the registry decides nothing while there is no list at all.", default=True
    ),
)


def _run(about: str, action: str, after: str) -> Member:
    terms = record(
        RunTerms,
        "what happens to what runs",
        action=Member(shape=Word(RunAction), about="What the host does with the container."),
        after=Member(shape=Duration(), about="How long it waits before.", default="0s"),
    )
    return Member(shape=terms, about=about, default={"action": action, "after": after})


RUNNING: Final = record(
    RunningTerms,
    "running",
    revoked=_run("When its image, or what that stands on, is revoked.", "kill", "0s"),
    denied=_run("When its image is denied under newer data or a newer policy.", "warn", "0s"),
    expired=_run("When its clearance ran out and no newer one came.", "warn", "0s"),
)

_PLATFORM: Final = Text(
    100, "^[a-z0-9]+/[a-z0-9_]+(/[a-z0-9.]+)?$", "a platform as linux/amd64 or linux/arm/v7", short="platform"
)
_CAPABILITY: Final = Text(40, "^CAP_[A-Z_]+$", "a capability as CAP_CHOWN", short="capability")
_NETWORK: Final = Text(40, "^[a-z][a-z0-9-]*$", "a network as none or host", short="network")

START: Final = record(
    StartTerms,
    "start",
    levels=Member(shape=ListOf(NAME, least=1, most=64), about="Levels whose images may be started."),
    platforms=Member(
        shape=ListOf(_PLATFORM, least=1, most=64), about="Platforms that may be started.", default=("linux/amd64",)
    ),
    max_clearance_age=Member(shape=Duration(), about="How old a clearance may be, whatever end it has.", default="7d"),
    clock_tolerance=Member(
        shape=Duration(),
        about="How far a host's clock may be behind the highest signed time that it has seen.",
        default="5m",
    ),
    memory=Member(shape=Size(), about="The most memory that may be asked for; not said: any.", default=None),
    memory_default=Member(
        shape=Size(), about="What a host sets where none is asked for; not said: `memory`.", default=None
    ),
    pids=Member(shape=Integer(1, 4_000_000), about="The most processes and threads.", default=None),
    pids_default=Member(
        shape=Integer(1, 4_000_000),
        about="What a host sets where none is asked for; not said: `pids`.",
        default=None,
    ),
    cpus_milli=Member(shape=Integer(1, 10_000_000), about="The most CPU, in thousandths of one.", default=None),
    networks=Member(shape=ListOf(_NETWORK, least=1), about="Networks that may be asked for.", default=("none",)),
    capabilities=Member(shape=ListOf(_CAPABILITY), about="Capabilities that may be asked for.", default=()),
    mounts=Member(shape=ListOf(GLOB), about="Host paths that may be mounted, read-only and noexec.", default=()),
    writable_mounts=Member(shape=ListOf(GLOB), about="Those of them that may be mounted writable.", default=()),
    executable_mounts=Member(shape=ListOf(GLOB), about="Those of them from which programs may be run.", default=()),
    writable=Member(shape=Boolean(), about="Whether a writable overlay over the image may be asked for.", default=True),
    user_override=Member(
        shape=Boolean(), about="Whether another user than the image's may be asked for.", default=False
    ),
    command_override=Member(
        shape=Boolean(), about="Whether another command than the image's may be asked for.", default=False
    ),
)

DOCUMENT: Final = record(
    Document,
    "policy",
    format=Member(shape=OneOf((FORMAT,)), about="Which vocabulary the document is written in."),
    name=Member(shape=NAME, about="The policy's name; trust.json says who may sign it."),
    version=Member(shape=Integer(1, 2**31), about="Its version, which only rises."),
    description=Member(shape=Text(2000, least=0), about="What it is for.", default=""),
    levels=Member(shape=ListOf(LEVEL, least=1, most=64), about="The levels of the hierarchy, lowest first."),
    rules=Member(
        shape=ListOf(RULE, most=200),
        about="The rules, in the order in which refusals are shown. An empty list denies everything.",
    ),
    waivers=Member(
        shape=ListOf(WAIVER),
        about="Who may waive what. For a rule and level the first entry that fits decides; without one nobody may.",
        default=(),
    ),
    scan=Member(shape=SCAN, about="What a scan must be to be believed.", default={}),
    clearance=Member(shape=CLEARANCE, about="How long clearances hold.", default={}),
    revocation=Member(shape=REVOCATION, about="How long revocation lists hold.", default={}),
    running=Member(shape=RUNNING, about="What happens to what runs.", default={}),
    start=Member(shape=START, about="What hosts may be asked for."),
    artifacts=Member(
        shape=ListOf(GLOB),
        about="Types of artifacts without a subject that hosts may get, e.g. `application/vnd.cncf.helm.**`.",
        default=(),
    ),
)

BUILT_IN: Final = {
    "revocation": "What officers revoked may not run.",
    "hierarchy": "The image stands at a level, on an approved parent, with the approvals that the level wants.",
    "config": "What differs in the config from the parent's is approved, or allowed by the level.",
    "scan": "The scan ran to its end.",
    "unknowns": "What the scanner could not tell, by `scan.unknowns`.",
    "freshness": "The records that the scan used, by `scan.data`.",
}
"""The rules that every policy has, by the names under which verdicts and waivers know them."""

NEVER_WAIVED: Final = ("revocation", "scan", "policy")
"""Rules that no policy can make waivable."""
