"""The Decision over one start: the start rules on a verified clearance, the request and the host.

`clearance.verify_clearance` proves who said what about which bytes. Here the same mechanism as in the registry
decides whether that is enough, on the host's own judgement: the hierarchy and the config are placed again from the
embedded approvals, so that a stolen registry key clears nothing; then what was asked for is held against the caps.
The host does not judge packages; that is in the clearance.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from ocispec.config import chain_ids
from ocispec.digest import Digest
from policy.approvals import Counting, soonest
from policy.clearance import HostView, Verified
from policy.codec import evidence_digest
from policy.combine import all_of
from policy.hierarchy import Standing, Subject, place
from policy.model import (
    Decision,
    HostFacts,
    LayerFacts,
    Note,
    StartEvidence,
    StartRequest,
    State,
    Verdict,
)
from policy.parents import same_platform
from policy.rules.config import config_refusals
from policy.rules.interface import deny, softened, unknown
from policy.rules.limits import limit_verdicts
from policy.rules.revocation import Revocable, revocation_verdicts
from policy.settings import Policy, RunTerms, spell_duration
from policy.times import SKEW, format_time
from policy.verdicts import refusal_verdict, state_of
from policy.waivers import apply_waivers, waiver_objection


def start_evidence(
    verified: Verified, *, host: HostView, platform: str, root_index: Digest, request: StartRequest, now: datetime
) -> StartEvidence:
    """The evidence on a start: what `verify_clearance` proved, what is asked, and what the host knows itself.

    `platform` is the host's, `root_index` the digest of the index that it is about to mount.
    """
    clearance = verified.clearance.statement
    return StartEvidence(
        clearance=verified.clearance,
        manifest=clearance.manifest,
        root_index=root_index,
        request=request,
        host=HostFacts(
            platform=platform,
            policies=tuple(sorted(policy.name for policy in host.trust.root.policies)),
            floor=host.state.floor(clearance.policy_name),
            highest_time=host.state.highest_time,
            list_number=host.state.revocations.number if host.state.revocations is not None else 0,
        ),
        image_approvals=verified.image_approvals,
        layer_approvals=verified.layer_approvals,
        waivers=verified.waivers,
        revocations=host.revocations.list if host.revocations is not None else None,
        list_date=host.revocations.date if host.revocations is not None else None,
        rejected=(),
        now=now,
    )


def evaluate_start(policy: Policy, evidence: StartEvidence) -> Decision:
    """Return the Decision on one start under the start section of `policy` at `evidence.now`.

    1. The clock does not stand below a signed time that was seen. 2. The revocation list is there, current or in
    its grace, not older than one that was seen, and names nothing of the image. 3. The clearance is for this policy,
    manifest and root index, in time, and young enough. 4. Its approvals bring it to its level by the host's own
    placement. 5. Its config is approved or allowed. 6. Its level may be started. 7. It is for this platform.
    8. The user in it is the config's. 9. Its waivers still hold. 10. What is asked for is within the caps.
    """
    clearance = evidence.clearance.statement
    counting = _counting(evidence)
    standing = _standing(policy, evidence, counting)
    view = _Start(policy=policy, evidence=evidence, standing=standing)
    verdicts = all_of(_RULES, view, str(evidence.manifest))
    waived = apply_waivers(policy, verdicts, evidence.waivers, clearance.level, counting)
    state = state_of(waived.verdicts)
    if state is State.CLEARED:
        state = State(clearance.state)
    return Decision(
        state=state,
        level=clearance.level,
        parent=standing.parent.manifest if standing.parent is not None else None,
        verdicts=waived.verdicts,
        image=evidence.manifest,
        policy_name=policy.name,
        policy_version=policy.version,
        policy=policy.digest,
        evidence=evidence_digest(evidence),
        rests_on=standing.rests_on,
        taken=evidence.now,
        valid_until=soonest(
            (
                standing.ends,
                clearance.expires,
                clearance.issued + policy.start.max_clearance_age,
                *(waiver.statement.expires for waiver in evidence.waivers),
                evidence.list_date.statement.expires + policy.revocation.offline_grace if evidence.list_date else None,
            )
        ),
    )


def running_terms(policy: Policy, decision: Decision) -> RunTerms | None:
    """What happens to a container whose start would now get `decision`; None if it may go on."""
    if decision.allowed:
        return None
    if decision.state is State.REVOKED:
        return policy.running.revoked
    reasons = {verdict.reason for verdict in decision.refusals}
    return policy.running.expired if reasons <= _RAN_OUT else policy.running.denied


_RAN_OUT = frozenset({"clearance-expired", "clearance-too-old", "revocation-list-expired", "no-revocation-list"})
"""Refusals that only say that nothing newer came."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Start:
    """What a start rule sees."""

    policy: Policy
    evidence: StartEvidence
    standing: Standing

    @property
    def subject(self) -> str:
        return str(self.evidence.manifest)


