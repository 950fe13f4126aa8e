"""A heap of envelopes: what is believed, and why the rest is not."""

from __future__ import annotations

from dataclasses import replace

from ocispec.digest import Digest
from policy import dsse
from policy.believe import MAX_STATEMENTS, verify_many
from policy.seal import seal
from policy.statements import ImageApproval, Withdrawal
from tests.support.trust import (
    NOW,
    image_approval,
    image_facts,
    keyring,
    layer_approval,
    payload_of,
    policy_statement,
    waiver,
)

RING = keyring()
APPROVAL = image_approval(image_facts())
LAYER = layer_approval(image_facts().layers[1])


def test_each_kind_comes_out_in_its_place_and_in_one_order() -> None:
    envelopes = [
        seal(APPROVAL, RING.alice),
        seal(replace(APPROVAL, level="base"), RING.bob),
        seal(LAYER, RING.team),
        seal(waiver(), RING.alice),
        seal(Withdrawal(statement=Digest.of(b"something else"), reason="gone", issued=NOW), RING.bob),
    ]
    believed = verify_many(RING.trust, envelopes, NOW)
    assert verify_many(RING.trust, reversed(envelopes), NOW) == believed
    assert {signed.statement.level for signed in believed.image_approvals} == {"application", "base"}
    assert [signed.statement for signed in believed.layer_approvals] == [LAYER]
    assert [signed.statement for signed in believed.waivers] == [waiver()]
    assert len(believed.withdrawals) == 1
    assert believed.rejected == ()


def test_what_is_not_believed_is_listed_with_its_reason_and_stops_nothing() -> None:
    other = keyring()
    forged = seal(APPROVAL, other.alice)
    believed = verify_many(
        RING.trust, [b"junk", forged, seal(policy_statement(), RING.alice, RING.bob), seal(LAYER, RING.team)], NOW
    )
    assert [signed.statement for signed in believed.layer_approvals] == [LAYER]
    assert believed.image_approvals == ()
    codes = {refused.digest: refused.code for refused in believed.rejected}
    assert codes == {
        Digest.of(b"junk"): "malformed",
        Digest.of(payload_of(forged)): "unknown-key",
        Digest.of(payload_of(seal(policy_statement()))): "wrong-type",
    }


def test_a_withdrawn_statement_no_longer_counts_whichever_came_first() -> None:
    approval, kept = seal(APPROVAL, RING.alice), seal(APPROVAL, RING.alice)
    digest = Digest.of(payload_of(approval))
    withdrawal = seal(Withdrawal(statement=digest, reason="wrong image", issued=NOW), RING.bob)
    for envelopes in ([approval, withdrawal], [withdrawal, kept]):
        believed = verify_many(RING.trust, envelopes, NOW)
        assert believed.image_approvals == ()
        assert [(refused.digest, refused.code) for refused in believed.rejected] == [(digest, "withdrawn")]


def test_a_withdrawal_by_a_team_or_the_registry_takes_nothing_away() -> None:
    approval = seal(APPROVAL, RING.alice)
    withdrawal = Withdrawal(statement=Digest.of(payload_of(approval)), reason="hostile", issued=NOW)
    for key in (RING.team, RING.registry):
        believed = verify_many(RING.trust, [approval, seal(withdrawal, key)], NOW)
        assert len(believed.image_approvals) == 1
        assert [refused.code for refused in believed.rejected] == ["wrong-role"]


def test_one_statement_in_two_envelopes_is_one_with_the_signers_of_both() -> None:
    believed = verify_many(RING.trust, [seal(APPROVAL, RING.alice), seal(APPROVAL, RING.bob)], NOW)
    (signed,) = believed.image_approvals
    assert {signer.owner for signer in signed.signers} == {"alice", "bob"}
    again = RING.trust.verify(signed.envelope, ImageApproval, NOW)
    assert again.signers == signed.signers


def test_junk_signatures_do_not_crowd_out_the_true_ones_of_a_joined_statement() -> None:
    parsed = dsse.parse(seal(APPROVAL, RING.alice), what="envelope")
    junk = [dsse.Signature(key_id=RING.alice.public.id, signature=bytes([n])) for n in range(31)]
    crowded = dsse.assemble(parsed.payload, [*junk, *parsed.signatures])
    believed = verify_many(RING.trust, [crowded, seal(APPROVAL, RING.bob)], NOW)
    (signed,) = believed.image_approvals
    again = RING.trust.verify(signed.envelope, ImageApproval, NOW)
    assert {signer.owner for signer in again.signers} == {"alice", "bob"}


def test_a_heap_without_end_is_cut() -> None:
    believed = verify_many(RING.trust, (b"%d" % n for n in range(MAX_STATEMENTS + 10)), NOW)
    assert len(believed.rejected) == MAX_STATEMENTS + 1
    assert [refused.code for refused in believed.rejected].count("too-many") == 1
