"""Evidence and Decision as canonical JSON (RFC 8785), and back.

Signed statements travel as their DSSE envelopes only: whoever decodes verifies them again, so a signer
never believes a typed value that it did not prove itself.
"""

from __future__ import annotations

from policy.evidence import Verify
from policy.model import Decision, Evidence, StartEvidence


def encode_evidence(evidence: Evidence) -> bytes:
    """The canonical JSON of `evidence`; its sha256 is the evidence's digest in a Decision."""
    raise NotImplementedError


def decode_evidence(raw: bytes, verify: Verify) -> Evidence:
    """Return the evidence in `raw`, each envelope verified again by `verify`.

    Raises:
        PolicyError: malformed, or of unknown members.
        TrustError: an envelope is not believed, or holds another kind of statement than its place says.
    """
    raise NotImplementedError


def encode_start_evidence(evidence: StartEvidence) -> bytes:
    """The canonical JSON of `evidence`."""
    raise NotImplementedError


def encode_decision(decision: Decision) -> bytes:
    """The canonical JSON of `decision`."""
    raise NotImplementedError


def decode_decision(raw: bytes) -> Decision:
    """Return the Decision in `raw`.

    Raises:
        PolicyError: malformed.
    """
    raise NotImplementedError
