"""The clearance: made by the registry's signer, proven by the host at every start, also offline.

`verify_clearance` proves who said what about which bytes. Whether the approvals are enough for the level
(quorum, hierarchy) and what the start policy allows is the evaluation's, on what is returned here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from ocispec.config import ImageConfig, chain_ids
from ocispec.digest import Digest
from policy.approve import config_facts
from policy.embedded import embedded_approvals, embedded_policy, proven, same_platform
from policy.errors import PolicyError, TrustError
from policy.hoststate import HostState, check_clock
from policy.model import Decision, ImageFacts, Signed, State
from policy.refusal import Refused
from policy.revocation import CurrentList, check_fresh, matches
from policy.statements import (
    Clearance,
    ConfigFacts,
    ImageApproval,
    LayerApproval,
    PolicyStatement,
    ResolvedUser,
    Statement,
    Waiver,
)
from policy.times import format_time, whole_seconds
from policy.trust import Trust, check_number, expiry, only
from scanner.model import DataSource

CLEARANCE_LIFETIME: Final = timedelta(days=7)
"""How long a clearance holds, unless a policy says otherwise (trust.md); renewed at half of it."""

MAX_CLEARANCE_LIFETIME: Final = timedelta(days=90)
"""The longest that a host lets a clearance hold, whatever a stolen registry key wrote into it."""

_STARTABLE: Final = frozenset(str(state) for state in State if state.may_start)


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a host is about to start, by its own digests. `platform` is the config's.

    `root_index` is the digest of the index that it wrote itself; None only while pulling, before that is
    written: the answer is then not `complete`, and nothing may start on it. `index` is the image index that
    the manifest was chosen from, for revocation. `user` is the config's user as the host resolved it in its
    confined child at pull; None where it did not, and then the registry's word stands for a named user.
    """

    registry: str
    repository: str
    manifest: Digest
    config: Digest
    diff_ids: tuple[Digest, ...]
    platform: str
    config_facts: ConfigFacts
    root_index: Digest | None
    index: Digest | None = None
    user: ResolvedUser | None = None

    @classmethod
    def of(
        cls,
        *,
        registry: str,
        repository: str,
        manifest: Digest,
        config: ImageConfig,
        root_index: Digest | None,
        index: Digest | None = None,
        user: ResolvedUser | None = None,
    ) -> Subject:
        """The subject that is the image of a parsed config, whose bytes the host hashed itself."""
        return cls(
            registry=registry,
            repository=repository,
            manifest=manifest,
            config=config.digest,
            diff_ids=config.diff_ids,
            platform=str(config.platform),
            config_facts=config_facts(config),
            root_index=root_index,
            index=index,
            user=user,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HostView:
    """What a host believes: its trust.json, its revocation list, its memory, and the (reader, format) it can write."""

    trust: Trust
    revocations: CurrentList | None
    state: HostState
    formats: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """A proven clearance with the proven statements in it.

    `until` is when the first of all that it rests on ends: statements, keys, trust.json, revocation list.
    `complete` is False where the root index was not compared yet. `list_stale` is True in the offline grace.
    """

    clearance: Signed[Clearance]
    policy: Signed[PolicyStatement]
    image_approvals: tuple[Signed[ImageApproval], ...]
    layer_approvals: tuple[Signed[LayerApproval], ...]
    waivers: tuple[Signed[Waiver], ...]
    trust: Digest
    revocations: Digest
    until: datetime
    complete: bool
    list_stale: bool

    @property
    def key(self) -> tuple[str, ...]:
        """What a cache of this result must be keyed by, if there is one: never a tag (S3)."""
        statement = self.clearance.statement
        parts = (statement.manifest, self.clearance.digest, statement.policy_digest, self.trust, self.revocations)
        return (*(str(part) for part in parts), format_time(self.until))


def make_clearance(
    *,
    image: ImageFacts,
    decision: Decision,
    policy: Signed[PolicyStatement],
    statements: Iterable[Signed[ImageApproval] | Signed[LayerApproval] | Signed[Waiver]],
    components: Sequence[str],
    data: Sequence[DataSource],
    issued: datetime,
    lifetime: timedelta = CLEARANCE_LIFETIME,
) -> Clearance:
    """The clearance that says what `decision` says; to be signed by the registry's key.

    Of `statements` those are embedded that the Decision rests on. It ends with the first of them, with the
    Decision's own end, or after `lifetime`. A fraction of a second of `issued` is cut off.

    Raises:
        PolicyError: the Decision does not allow the image, is about another one or another policy, rests on a
            statement that is not given or on no approval; or the image has no layer or no resolved user.
    """
    issued = whole_seconds(issued)
    _check_decision(image, decision, policy)
    needed = dict.fromkeys(decision.rests_on)
    given = {signed.digest: signed for signed in statements if signed.digest in needed}
    missing = next((digest for digest in needed if digest not in given), None)
    if missing is not None:
        raise PolicyError(f"clearance of {image.manifest}: rests on statement {missing}, which was not given")
    approvals = [signed for signed in given.values() if not isinstance(signed.statement, Waiver)]
    waivers = [signed for signed in given.values() if isinstance(signed.statement, Waiver)]
    if not approvals:
        raise PolicyError(f"clearance of {image.manifest}: rests on no approval")
    if image.user is None:
        raise PolicyError(f"clearance of {image.manifest}: its user was not resolved")
    if not image.layers:
        raise PolicyError(f"clearance of {image.manifest}: it has no layer")
    ends = [issued + lifetime, *(signed.statement.expires for signed in given.values())]
    if decision.valid_until is not None:
        ends.append(whole_seconds(decision.valid_until))
    diff_ids = tuple(layer.diff_id for layer in image.layers)
    return Clearance(
        registry=image.registry,
        repository=image.repository,
        manifest=image.manifest,
        config=image.config,
        platform=image.platform,
        level=decision.level,
        state=str(decision.state),
        diff_ids=diff_ids,
        chain_id=chain_ids(diff_ids)[-1],
        root_index=image.root_index,
        reader=image.reader,
        format=image.format,
        user=image.user,
        config_facts=image.config_facts,
        policy_name=decision.policy_name,
        policy_version=decision.policy_version,
        policy_digest=decision.policy,
        evidence=decision.evidence,
        data=tuple(data),
        components=tuple(components),
        policy=policy.envelope,
        approvals=tuple(signed.envelope for signed in sorted(approvals, key=lambda signed: signed.digest)),
        waivers=tuple(signed.envelope for signed in sorted(waivers, key=lambda signed: signed.digest)),
        issued=issued,
        expires=min(ends),
    )


def verify_clearance(envelope: bytes, *, subject: Subject, host: HostView, now: datetime) -> Verified | Refused:
    """Prove that `envelope` clears `subject` on this host at `now`; the first step that fails is the answer.

    1. The host's clock does not stand below a signed time that it has seen.
    2. Its revocation list counts (grace included), and is not older than the one it has seen.
    3. A registry's key signed the clearance, which has not expired and was not issued in the future; it does not
       claim to hold longer than MAX_CLEARANCE_LIFETIME.
    4. It is for this registry, repository, manifest, config, layers in this order, chain, user (where the host
       resolved it) and platform.
    5. It is for this root index, made by a reader and format that the host knows.
    6. Its state lets an image start.
    7. Its policy's name is in trust.json, its version at or above the host's floor; the embedded policy is signed
       by enough officers and is the one that the clearance names.
    8. There is an embedded approval, and each is signed by who may, now, and about this image or its layers.
    9. Each embedded waiver is signed by who may, now.
    10. Nothing of it is revoked: digests, layers, components, keys (a revoked key fails where it signed).

    The codes of steps 7 to 9 that come from a signature have `policy-`, `approval-` or `waiver-` in front.
    docs/trust.md lists all codes.
    """
    try:
        return _verify(envelope, subject, host, now)
    except TrustError as error:
        return Refused.of(error)


def _verify(envelope: bytes, subject: Subject, host: HostView, now: datetime) -> Verified:
    check_clock(host.state, now)  # (1)
    current = check_fresh(host.revocations, now)  # (2)
    listed = current.list
    if host.state.revocations is not None:
        seen = (host.state.revocations.number, host.state.revocations.digest)
        check_number("revocation list", seen, (listed.statement.number, listed.digest))
    trust = host.trust.revoking(listed.statement.keys)
    clearance = trust.verify(envelope, Clearance, now)  # (3)
    what = f"clearance {clearance.digest}"
    _check_lifetime(clearance.statement, what)
    _check_subject(clearance.statement, subject)  # (4)
    _check_root_index(clearance.statement, subject, host.formats)  # (5)
    if clearance.statement.state not in _STARTABLE:  # (6)
        raise TrustError("state-not-startable", what, f"state is {clearance.statement.state}")
    policy = embedded_policy(clearance.statement, trust, host.state, now)  # (7)
    approvals = embedded_approvals(clearance.statement, trust, now)  # (8)
    waivers = [proven("waiver", raw, (Waiver,), trust, now) for raw in clearance.statement.waivers]  # (9)
    embedded: tuple[Signed[Statement], ...] = (clearance, policy, *approvals, *waivers)
    _check_revoked(clearance.statement, subject, embedded, current)  # (10)
    return Verified(
        clearance=clearance,
        policy=policy,
        image_approvals=only(approvals, ImageApproval),
        layer_approvals=only(approvals, LayerApproval),
        waivers=only(waivers, Waiver),
        trust=trust.digest,
        revocations=listed.digest,
        until=_until(trust, current, (*embedded, listed, current.date)),
        complete=subject.root_index is not None,
        list_stale=current.stale(now),
    )


def _check_decision(image: ImageFacts, decision: Decision, policy: Signed[PolicyStatement]) -> None:
    what = f"clearance of {image.manifest}"
    if not decision.allowed:
        raise PolicyError(f"{what}: the Decision is {decision.state}")
    if decision.image != image.manifest:
        raise PolicyError(f"{what}: the Decision is about {decision.image}")
    said = policy.statement
    if (said.name, said.version, Digest.of(said.document)) != (
        decision.policy_name,
        decision.policy_version,
        decision.policy,
    ):
        raise PolicyError(f"{what}: the Decision was taken under another policy than {said.name} {said.version}")


def _check_lifetime(clearance: Clearance, what: str) -> None:
    lifetime = clearance.expires - clearance.issued
    if lifetime > MAX_CLEARANCE_LIFETIME:
        raise TrustError("lifetime-too-long", what, f"holds {lifetime}, expected at most {MAX_CLEARANCE_LIFETIME}")


def _check_subject(clearance: Clearance, subject: Subject) -> None:
    chain = chain_ids(subject.diff_ids)
    pairs: tuple[tuple[str, object, object], ...] = (
        ("other-registry", clearance.registry, subject.registry),
        ("other-repository", clearance.repository, subject.repository),
        ("other-digest", clearance.manifest, subject.manifest),
        ("other-config", clearance.config, subject.config),
        ("other-config-facts", clearance.config_facts, subject.config_facts),
        ("other-layers", clearance.diff_ids, subject.diff_ids),
        ("other-chain", clearance.chain_id, chain[-1] if chain else None),
        ("other-user", clearance.user, subject.user or clearance.user),
    )
    for code, cleared, wanted in pairs:
        if cleared != wanted:
            raise TrustError(code, _name(subject), f"the clearance is for {_shown(cleared)}, got {_shown(wanted)}")
    if not same_platform(clearance.platform, subject.platform):
        detail = f"the clearance is for {clearance.platform}, got {subject.platform}"
        raise TrustError("other-platform", _name(subject), detail)


def _check_root_index(clearance: Clearance, subject: Subject, formats: frozenset[tuple[int, int]]) -> None:
    made = (clearance.reader, clearance.format)
    if made not in formats:
        known = ", ".join(f"{reader}/{form}" for reader, form in sorted(formats))
        detail = f"the root index is of reader/format {made[0]}/{made[1]}, known are {known}"
        raise TrustError("unknown-format", _name(subject), detail)
    if subject.root_index is not None and subject.root_index != clearance.root_index:
        detail = f"the clearance is for root index {clearance.root_index}, got {subject.root_index}"
        raise TrustError("other-root-index", _name(subject), detail)


def _check_revoked(
    clearance: Clearance, subject: Subject, embedded: Sequence[Signed[Statement]], current: CurrentList
) -> None:
    digests = [clearance.manifest, clearance.config, clearance.root_index, clearance.policy_digest]
    if subject.index is not None:
        digests.append(subject.index)
    refused = matches(
        current.list.statement,
        digests=[*digests, *(signed.digest for signed in embedded)],
        layers=clearance.diff_ids,
        components=clearance.components,
        keys=[signer.key for signed in embedded for signer in signed.signers],
    )
    if refused is not None:
        raise TrustError(refused.code, refused.subject, refused.detail)


def _until(trust: Trust, current: CurrentList, rests_on: Iterable[Signed[Statement]]) -> datetime:
    ends = [trust.root.expires, current.ends]
    for signed in rests_on:
        # A date counts on in the grace, which current.ends holds already.
        if signed is not current.date and (end := expiry(signed.statement)) is not None:
            ends.append(end)
        ends.extend(trust.keys[signer.key].not_after for signer in signed.signers)
    return min(ends)


def _name(subject: Subject) -> str:
    return f"{subject.registry}/{subject.repository}@{subject.manifest}"


def _shown(value: object) -> str:
    return ", ".join(str(each) for each in value) if isinstance(value, tuple) else str(value)