def _counting(evidence: StartEvidence) -> Counting:
    clearance = evidence.clearance.statement
    return Counting.of(
        now=evidence.now,
        repository=f"{clearance.registry}/{clearance.repository}",
        withdrawals=(),
        revocations=evidence.revocations,
    )


def _standing(policy: Policy, evidence: StartEvidence, counting: Counting) -> Standing:
    """The image's place by the host's own reckoning: the first at the clearance's level with an allowed config."""
    clearance = evidence.clearance.statement
    subject = Subject(
        manifest=clearance.manifest,
        config=clearance.config,
        config_facts=clearance.config_facts,
        platform=clearance.platform,
        layers=_layers(evidence),
        root_index=clearance.root_index,
        reader=clearance.reader,
        format=clearance.format,
    )
    standings = place(policy.levels, subject, evidence.image_approvals, evidence.layer_approvals, counting)
    fitting = [one for one in standings if one.level is not None and one.level.name == clearance.level]
    for standing in fitting:
        refusals = config_refusals(standing, clearance.config_facts, clearance.user, clearance.config)
        if not standing.refusals and not any(True for _ in refusals):
            return standing
    return (fitting or standings)[0]


def _layers(evidence: StartEvidence) -> tuple[LayerFacts, ...]:
    """The layers as a clearance has them. Which of them write a package database was the approver's and the
    registry's to see: whoever signed a layer without its chain ID said that it writes none."""
    diff_ids = evidence.clearance.statement.diff_ids
    return tuple(
        LayerFacts(diff_id=diff_id, chain_id=chain_id, size=0, writes_package_database=False)
        for diff_id, chain_id in zip(diff_ids, chain_ids(diff_ids), strict=True)
    )


def _clock(view: _Start) -> Iterable[Verdict]:
    highest, now = view.evidence.host.highest_time, view.evidence.now
    if highest is not None and now < highest - view.policy.start.clock_tolerance:
        message = f"the clock says {format_time(now)}, and {format_time(highest)} was seen in a signed statement"
        yield deny("clock", "clock-set-back", "clock", message, fix="set the host's clock")


def _revocation(view: _Start) -> Iterable[Verdict]:
    evidence, terms = view.evidence, view.policy.revocation
    listed, date = evidence.revocations, evidence.list_date
    if listed is None or date is None:
        message = "this host has no revocation list, so it cannot know what is revoked"
        yield unknown("revocation", "no-revocation-list", view.subject, message, fix="fetch the newest list")
        return
    number = listed.statement.number
    if number < evidence.host.list_number:
        message = f"the list has number {number}, and {evidence.host.list_number} was seen"
        yield deny("revocation", "number-went-back", f"revocation list {number}", message)
    ends = date.statement.expires
    late = unknown(
        "revocation",
        "revocation-list-expired",
        f"revocation list {number}",
        f"the list was current until {format_time(ends)}; a host may go on for "
        f"{spell_duration(terms.offline_grace)} without a newer one",
        fix="fetch the newest list",
    )
    if evidence.now >= ends + terms.offline_grace:
        yield late
    elif evidence.now >= ends:
        yield softened(late, Note.WARNING, ends + terms.offline_grace)
    clearance = evidence.clearance.statement
    revocable = Revocable(
        manifest=evidence.manifest,
        config=clearance.config,
        root_index=clearance.root_index,
        layers=_layers(evidence),
        components=clearance.components,
        parents=evidence.image_approvals,
    )
    yield from revocation_verdicts(revocable, listed.statement)


