"""Evidence in, Decision out: the values between what was found and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Generic, TypeVar

from ocispec.digest import Digest
from policy.statements import (
    Clearance,
    ConfigFacts,
    ImageApproval,
    LayerApproval,
    ListDate,
    ResolvedUser,
    RevocationList,
    Role,
    Waiver,
    Withdrawal,
)
from scanner.model import Component, DataSource, Finding, OperatingSystem, Unknown


class State(StrEnum):
    """The states of an image (trust.md, States)."""

    QUARANTINED = "quarantined"
    CLEARED = "cleared"
    WARNING = "warning"
    GRACE = "grace"
    DENIED = "denied"
    REVOKED = "revoked"

    @property
    def may_start(self) -> bool:
        """True in the states in which hosts are served the image."""
        return self in {State.CLEARED, State.WARNING, State.GRACE}


S_co = TypeVar("S_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signer:
    """Who signed: a key of trust.json, and the person or build that it belongs to."""

    key: str
    role: Role
    owner: str
    levels: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed(Generic[S_co]):
    """A statement whose signatures were verified against trust.json; made by `trust.py` alone.

    `digest` is of the payload, `envelope` the DSSE bytes as received.
    """

    statement: S_co
    signers: tuple[Signer, ...]
    digest: Digest
    envelope: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedStatement:
    """A statement that was offered and not believed: it never counts, and the Decision shows it."""

    digest: Digest
    code: str
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileChange:
    """A path of a lower layer that layer `layer` replaced, removed, or gave another owner or mode.

    `kind` is `replaced`, `removed` or `metadata`; `owner` the purl of the component that owned the lower file, or "".
    """

    path: str
    layer: int
    lower_layer: int
    kind: str
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """One layer as the rules see it, lowest first."""

    diff_id: Digest
    chain_id: Digest
    size: int
    writes_package_database: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFacts:
    """What identifies an image and steers its process."""

    registry: str
    repository: str
    manifest: Digest
    config: Digest
    platform: str
    layers: tuple[LayerFacts, ...]
    root_index: Digest
    reader: int
    format: int
    config_facts: ConfigFacts
    user: ResolvedUser | None
    created: str
    first_seen: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Everything that a Decision rests on; `now` included, so that it can be taken again later.

    `changes` beyond a bound are cut, and then `changes_truncated` is true and counts as Unknown. `errors` are
    parts of the scan that failed: each is Unknown.
    """

    image: ImageFacts
    operating_system: OperatingSystem | None
    components: tuple[Component, ...]
    findings: tuple[Finding, ...]
    unknowns: tuple[Unknown, ...]
    changes: tuple[FileChange, ...]
    changes_truncated: bool
    image_approvals: tuple[Signed[ImageApproval], ...]
    layer_approvals: tuple[Signed[LayerApproval], ...]
    waivers: tuple[Signed[Waiver], ...]
    revocations: Signed[RevocationList] | None
    rejected: tuple[RejectedStatement, ...]
    data: tuple[DataSource, ...]
    scanner_version: str
    errors: tuple[str, ...]
    now: datetime
    withdrawals: tuple[Signed[Withdrawal], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """What somebody asks a host to do with a cleared image; memory in bytes, None = no limit asked.

    `mounts` are the sources of host mounts (absolute paths); those also in `writable_mounts` or
    `executable_mounts` are asked for without read-only or noexec. `capabilities` are names like `CAP_CHOWN`.
    """

    memory: int | None = None
    pids: int | None = None
    cpus_milli: int | None = None
    network: str = "none"
    mounts: tuple[str, ...] = ()
    capabilities: tuple[str, ...] = ()
    user_override: bool = False
    command_override: bool = False
    writable: bool = False
    writable_mounts: tuple[str, ...] = ()
    executable_mounts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What the starting host knows by itself.

    `highest_time` is the highest signed time that it has seen, None on a fresh host. `floor` is the lowest
    version that it accepts of the policy that the clearance names, `policies` the names in trust.json.
    `list_number` is the highest number of a revocation list that it has seen, 0 for none.
    """

    platform: str
    policies: tuple[str, ...]
    floor: int = 0
    highest_time: datetime | None = None
    list_number: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StartEvidence:
    """Everything that the start of one cleared image rests on; `now` included.

    `manifest` and `root_index` are what the host is about to mount. The approvals and waivers are the
    clearance's own, verified on this host.
    """

    clearance: Signed[Clearance]
    manifest: Digest
    root_index: Digest
    request: StartRequest
    host: HostFacts
    image_approvals: tuple[Signed[ImageApproval], ...]
    layer_approvals: tuple[Signed[LayerApproval], ...]
    waivers: tuple[Signed[Waiver], ...]
    revocations: Signed[RevocationList] | None
    list_date: Signed[ListDate] | None
    rejected: tuple[RejectedStatement, ...]
    now: datetime


class Outcome(StrEnum):
    """What a rule says of one subject. Unknown is enforced as Deny, but has its own reason."""

    ALLOW = "allow"
    DENY = "deny"
    UNKNOWN = "unknown"


class Note(StrEnum):
    """What an Allow is tied to: it stands, but somebody should know."""

    NONE = ""
    WARNING = "warning"
    GRACE = "grace"
    WAIVED = "waived"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One rule's word on one subject.

    `reason` is a stable code (`vulnerable-package`, `licence-not-allowed`, …), `message` one sentence for
    people. `subject` is a purl, a path, a digest or a config field; `layer` its layer or None. `fix` says what
    mends it, `waivable_by` which roles or levels may waive it ("" if none may). `waived_by` is the digest of
    the waiver that turned a denial into Allow. `until` ends a warning, grace or waiver. `note` says which of them an
    Allow is. `ids` are the advisory's id and aliases, which a waiver may name.
    """

    rule: str
    outcome: Outcome
    reason: str
    subject: str
    message: str
    layer: int | None = None
    fix: str = ""
    waivable_by: str = ""
    waived_by: str = ""
    until: datetime | None = None
    note: Note = Note.NONE
    ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """All verdicts on one image under one policy at one time.

    `level` is the level the image was approved for or reached, "" if none; `parent` the manifest digest of the
    approved parent, None for a base. `rests_on` are the digests of the approvals and waivers that it needed.
    `valid_until` is when the first of them, or a grace period, ends: a clearance must not outlive it.
    """

    state: State
    level: str
    parent: Digest | None
    verdicts: tuple[Verdict, ...]
    image: Digest
    policy_name: str
    policy_version: int
    policy: Digest
    evidence: Digest
    rests_on: tuple[Digest, ...]
    taken: datetime
    valid_until: datetime | None = None

    @property
    def allowed(self) -> bool:
        """True only if the state lets the image start."""
        return self.state.may_start

    @property
    def refusals(self) -> tuple[Verdict, ...]:
        """The verdicts that stand against it, in the policy's order of rules."""
        return tuple(verdict for verdict in self.verdicts if verdict.outcome is not Outcome.ALLOW)
