"""Many envelopes at once: those that are believed, those that are not and why, withdrawals applied."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from ocispec.digest import Digest
from policy import dsse
from policy.errors import TrustError
from policy.model import RejectedStatement, Signed
from policy.statements import ImageApproval, LayerApproval, Statement, Waiver, Withdrawal
from policy.trust import Trust, only

MAX_STATEMENTS: Final = 4096
"""Envelopes looked at for one image; what comes after them is rejected unread."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Believed:
    """What was proven of a heap of envelopes, each kind ordered by digest, and all that was not."""

    image_approvals: tuple[Signed[ImageApproval], ...]
    layer_approvals: tuple[Signed[LayerApproval], ...]
    waivers: tuple[Signed[Waiver], ...]
    withdrawals: tuple[Signed[Withdrawal], ...]
    rejected: tuple[RejectedStatement, ...]


def verify_many(trust: Trust, envelopes: Iterable[bytes], now: datetime) -> Believed:
    """Verify approvals, waivers and withdrawals as of `now`.

    A statement that came in several envelopes is one, with the signers of all. One that was withdrawn is among
    `rejected`, with the code `withdrawn`. Never raises for what an envelope holds.
    """
    accepted: dict[Digest, Signed[Statement]] = {}
    rejected: list[RejectedStatement] = []
    for position, envelope in enumerate(envelopes):
        if position >= MAX_STATEMENTS:
            rejected.append(_reject(Digest.of(envelope), "too-many", f"more than {MAX_STATEMENTS} statements"))
            break
        try:
            signed = trust.verify_any(envelope, (ImageApproval, LayerApproval, Waiver, Withdrawal), now)
        except TrustError as error:
            rejected.append(_reject(_digest(envelope), error.code, error.detail))
            continue
        known = accepted.get(signed.digest)
        accepted[signed.digest] = signed if known is None else _joined(trust, known, signed)
    ordered = [accepted[digest] for digest in sorted(accepted)]
    withdrawals = only(ordered, Withdrawal)
    withdrawn = {signed.statement.statement: signed for signed in withdrawals}
    standing = [signed for signed in ordered if signed.digest not in withdrawn]
    rejected += [
        _reject(signed.digest, "withdrawn", f"withdrawn by {withdrawn[signed.digest].digest}")
        for signed in ordered
        if signed.digest in withdrawn
    ]
    return Believed(
        image_approvals=only(standing, ImageApproval),
        layer_approvals=only(standing, LayerApproval),
        waivers=only(standing, Waiver),
        withdrawals=withdrawals,
        rejected=tuple(sorted(rejected, key=lambda refused: (refused.digest, refused.code))),
    )


def _digest(envelope: bytes) -> Digest:
    """The digest of the payload, by which a statement is known; of the envelope where there is no payload."""
    try:
        return Digest.of(dsse.parse(envelope, what="envelope").payload)
    except TrustError:
        return Digest.of(envelope)


def _reject(digest: Digest, code: str, detail: str) -> RejectedStatement:
    return RejectedStatement(digest=digest, code=code, detail=detail)


def _joined(trust: Trust, one: Signed[Statement], other: Signed[Statement]) -> Signed[Statement]:
    """One statement of two envelopes; of their signatures only those that were believed are kept."""
    signers = {signer.key: signer for signer in (*one.signers, *other.signers)}
    envelopes = [dsse.parse(signed.envelope, what="envelope") for signed in (one, other)]
    signatures = {
        signature.key_id: signature
        for envelope in envelopes
        for signature in envelope.signatures
        if signature.key_id in signers
        and trust.keys[signature.key_id].key.verifies(envelope.message, signature.signature)
    }
    joined = dsse.assemble(envelopes[0].payload, signatures.values())
    return replace(one, signers=tuple(signers[key] for key in sorted(signers)), envelope=joined)
