"""trust.json: whose signature counts for what."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from ocispec.digest import Digest
from policy import dsse
from policy.errors import TrustError
from policy.keys import Algorithm
from policy.private_key import PrivateKey
from policy.seal import countersign, seal
from policy.statements import (
    AuditCheckpoint,
    Clearance,
    ImageApproval,
    IndexClearance,
    LayerApproval,
    ListDate,
    PolicyFloor,
    PolicyStatement,
    RevocationList,
    Role,
    Statement,
    TagStatement,
    TrustRoot,
    Waiver,
    Withdrawal,
)
from policy.trust import STATEMENTS, Trust, expiry, narrowed
from tests.support.trust import (
    DAY,
    NOW,
    REGISTRY,
    REPOSITORY,
    Keyring,
    digest,
    image_approval,
    image_facts,
    keyring,
    layer_approval,
    list_date,
    policy_statement,
    revocation_list,
    scene,
    trusted,
    waiver,
)

RING = keyring()
APPROVAL = image_approval(image_facts())
SCENE = scene(RING)
LIST = seal(revocation_list(), RING.alice, RING.bob)

EACH: tuple[Statement, ...] = (
    RING.root,
    APPROVAL,
    layer_approval(image_facts().layers[0]),
    waiver(),
    Withdrawal(statement=digest("approval"), reason="a mistake", issued=NOW),
    revocation_list(),
    list_date(LIST, 7),
    policy_statement(),
    PolicyFloor(name="default", version=3, issued=NOW),
    TagStatement(registry=REGISTRY, repository=REPOSITORY, tag="1", digest=digest("m"), number=1, issued=NOW),
    IndexClearance(
        registry=REGISTRY,
        repository=REPOSITORY,
        index=digest("index"),
        children=(digest("m"),),
        issued=NOW,
        expires=NOW + DAY,
    ),
    AuditCheckpoint(registry=REGISTRY, records=1, head=digest("record"), issued=NOW),
    SCENE.clearance,
)
OFFICERS = {PolicyStatement, PolicyFloor, RevocationList, ImageApproval, LayerApproval, Waiver, Withdrawal}
MAY_SIGN: dict[str, set[type[Statement]]] = {
    "root": {TrustRoot},
    "officer": set(OFFICERS),
    "team": {ImageApproval, LayerApproval},
    "registry": {ListDate, TagStatement, IndexClearance, AuditCheckpoint, Clearance},
}
SIGNERS: dict[str, tuple[PrivateKey, ...]] = {
    "root": (RING.roots["rita"], RING.roots["ron"]),
    "officer": (RING.alice, RING.bob),
    "team": (RING.team,),
    "registry": (RING.registry,),
}


def refusal(call: Callable[[], object]) -> TrustError:
    with pytest.raises(TrustError) as refused:
        call()
    return refused.value


def code(call: Callable[[], object]) -> str:
    return refusal(call).code


def with_root(root: TrustRoot, ring: Keyring = RING) -> Trust:
    return Trust.parse(ring.signed_root(root), NOW)


@pytest.mark.parametrize("role", list(SIGNERS))
@pytest.mark.parametrize("statement", EACH, ids=lambda statement: type(statement).__name__)
def test_each_role_signs_its_own_statements_and_no_other(role: str, statement: Statement) -> None:
    envelope = seal(statement, *SIGNERS[role])
    if type(statement) in MAY_SIGN[role]:
        signed = RING.trust.verify_any(envelope, (type(statement),), NOW)
        assert signed.statement == statement
        assert {str(signer.role) for signer in signed.signers} == {role}
        assert signed.envelope == envelope
    else:
        assert code(lambda: RING.trust.verify_any(envelope, (type(statement),), NOW)) == "wrong-role"


def test_every_kind_of_statement_is_in_the_table_above() -> None:
    assert {type(statement) for statement in EACH} == {TrustRoot, *STATEMENTS}


def test_a_signed_statement_carries_the_digest_of_its_payload_and_its_signers() -> None:
    envelope = seal(APPROVAL, RING.alice)
    signed = RING.trust.verify(envelope, ImageApproval, NOW)
    assert signed.digest == Digest.of(dsse.parse(envelope, what="envelope").payload)
    assert [(signer.owner, signer.key, signer.levels) for signer in signed.signers] == [
        ("alice", RING.alice.public.id, ("base", "middleware", "application"))
    ]


def test_a_statement_of_another_type_than_expected_is_refused_s1() -> None:
    envelope = seal(layer_approval(image_facts().layers[0]), RING.team)
    assert code(lambda: RING.trust.verify(envelope, ImageApproval, NOW)) == "wrong-type"
    signed = RING.trust.verify(envelope, LayerApproval, NOW)
    assert code(lambda: narrowed(signed, ImageApproval)) == "wrong-type"


def test_an_unknown_key_a_forged_and_a_missing_signature_each_have_their_reason() -> None:
    stranger = PrivateKey.generate()
    assert code(lambda: RING.trust.verify(seal(APPROVAL, stranger), ImageApproval, NOW)) == "unknown-key"
    assert code(lambda: RING.trust.verify(seal(APPROVAL), ImageApproval, NOW)) == "no-signature"
    payload = dsse.parse(seal(APPROVAL), what="envelope").payload
    forged = dsse.assemble(payload, [dsse.Signature(key_id=RING.alice.public.id, signature=b"x" * 64)])
    assert code(lambda: RING.trust.verify(forged, ImageApproval, NOW)) == "bad-signature"
    nameless = dsse.assemble(
        payload, [dsse.Signature(key_id="", signature=RING.alice.sign(dsse.pae(dsse.PAYLOAD_TYPE, payload)))]
    )
    assert code(lambda: RING.trust.verify(nameless, ImageApproval, NOW)) == "unknown-key"


def test_a_signature_over_another_payload_is_refused_s1() -> None:
    good = dsse.parse(seal(APPROVAL, RING.alice), what="envelope")
    other = dsse.parse(seal(replace(APPROVAL, level="base")), what="envelope")
    moved = dsse.assemble(other.payload, good.signatures)
    assert code(lambda: RING.trust.verify(moved, ImageApproval, NOW)) == "bad-signature"


def test_a_bad_signature_beside_a_good_one_does_no_harm() -> None:
    good = dsse.parse(seal(APPROVAL, RING.alice), what="envelope")
    junk = [
        dsse.Signature(key_id=RING.bob.public.id, signature=b"x" * 64),
        dsse.Signature(key_id="sha256:nobody", signature=b"x"),
    ]
    mixed = dsse.assemble(good.payload, [*junk, *good.signatures])
    signed = RING.trust.verify(mixed, ImageApproval, NOW)
    assert [signer.owner for signer in signed.signers] == ["alice"]


def test_a_team_may_approve_for_its_levels_only() -> None:
    base = replace(APPROVAL, level="base")
    error = refusal(lambda: RING.trust.verify(seal(base, RING.team), ImageApproval, NOW))
    assert error.code == "wrong-level"
    assert "build-app" in error.detail
    both = RING.trust.verify(seal(base, RING.team, RING.alice), ImageApproval, NOW)
    assert [signer.owner for signer in both.signers] == ["alice"]


def test_a_registry_speaks_for_its_own_name_only() -> None:
    other = PrivateKey.generate()
    root = replace(
        RING.root,
        keys=(*RING.root.keys, trusted(other, Role.REGISTRY, "other.example")),
        registries=(REGISTRY, "other.example"),
    )
    trust = with_root(root)
    envelope = seal(SCENE.clearance, other)
    assert code(lambda: trust.verify(envelope, Clearance, NOW)) == "wrong-registry"
    trust.verify(SCENE.envelope, Clearance, NOW)


@pytest.mark.parametrize(
    "statement", [policy_statement(), revocation_list(), PolicyFloor(name="default", version=1, issued=NOW)]
)
def test_a_threshold_counts_people_and_not_keys(statement: Statement) -> None:
    second = PrivateKey.generate()
    trust = with_root(replace(RING.root, keys=(*RING.root.keys, trusted(second, Role.OFFICER, "alice", "base"))))
    kinds = (type(statement),)
    alone = seal(statement, RING.alice, second)
    error = refusal(lambda: trust.verify_any(alone, kinds, NOW))
    assert error.code == "too-few-signers"
    assert "got 1, expected 2" in error.detail
    twice = trust.verify_any(countersign(alone, RING.bob), kinds, NOW)
    assert len(twice.signers) == 3


def test_one_signature_repeated_is_one_signature() -> None:
    parsed = dsse.parse(seal(policy_statement(), RING.alice), what="envelope")
    twice = dsse.assemble(parsed.payload, parsed.signatures * 2)
    assert code(lambda: RING.trust.verify(twice, PolicyStatement, NOW)) == "too-few-signers"


def test_a_policy_whose_name_is_not_listed_is_refused() -> None:
    policy, floor = replace(policy_statement(), name="mine"), PolicyFloor(name="mine", version=1, issued=NOW)
    signed = seal(policy, RING.alice, RING.bob)
    assert code(lambda: RING.trust.verify(signed, PolicyStatement, NOW)) == "unknown-policy"
    raised = seal(floor, RING.alice, RING.bob)
    assert code(lambda: RING.trust.verify(raised, PolicyFloor, NOW)) == "unknown-policy"


@pytest.mark.parametrize(
    ("begin", "end", "expected"),
    [
        (NOW - timedelta(minutes=59), NOW + DAY, "key-not-yet-valid"),
        (NOW + timedelta(seconds=1), NOW + DAY, "key-not-yet-valid"),
        (NOW - DAY, NOW, "key-expired"),
        (NOW - DAY, NOW - timedelta(hours=1), "key-expired"),
        (NOW - DAY, NOW + timedelta(seconds=1), ""),
        (NOW - timedelta(hours=1), NOW + DAY, ""),
    ],
)
def test_a_key_counts_while_it_is_valid_both_then_and_now(begin: datetime, end: datetime, expected: str) -> None:
    key = PrivateKey.generate()
    entry = trusted(key, Role.OFFICER, "dora", "application", begin=begin, end=end)
    trust = with_root(replace(RING.root, keys=(*RING.root.keys, entry)))
    envelope = seal(APPROVAL, key)
    if expected:
        assert code(lambda: trust.verify(envelope, ImageApproval, NOW)) == expected
    else:
        trust.verify(envelope, ImageApproval, NOW)


def test_a_statement_from_the_future_beyond_the_skew_of_clocks_is_refused() -> None:
    near = replace(APPROVAL, issued=NOW + timedelta(minutes=5))
    far = replace(APPROVAL, issued=NOW + timedelta(minutes=5, seconds=1))
    RING.trust.verify(seal(near, RING.alice), ImageApproval, NOW)
    assert code(lambda: RING.trust.verify(seal(far, RING.alice), ImageApproval, NOW)) == "issued-in-future"


def test_an_expired_statement_is_refused_at_the_second_s9() -> None:
    envelope = seal(waiver(), RING.alice)
    end = waiver().expires
    RING.trust.verify(envelope, Waiver, end - timedelta(seconds=1))
    assert code(lambda: RING.trust.verify(envelope, Waiver, end)) == "expired"
    RING.trust.verify(envelope, Waiver, end, grace=timedelta(seconds=1))


def test_a_statement_that_ends_before_it_begins_is_refused() -> None:
    backwards = replace(APPROVAL, expires=APPROVAL.issued)
    assert code(lambda: RING.trust.verify(seal(backwards, RING.alice), ImageApproval, NOW)) == "malformed"


def test_a_revoked_key_no_longer_counts_and_roots_cannot_be_revoked_by_it() -> None:
    trust = RING.trust.revoking([RING.alice.public.id, RING.roots["rita"].public.id])
    error = refusal(lambda: trust.verify(seal(APPROVAL, RING.alice), ImageApproval, NOW))
    assert error.code == "key-revoked"
    trust.verify(seal(APPROVAL, RING.bob), ImageApproval, NOW)
    newer = replace(RING.root, version=2)
    updated = trust.update(RING.signed_root(newer), NOW)
    assert updated.root.version == 2
    assert code(lambda: updated.verify(seal(APPROVAL, RING.alice), ImageApproval, NOW)) == "key-revoked"


def test_p256_keys_work_as_ed25519_ones() -> None:
    ring = keyring(algorithm=Algorithm.ECDSA_P256)
    cleared = scene(ring)
    assert ring.trust.verify(cleared.envelope, Clearance, NOW).statement == cleared.clearance


def test_what_cannot_be_read_is_refused_by_its_own_digest() -> None:
    error = refusal(lambda: RING.trust.verify(b"junk", ImageApproval, NOW))
    assert error.code == "malformed"
    assert error.subject == f"statement {Digest.of(b'junk')}"


def test_the_verifier_takes_any_statement_but_trust_json() -> None:
    verify = RING.trust.verifier(NOW)
    assert verify(seal(APPROVAL, RING.alice)).statement == APPROVAL
    assert code(lambda: verify(RING.envelope)) == "wrong-type"


def test_a_trust_json_needs_enough_of_its_roots() -> None:
    assert Trust.parse(RING.envelope, NOW).root == RING.root
    assert code(lambda: Trust.parse(seal(RING.root, RING.roots["rita"]), NOW)) == "too-few-roots"
    assert code(lambda: Trust.parse(seal(RING.root), NOW)) == "too-few-roots"
    assert code(lambda: Trust.parse(seal(RING.root, RING.alice, RING.bob), NOW)) == "too-few-roots"
    assert code(lambda: RING.trust.verify(RING.signed_root(RING.root, "rita"), TrustRoot, NOW)) == "too-few-signers"


def test_a_root_with_two_keys_is_one_root() -> None:
    second = PrivateKey.generate()
    root = replace(RING.root, keys=(*RING.root.keys, trusted(second, Role.ROOT, "rita")))
    assert code(lambda: Trust.parse(seal(root, RING.roots["rita"], second), NOW)) == "too-few-roots"


def test_another_statement_is_no_trust_json() -> None:
    assert code(lambda: Trust.parse(seal(APPROVAL, RING.alice), NOW)) == "wrong-type"


def test_an_expired_trust_json_proves_nothing_but_can_be_followed() -> None:
    late = RING.root.expires
    keys = tuple(replace(key, not_after=late + DAY) for key in RING.root.keys)
    old = with_root(replace(RING.root, keys=keys))
    newer = RING.signed_root(replace(old.root, version=2, issued=NOW, expires=late + DAY))
    assert code(lambda: Trust.parse(old.envelope, late)) == "trust-expired"
    assert code(lambda: old.verify(seal(APPROVAL, RING.alice), ImageApproval, late)) == "trust-expired"
    stored = Trust.stored(old.envelope, late)
    assert code(lambda: stored.check_in_force(late)) == "trust-expired"
    assert stored.update(newer, late).root.version == 2


def test_a_trust_json_from_the_future_is_refused() -> None:
    envelope = RING.signed_root(replace(RING.root, issued=NOW + DAY))
    assert code(lambda: Trust.parse(envelope, NOW)) == "issued-in-future"


def test_an_update_needs_enough_of_the_old_roots_and_of_the_new() -> None:
    thief = {owner: PrivateKey.generate() for owner in ("eve", "mallory")}
    others = tuple(key for key in RING.root.keys if key.role is not Role.ROOT)
    taken = tuple(trusted(key, Role.ROOT, owner) for owner, key in thief.items())
    hostile = replace(RING.root, version=2, keys=(*others, *taken))
    assert code(lambda: RING.trust.update(seal(hostile, *thief.values()), NOW)) == "too-few-roots"
    one_old = seal(hostile, *thief.values(), RING.roots["rita"])
    error = refusal(lambda: RING.trust.update(one_old, NOW))
    assert (error.code, error.subject) == ("too-few-roots", "trust.json of version 1")
    agreed = seal(hostile, *thief.values(), RING.roots["rita"], RING.roots["ron"])
    assert RING.trust.update(agreed, NOW).root == hostile
    only_old = seal(hostile, RING.roots["rita"], RING.roots["ron"])
    assert code(lambda: RING.trust.update(only_old, NOW)) == "too-few-roots"


@pytest.mark.parametrize(
    ("version", "expected"),
    [(1, "same-number-other-content"), (1001, ""), (1002, "number-jump"), (2**53 - 1, "number-jump")],
)
def test_the_version_of_trust_json_rises_by_a_thousand_at_most_s12(version: int, expected: str) -> None:
    envelope = RING.signed_root(replace(RING.root, version=version, issued=NOW))
    if expected:
        assert code(lambda: RING.trust.update(envelope, NOW)) == expected
    else:
        assert RING.trust.update(envelope, NOW).root.version == version


def test_an_older_trust_json_is_refused_and_the_same_is_no_change_s6() -> None:
    newer = RING.trust.update(RING.signed_root(replace(RING.root, version=2)), NOW)
    assert code(lambda: newer.update(RING.envelope, NOW)) == "number-went-back"
    assert newer.update(newer.envelope, NOW) is newer


def test_a_number_of_2_63_is_not_even_read_s12() -> None:
    payload = dsse.parse(LIST, what="envelope").payload.replace(b'"number":7', b'"number":9223372036854775808')
    envelope = dsse.sign(payload, [RING.alice, RING.bob])
    error = refusal(lambda: RING.trust.verify(envelope, RevocationList, NOW))
    assert error.code == "malformed"
    assert "2^53-1" in error.detail


def test_an_approval_that_the_registry_signed_itself_is_refused_s12() -> None:
    error = refusal(lambda: RING.trust.verify(seal(APPROVAL, RING.registry), ImageApproval, NOW))
    assert error.code == "wrong-role"
    assert "registry" in error.detail


def test_countersigning_looks_at_what_is_signed() -> None:
    with pytest.raises(TrustError) as refused:
        countersign(dsse.sign(b'{"anything":1}', [RING.alice]), RING.bob)
    assert refused.value.code == "malformed"


def test_the_end_of_a_statement() -> None:
    ends = {type(statement).__name__: expiry(statement) is not None for statement in EACH}
    assert {name for name, has in ends.items() if has} == {
        "TrustRoot",
        "ImageApproval",
        "LayerApproval",
        "Waiver",
        "ListDate",
        "IndexClearance",
        "Clearance",
    }
