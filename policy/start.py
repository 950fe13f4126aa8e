"""The Decision over one start: the start rules on a verified clearance, the request and the host."""

from __future__ import annotations

from policy.model import Decision, StartEvidence
from policy.settings import Policy


def evaluate_start(policy: Policy, evidence: StartEvidence) -> Decision:
    """Return the Decision on one start under the start section of `policy` at `evidence.now`."""
    raise NotImplementedError