def _clearance(view: _Start) -> Iterable[Verdict]:
    evidence, policy = view.evidence, view.policy
    clearance, now, host = evidence.clearance.statement, evidence.now, evidence.host

    def refuse(reason: str, message: str, fix: str = "") -> Verdict:
        return deny("clearance", reason, view.subject, message, fix=fix)

    if evidence.manifest != clearance.manifest:
        yield refuse("other-digest", f"the clearance is for {clearance.manifest}")
    if evidence.root_index != clearance.root_index:
        yield refuse(
            "other-root-index", f"the clearance is for root index {clearance.root_index}, not {evidence.root_index}"
        )
    if clearance.policy_digest != policy.digest:
        yield refuse("other-policy", f"the clearance is under policy {clearance.policy_digest}, not {policy.digest}")
    if clearance.policy_name not in host.policies:
        yield refuse("unknown-policy", f"the policy {clearance.policy_name} is not in this host's trust.json")
    if clearance.policy_version < host.floor:
        message = f"the policy's version is {clearance.policy_version}, this host's floor is {host.floor}"
        yield refuse("policy-below-floor", message)
    if clearance.issued > now + SKEW:
        yield refuse("issued-in-future", f"the clearance was issued {format_time(clearance.issued)}")
    if now >= clearance.expires:
        yield refuse("clearance-expired", f"the clearance ended {format_time(clearance.expires)}", "pull it again")
    if now - clearance.issued > policy.start.max_clearance_age:
        age = spell_duration(policy.start.max_clearance_age)
        message = f"the clearance was issued {format_time(clearance.issued)}; it may be {age} old"
        yield refuse("clearance-too-old", message, "pull it again")
    if clearance.state not in {str(state) for state in State if state.may_start}:
        yield refuse("state-not-startable", f"the clearance says {clearance.state}")


def _hierarchy(view: _Start) -> Iterable[Verdict]:
    cleared, standing = view.evidence.clearance.statement.level, view.standing
    if standing.refusals:
        yield from (refusal_verdict("hierarchy", refusal) for refusal in standing.refusals)
    elif standing.level is None or standing.level.name != cleared:
        reached = standing.level.name if standing.level is not None else "none"
        message = f"the clearance says level {cleared}; its approvals bring it to {reached}"
        yield deny("hierarchy", "level-not-reached", view.subject, message)


def _config(view: _Start) -> Iterable[Verdict]:
    clearance = view.evidence.clearance.statement
    refusals = config_refusals(view.standing, clearance.config_facts, clearance.user, clearance.config)
    return [refusal_verdict("config", refusal) for refusal in refusals]


def _level(view: _Start) -> Iterable[Verdict]:
    level, allowed = view.evidence.clearance.statement.level, view.policy.start.levels
    if level not in allowed:
        message = f"images of level {level} are not started; those of {', '.join(allowed)} are"
        yield deny("level", "level-not-startable", view.subject, message)


def _platform(view: _Start) -> Iterable[Verdict]:
    platform, host = view.evidence.clearance.statement.platform, view.evidence.host.platform
    if not same_platform(platform, host):
        yield deny("platform", "other-platform", view.subject, f"it is for {platform}, this host is {host}")
    if not any(same_platform(platform, allowed) for allowed in view.policy.start.platforms):
        shown = ", ".join(view.policy.start.platforms)
        yield deny("platform", "platform-not-allowed", view.subject, f"it is for {platform}; the policy starts {shown}")


def _user(view: _Start) -> Iterable[Verdict]:
    """A name is looked up when the clearance is made; a number, or nothing, needs no looking up."""
    clearance = view.evidence.clearance.statement
    name = clearance.config_facts.user.partition(":")[0]
    numbered = name.isascii() and name.isdigit()
    if (not name or numbered) and clearance.user.uid != int(name or "0"):
        message = f"the config's user is {name or 'root'}, and the clearance says uid {clearance.user.uid}"
        yield deny("user", "user-mismatch", "config user", message)


def _waivers(view: _Start) -> Iterable[Verdict]:
    """A clearance rests on its waivers: when one ends, what it covered is refused again (S9)."""
    policy, level = view.policy, view.evidence.clearance.statement.level
    counting = _counting(view.evidence)
    for waiver in view.evidence.waivers:
        objection = waiver_objection(policy, waiver, level, counting)
        if objection is not None:
            code, detail = objection
            yield deny("waivers", code, str(waiver.digest), f"it rests on a waiver that does not hold: {detail}")


def _limits(view: _Start) -> Iterable[Verdict]:
    return limit_verdicts(view.policy.start, view.evidence.request)


_RULES: tuple[tuple[str, Callable[[_Start], Iterable[Verdict]]], ...] = (
    ("clock", _clock),
    ("revocation", _revocation),
    ("clearance", _clearance),
    ("hierarchy", _hierarchy),
    ("config", _config),
    ("level", _level),
    ("platform", _platform),
    ("user", _user),
    ("waivers", _waivers),
    ("limits", _limits),
)
