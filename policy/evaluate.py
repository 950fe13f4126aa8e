"""The Decision over one image: every rule on all the evidence. Pure: no I/O, no clock."""

from __future__ import annotations

from policy.model import Decision, Evidence
from policy.settings import Policy


def evaluate(policy: Policy, evidence: Evidence) -> Decision:
    """Return the Decision on `evidence.image` under `policy` at `evidence.now`. Never raises for what it judges."""
    raise NotImplementedError
