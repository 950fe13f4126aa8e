"""The statements that a clearance embeds: the policy and the approvals, each proven for itself.

They are why a stolen registry key alone clears nothing.
"""

from __future__ import annotations

from datetime import datetime

from ocispec.config import chain_ids
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.platform import Platform
from policy.errors import TrustError
from policy.hoststate import HostState
from policy.model import Signed
from policy.statements import Clearance, ImageApproval, LayerApproval, PolicyStatement, Statement
from policy.trust import Trust, narrowed


def proven(prefix: str, raw: bytes, kinds: tuple[type[object], ...], trust: Trust, now: datetime) -> Signed[Statement]:
    """The statement of one of `kinds` in an embedded envelope.

    Raises:
        TrustError: as `Trust.verify_any`, with `prefix` and a hyphen before the code.
    """
    try:
        return trust.verify_any(raw, kinds, now)
    except TrustError as error:
        raise TrustError(f"{prefix}-{error.code}", error.subject, error.detail) from None


def embedded_policy(clearance: Clearance, trust: Trust, state: HostState, now: datetime) -> Signed[PolicyStatement]:
    """The policy that the clearance names, as it embeds it.

    Raises:
        TrustError: `unknown-policy`, `policy-below-floor`, `policy-mismatch`, `policy-…` for its signatures.
    """
    name, version = clearance.policy_name, clearance.policy_version
    what = f"policy {name} version {version}"
    if trust.policy_threshold(name) is None:
        raise TrustError("unknown-policy", what, "trust.json does not list it")
    if version < state.floor(name):
        raise TrustError("policy-below-floor", what, f"the host's floor is version {state.floor(name)}")
    policy = narrowed(proven("policy", clearance.policy, (PolicyStatement,), trust, now), PolicyStatement)
    said = policy.statement
    digest = Digest.of(said.document)
    if (said.name, said.version, digest) != (name, version, clearance.policy_digest):
        detail = f"embedded is {said.name} version {said.version}, {digest}; expected {clearance.policy_digest}"
        raise TrustError("policy-mismatch", what, detail)
    return policy


def embedded_approvals(clearance: Clearance, trust: Trust, now: datetime) -> list[Signed[Statement]]:
    """The approvals in the clearance, each about this image or its layers.

    Raises:
        TrustError: `approvals-missing`, `approval-unrelated`, `approval-other-…`, `approval-…` for its signatures.
    """
    if not clearance.approvals:
        raise TrustError("approvals-missing", f"manifest {clearance.manifest}", "the clearance embeds no approval")
    approvals: list[Signed[Statement]] = []
    for raw in clearance.approvals:
        signed = proven("approval", raw, (ImageApproval, LayerApproval), trust, now)
        code = _strays(clearance, signed.statement)
        if code:
            raise TrustError(code, f"statement {signed.digest}", f"is not about manifest {clearance.manifest}")
        approvals.append(signed)
    return approvals


def _strays(clearance: Clearance, approval: Statement) -> str:
    """The code for an approval that does not belong to the cleared image, or ""."""
    match approval:
        case ImageApproval():
            length = len(approval.diff_ids)
            if not length or approval.diff_ids != clearance.diff_ids[:length]:
                return "approval-unrelated"
            if approval.manifest != clearance.manifest:
                return ""
            # An approval of this very image: what it says of it must be what was cleared (S12, another tree).
            if approval.config != clearance.config or approval.config_facts != clearance.config_facts:
                return "approval-other-config"
            if not same_platform(approval.platform, clearance.platform):
                return "approval-other-platform"
            same_writer = (approval.reader, approval.format) == (clearance.reader, clearance.format)
            if same_writer and approval.root_index != clearance.root_index:
                return "approval-other-root-index"
            return ""
        case LayerApproval():
            places = zip(clearance.diff_ids, chain_ids(clearance.diff_ids), strict=True)
            fits = (diff_id == approval.diff_id and approval.chain_id in {None, chain} for diff_id, chain in places)
            return "" if any(fits) else "approval-unrelated"
        case _:
            return "approval-unrelated"


def same_platform(one: str, other: str) -> bool:
    """True if both spell one platform; `linux/arm64` and `linux/arm64/v8` are one."""
    try:
        return Platform.parse(one).runs(Platform.parse(other))
    except SpecError:
        return False
