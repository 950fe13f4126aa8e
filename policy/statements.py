"""The statements that people, builds and the registry sign: values only.

Each is an in-toto statement (v1) with a predicate type of its own, as canonical JSON (RFC 8785, no
floats) in a DSSE envelope; `wire.py` reads and writes them, `trust.py` decides whose signature counts.
Times are aware datetimes in UTC with whole seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from ocispec.digest import Digest
from policy.keys import PublicKey
from scanner.model import DataSource


class Role(StrEnum):
    """What a key may sign for (trust.md, Keys)."""

    ROOT = "root"
    OFFICER = "officer"
    TEAM = "team"
    REGISTRY = "registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedKey:
    """A key of trust.json, and what its holder may sign.

    `owner` is the person or build that holds it: a quorum counts owners, not keys. Of a registry's key it is
    the registry's name, and the key speaks for that registry alone. `levels` are those it may approve for
    (officer and team). It counts for statements issued from `not_before` on and before `not_after`, and until
    `not_after`.
    """

    key: PublicKey
    role: Role
    owner: str
    levels: tuple[str, ...] = ()
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyName:
    """A policy that hosts may believe, and how many officers must sign a version, or a floor, of it."""

    name: str
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustRoot:
    """trust.json: everybody's keys, signed by `root_threshold` of the root keys in it.

    `list_threshold` officers must sign a revocation list. `registries` are the names that may clear images.
    """

    version: int
    root_threshold: int
    list_threshold: int
    keys: tuple[TrustedKey, ...]
    policies: tuple[PolicyName, ...]
    registries: tuple[str, ...]
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigFacts:
    """The fields of an image config that steer the process (S11)."""

    user: str = ""
    env: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    working_dir: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageApproval:
    """An image, with its config and root index, is fit for a level.

    `root_index` is the digest of the EROFS root index that the signer built where the key is; `reader` and
    `format` are the versions that made it.
    """

    level: str
    manifest: Digest
    config: Digest
    config_facts: ConfigFacts
    diff_ids: tuple[Digest, ...]
    root_index: Digest
    reader: int
    format: int
    platform: str
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerApproval:
    """A single layer is fit for a level.

    With `chain_id` the approval holds only on top of exactly the layers below it; a layer that writes a
    package database needs that (L8). Without it, wherever a policy lets the layer stand.
    """

    level: str
    diff_id: Digest
    chain_id: Digest | None
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiver:
    """A signed exception: rule or advisory x component x scope, with an owner, a reason and an end.

    `rule` is a rule's name or `*`; `advisory` an advisory id or alias, or "" for any; `component` a purl glob
    or "" for any; `scope` a glob over `registry/repository`. `*` in `rule` together with "" in both others is
    refused: that would be no exception but a switch.
    """

    rule: str
    advisory: str
    component: str
    scope: str
    owner: str
    reason: str
    ticket: str
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawal:
    """An approval or waiver (named by the digest of its envelope's payload) no longer holds."""

    statement: Digest
    reason: str
    issued: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationList:
    """What may no longer start. Officers sign content and number; the registry re-dates (`ListDate`).

    `digests` are of manifests, configs, indexes, root indexes and signed statements; `layers` diff_ids;
    `components` purl globs; `keys` key ids.
    """

    number: int
    digests: tuple[Digest, ...]
    layers: tuple[Digest, ...]
    components: tuple[str, ...]
    keys: tuple[str, ...]
    reason: str
    issued: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ListDate:
    """The registry says: at `issued` this was the current revocation list; believe that until `expires`.

    `list` is the digest of the list's payload.
    """

    list: Digest
    number: int
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyStatement:
    """Officers publish a policy: the exact bytes of the document, its name and version."""

    name: str
    version: int
    document: bytes
    issued: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFloor:
    """Officers raise the floor: clearances under an older version of the policy no longer count."""

    name: str
    version: int
    issued: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class TagStatement:
    """The registry says which digest a tag serves; `number` rises with each move."""

    registry: str
    repository: str
    tag: str
    digest: Digest
    number: int
    issued: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexClearance:
    """The cleared platform children of an index, each with its own clearance."""

    registry: str
    repository: str
    index: Digest
    children: tuple[Digest, ...]
    issued: datetime
    expires: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditCheckpoint:
    """The registry says: its audit chain had `records` records, and `head` was the digest of the last."""

    registry: str
    records: int
    head: Digest
    issued: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedUser:
    """The config's user, looked up in the image's own passwd and group when it was cleared."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clearance:
    """The signed Decision over one platform manifest (SLSA Verification Summary Attestation v1).

    `approvals`, `waivers` and `policy` are the signed envelopes that it rests on, embedded whole, so that a
    stolen registry key alone clears nothing. `components` are the purls, for revocation by component.
    `policy_digest` is of the policy document's exact bytes; `evidence` names what the registry judged, for
    `pratique audit recompute`.
    """

    registry: str
    repository: str
    manifest: Digest
    config: Digest
    platform: str
    level: str
    state: str
    diff_ids: tuple[Digest, ...]
    chain_id: Digest
    root_index: Digest
    reader: int
    format: int
    user: ResolvedUser
    config_facts: ConfigFacts
    policy_name: str
    policy_version: int
    policy_digest: Digest
    evidence: Digest
    data: tuple[DataSource, ...]
    components: tuple[str, ...]
    policy: bytes
    approvals: tuple[bytes, ...]
    waivers: tuple[bytes, ...]
    issued: datetime
    expires: datetime


Statement = (
    TrustRoot
    | ImageApproval
    | LayerApproval
    | Waiver
    | Withdrawal
    | RevocationList
    | ListDate
    | PolicyStatement
    | PolicyFloor
    | TagStatement
    | IndexClearance
    | AuditCheckpoint
    | Clearance
)
