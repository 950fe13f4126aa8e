"""The clearance, proven on a host: each cause of a refusal has its own code, beside a start that differs in it only."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ocispec.config import parse_config
from ocispec.digest import Digest
from policy import hoststate
from policy.clearance import (
    CLEARANCE_LIFETIME,
    MAX_CLEARANCE_LIFETIME,
    HostView,
    Subject,
    Verified,
    make_clearance,
    verify_clearance,
)
from policy.errors import PolicyError
from policy.hoststate import HostState
from policy.model import Signed, State
from policy.private_key import PrivateKey
from policy.refusal import Refused
from policy.seal import seal
from policy.statements import (
    Clearance,
    ConfigFacts,
    ImageApproval,
    LayerApproval,
    PolicyFloor,
    PolicyStatement,
    RevocationList,
    Role,
    TagStatement,
    Waiver,
)
from policy.trust import Trust
from tests.support.images import image
from tests.support.trust import (
    DAY,
    NOW,
    REGISTRY,
    REPOSITORY,
    Scene,
    current_list,
    decision_of,
    digest,
    image_approval,
    image_facts,
    keyring,
    layer_approval,
    policy_statement,
    revocation_list,
    scene,
    subject_of,
    trusted,
    waiver,
)

SCENE = scene()
RING = SCENE.ring


def start(
    envelope: bytes = SCENE.envelope,
    *,
    subject: Subject = SCENE.subject,
    host: HostView = SCENE.host,
    now: datetime = NOW,
) -> Verified | Refused:
    return verify_clearance(envelope, subject=subject, host=host, now=now)


def refused(answer: Verified | Refused) -> Refused:
    """The refusal, after a control start of the unchanged scene succeeded."""
    assert isinstance(start(), Verified)
    assert isinstance(answer, Refused), answer
    assert answer.subject
    assert answer.detail
    return answer


def cleared(**changes: object) -> bytes:
    """A clearance with changes, signed by the registry's own key: a registry that turned hostile."""
    return SCENE.signed(replace(SCENE.clearance, **changes))  # type: ignore[arg-type]  # the values are of the fields' type


def listing(**entries: object) -> HostView:
    """The host with a newer list that revokes these."""
    revocations = replace(revocation_list(8), **entries)  # type: ignore[arg-type]  # as above
    return replace(SCENE.host, revocations=current_list(RING, revocations))


def test_a_clearance_is_proven_with_all_that_it_embeds() -> None:
    answer = start()
    assert isinstance(answer, Verified)
    assert answer.clearance.statement == SCENE.clearance
    assert answer.complete
    assert not answer.list_stale
    assert answer.policy.statement == policy_statement()
    assert {signed.statement.level for signed in answer.image_approvals} == {"base"}
    assert {signer.owner for signed in answer.image_approvals for signer in signed.signers} == {"alice", "bob"}
    assert [signed.statement.diff_id for signed in answer.layer_approvals] == [digest("app layer")]
    assert [signed.statement for signed in answer.waivers] == [waiver()]
    assert answer.until == SCENE.clearance.expires


def test_another_digest_is_refused() -> None:
    other = digest("another manifest")
    answer = refused(start(subject=replace(SCENE.subject, manifest=other)))
    assert answer.code == "other-digest"
    assert str(other) in answer.subject
    assert str(SCENE.image.manifest) in answer.detail


def test_another_repository_is_refused() -> None:
    answer = refused(start(subject=replace(SCENE.subject, repository="team/other")))
    assert answer.code == "other-repository"
    assert "team/other" in answer.subject


def test_another_registry_is_refused() -> None:
    assert refused(start(subject=replace(SCENE.subject, registry="mirror.example"))).code == "other-registry"


def test_another_config_is_refused_s11() -> None:
    assert refused(start(subject=replace(SCENE.subject, config=digest("another config")))).code == "other-config"


def test_config_facts_that_are_not_the_configs_are_refused_s11() -> None:
    lie = cleared(config_facts=replace(SCENE.clearance.config_facts, entrypoint=("/bin/sh",)))
    assert refused(start(lie)).code == "other-config-facts"


def test_other_layers_or_another_order_are_refused() -> None:
    swapped = replace(SCENE.subject, diff_ids=tuple(reversed(SCENE.subject.diff_ids)))
    assert refused(start(subject=swapped)).code == "other-layers"
    fewer = replace(SCENE.subject, diff_ids=SCENE.subject.diff_ids[:1])
    assert refused(start(subject=fewer)).code == "other-layers"
    assert refused(start(subject=replace(SCENE.subject, diff_ids=()))).code == "other-layers"


def test_another_chain_is_refused() -> None:
    assert refused(start(cleared(chain_id=digest("chain")))).code == "other-chain"


def test_another_platform_is_refused_s7() -> None:
    assert refused(start(subject=replace(SCENE.subject, platform="linux/arm64/v8"))).code == "other-platform"
    assert refused(start(subject=replace(SCENE.subject, platform="linux"))).code == "other-platform"
    spelled = cleared(platform="linux/arm64", approvals=SCENE.clearance.approvals)
    assert isinstance(start(spelled, subject=replace(SCENE.subject, platform="linux/arm64/v8")), Verified)


def test_a_user_other_than_the_host_found_in_the_tree_is_refused_s12() -> None:
    user = SCENE.clearance.user
    found = replace(SCENE.subject, user=user)
    assert isinstance(start(subject=found), Verified)
    answer = refused(start(cleared(user=replace(user, groups=(*user.groups, 0))), subject=found))
    assert answer.code == "other-user"


def test_another_root_index_is_refused_s12() -> None:
    other = digest("another tree")
    answer = refused(start(subject=replace(SCENE.subject, root_index=other)))
    assert answer.code == "other-root-index"
    assert str(other) in answer.detail


def test_before_the_index_is_written_the_answer_is_not_complete() -> None:
    answer = start(subject=replace(SCENE.subject, root_index=None))
    assert isinstance(answer, Verified)
    assert not answer.complete


def test_a_root_index_of_an_unknown_format_is_refused() -> None:
    assert refused(start(cleared(format=2))).code == "unknown-format"
    assert refused(start(cleared(reader=2))).code == "unknown-format"


def test_an_expired_clearance_is_refused_at_the_second() -> None:
    end = SCENE.clearance.expires
    control = start(now=end - timedelta(seconds=1))
    assert isinstance(control, Verified)
    answer = refused(start(now=end))
    assert answer.code == "expired"
    assert answer.subject.startswith("statement sha256:")


def test_a_clearance_from_the_future_is_refused() -> None:
    later = NOW + timedelta(minutes=6)
    assert refused(start(cleared(issued=later, expires=later + DAY))).code == "issued-in-future"


def test_a_stolen_registry_key_cannot_clear_for_ever_s12() -> None:
    issued = SCENE.clearance.issued
    assert isinstance(start(cleared(expires=issued + MAX_CLEARANCE_LIFETIME)), Verified)
    answer = refused(start(cleared(expires=issued + MAX_CLEARANCE_LIFETIME + timedelta(seconds=1))))
    assert answer.code == "lifetime-too-long"


def test_an_unknown_key_is_refused() -> None:
    assert refused(start(seal(SCENE.clearance, PrivateKey.generate()))).code == "unknown-key"


def test_an_officer_does_not_clear() -> None:
    assert refused(start(seal(SCENE.clearance, RING.alice))).code == "wrong-role"


def test_a_statement_of_another_type_does_not_clear_s1() -> None:
    tag = TagStatement(
        registry=REGISTRY, repository=REPOSITORY, tag="1", digest=SCENE.image.manifest, number=1, issued=NOW
    )
    assert refused(start(seal(tag, RING.registry))).code == "wrong-type"


def test_what_is_no_envelope_does_not_clear_s1() -> None:
    assert refused(start(b"")).code == "malformed"
    assert refused(start(b'{"verified":true}')).code == "malformed"


def test_missing_approvals_are_refused() -> None:
    answer = refused(start(cleared(approvals=())))
    assert answer.code == "approvals-missing"
    assert str(SCENE.image.manifest) in answer.subject


def test_an_approval_by_the_registrys_own_key_is_refused_s12() -> None:
    own = seal(image_approval(SCENE.image), RING.registry)
    answer = refused(start(cleared(approvals=(own,))))
    assert answer.code == "approval-wrong-role"
    assert "registry" in answer.detail


def test_an_approval_for_a_level_that_its_key_has_not_is_refused() -> None:
    own = seal(layer_approval(SCENE.image.layers[1], "base"), RING.team)
    assert refused(start(cleared(approvals=(own,)))).code == "approval-wrong-level"


def test_an_approval_by_an_unknown_key_an_expired_and_a_forged_one_are_refused() -> None:
    approval = image_approval(SCENE.image)
    ended = replace(approval, issued=NOW - 2 * DAY, expires=NOW)
    assert refused(start(cleared(approvals=(seal(approval, PrivateKey.generate()),)))).code == "approval-unknown-key"
    assert refused(start(cleared(approvals=(seal(ended, RING.alice),)))).code == "approval-expired"
    forged = seal(approval, RING.alice).replace(b'"sig":"', b'"sig":"AAAA')
    assert refused(start(cleared(approvals=(forged,)))).code == "approval-bad-signature"
    assert refused(start(cleared(approvals=(b"approved!",)))).code == "approval-malformed"


def test_a_waiver_in_the_place_of_an_approval_is_refused_s1() -> None:
    assert refused(start(cleared(approvals=(seal(waiver(), RING.alice),)))).code == "approval-wrong-type"


def test_one_bad_approval_among_good_ones_is_refused() -> None:
    bad = seal(image_approval(SCENE.image), PrivateKey.generate())
    assert refused(start(cleared(approvals=(*SCENE.clearance.approvals, bad)))).code == "approval-unknown-key"


def test_an_approval_of_another_image_is_refused_s8() -> None:
    other = seal(image_approval(image_facts(layers=("other layer",), name="other"), "base"), RING.alice)
    assert refused(start(cleared(approvals=(other,)))).code == "approval-unrelated"
    nothing = seal(image_approval(image_facts(layers=(), name="empty"), "base"), RING.alice)
    assert refused(start(cleared(approvals=(nothing,)))).code == "approval-unrelated"
    above = seal(image_approval(image_facts(layers=("base layer", "app layer", "more"), name="above")), RING.alice)
    assert refused(start(cleared(approvals=(above,)))).code == "approval-unrelated"


def test_a_layer_approved_on_another_base_is_refused_l8() -> None:
    layer = SCENE.image.layers[1]
    bound = replace(layer_approval(layer), chain_id=layer.chain_id)
    assert isinstance(start(cleared(approvals=(seal(bound, RING.team),))), Verified)
    elsewhere = replace(bound, chain_id=digest("on an older base"))
    assert refused(start(cleared(approvals=(seal(elsewhere, RING.team),)))).code == "approval-unrelated"
    stray = replace(layer_approval(layer), diff_id=digest("some layer"))
    assert refused(start(cleared(approvals=(seal(stray, RING.team),)))).code == "approval-unrelated"


def test_another_tree_under_an_approved_manifest_is_refused_s12() -> None:
    approval = image_approval(SCENE.image)
    good = cleared(approvals=(seal(approval, RING.alice),))
    assert isinstance(start(good), Verified)
    # The registry and the host agree on the index; the officer approved another one.
    tree = replace(approval, root_index=digest("the approved tree"))
    assert refused(start(cleared(approvals=(seal(tree, RING.alice),)))).code == "approval-other-root-index"
    config = replace(approval, config=digest("the approved config"))
    assert refused(start(cleared(approvals=(seal(config, RING.alice),)))).code == "approval-other-config"
    facts = replace(approval, config_facts=ConfigFacts())
    assert refused(start(cleared(approvals=(seal(facts, RING.alice),)))).code == "approval-other-config"
    platform = replace(approval, platform="linux/arm64/v8")
    assert refused(start(cleared(approvals=(seal(platform, RING.alice),)))).code == "approval-other-platform"


def test_an_approval_with_an_index_of_an_older_writer_is_left_to_the_rules() -> None:
    older = replace(image_approval(SCENE.image), format=0, root_index=digest("written by format 0"))
    assert isinstance(start(cleared(approvals=(seal(older, RING.alice),))), Verified)


def test_a_waiver_must_stand_too_s9() -> None:
    ended = seal(replace(waiver(), issued=NOW - 2 * DAY, expires=NOW), RING.alice)
    assert refused(start(cleared(waivers=(ended,)))).code == "waiver-expired"
    own = seal(waiver(), RING.registry)
    assert refused(start(cleared(waivers=(own,)))).code == "waiver-wrong-role"


def test_a_policy_below_the_floor_is_refused_s6() -> None:
    floor = PolicyFloor(name="default", version=4, issued=NOW - DAY)
    signed = RING.trust.verify(seal(floor, RING.alice, RING.bob), PolicyFloor, NOW)
    at = RING.trust.verify(seal(replace(floor, version=3), RING.alice, RING.bob), PolicyFloor, NOW)
    raised = replace(SCENE.host, state=hoststate.see_floor(SCENE.host.state, signed, NOW))
    level = replace(SCENE.host, state=hoststate.see_floor(SCENE.host.state, at, NOW))
    assert isinstance(start(host=level), Verified)
    answer = refused(start(host=raised))
    assert (answer.code, answer.subject) == ("policy-below-floor", "policy default version 3")


def test_a_policy_whose_name_trust_json_does_not_list_is_refused() -> None:
    assert refused(start(cleared(policy_name="mine"))).code == "unknown-policy"


def test_a_policy_that_too_few_officers_signed_is_refused() -> None:
    for keys in ((RING.alice,), (RING.registry,)):
        answer = refused(start(cleared(policy=seal(policy_statement(), *keys))))
        assert answer.code in {"policy-too-few-signers", "policy-wrong-role"}


def test_another_policy_than_the_one_named_is_refused() -> None:
    other = policy_statement(b"name: default\nlevels: {}\n")
    assert refused(start(cleared(policy=seal(other, RING.alice, RING.bob)))).code == "policy-mismatch"
    newer = policy_statement(version=4)
    assert refused(start(cleared(policy=seal(newer, RING.alice, RING.bob)))).code == "policy-mismatch"
    assert refused(start(cleared(policy_digest=digest("x")))).code == "policy-mismatch"


@pytest.mark.parametrize(
    ("entries", "code"),
    [
        ({"digests": (SCENE.image.manifest,)}, "revoked-digest"),
        ({"digests": (SCENE.image.config,)}, "revoked-digest"),
        ({"digests": (SCENE.image.root_index,)}, "revoked-digest"),
        ({"digests": (SCENE.clearance.policy_digest,)}, "revoked-digest"),
        ({"digests": (SCENE.approvals[0].digest,)}, "revoked-digest"),
        ({"layers": (SCENE.image.layers[0].diff_id,)}, "revoked-layer"),
        ({"components": ("pkg:deb/debian/openssl@3.5.0-1",)}, "revoked-component"),
        ({"components": ("pkg:pypi/flask@*",)}, "revoked-component"),
        ({"keys": (RING.registry.public.id,)}, "key-revoked"),
        ({"keys": (RING.team.public.id,)}, "approval-key-revoked"),
    ],
)
def test_what_is_on_the_revocation_list_is_refused(entries: dict[str, object], code: str) -> None:
    if entries.get("keys") == (RING.registry.public.id,):
        # That list cannot be dated by the same key either; here an honest second key of the registry does.
        second = PrivateKey.generate()
        root = replace(RING.root, keys=(*RING.root.keys, trusted(second, Role.REGISTRY, REGISTRY)))
        ring = replace(RING, trust=Trust.parse(RING.signed_root(root), NOW), registry=second)
        current = current_list(ring, revocation_list(8, keys=(RING.registry.public.id,)))
        host = replace(SCENE.host, trust=ring.trust, revocations=current)
    else:
        host = listing(**entries)
    control = start(host=listing(digests=(digest("something else"),)))
    assert isinstance(control, Verified)
    assert refused(start(host=host)).code == code


def test_an_index_on_the_revocation_list_takes_its_children_with_it() -> None:
    subject = replace(SCENE.subject, index=digest("index"))
    assert isinstance(start(subject=subject), Verified)
    assert refused(start(subject=subject, host=listing(digests=(digest("index"),)))).code == "revoked-digest"


def test_a_host_clock_set_back_is_refused() -> None:
    seen = SCENE.host.state.highest_time
    assert seen is not None
    assert isinstance(start(now=seen - timedelta(minutes=5) + timedelta(hours=1)), Verified)
    answer = refused(start(now=seen - timedelta(minutes=5, seconds=1)))
    assert (answer.code, answer.subject) == ("clock-set-back", "host clock")
    assert refused(start(now=datetime(1969, 7, 20, tzinfo=UTC))).code == "clock-set-back"


def test_a_clock_set_back_cannot_revive_what_expired() -> None:
    end = SCENE.clearance.expires
    state = hoststate.see_time(SCENE.host.state, end, end)
    host = replace(SCENE.host, state=state)
    assert isinstance(start(now=end - timedelta(seconds=1), host=host), Verified)
    assert refused(start(now=end - timedelta(minutes=6), host=host)).code == "clock-set-back"


def test_a_fresh_host_starts_nothing_before_its_first_list() -> None:
    host = replace(SCENE.host, revocations=None, state=HostState())
    assert refused(start(host=host)).code == "no-revocation-list"


def test_a_list_past_its_grace_is_refused_and_in_it_is_shown_s12() -> None:
    current = SCENE.host.revocations
    assert current is not None
    stale = start(now=current.date.statement.expires)
    assert isinstance(stale, Verified)
    assert stale.list_stale
    longer = cleared(expires=current.ends + 9 * DAY)
    approvals = tuple(
        seal(replace(signed.statement, expires=NOW + 40 * DAY), *_keys_of(signed)) for signed in SCENE.approvals
    )
    waivers = (seal(replace(waiver(), expires=NOW + 40 * DAY), RING.alice),)
    longer = cleared(expires=current.ends + 9 * DAY, approvals=approvals, waivers=waivers)
    assert isinstance(start(longer, now=current.ends - timedelta(seconds=1)), Verified)
    assert refused(start(longer, now=current.ends)).code == "revocation-list-expired"


def _keys_of(signed: Signed[ImageApproval] | Signed[LayerApproval]) -> tuple[PrivateKey, ...]:
    keys = {key.public.id: key for key in (RING.alice, RING.bob, RING.team)}
    return tuple(keys[signer.key] for signer in signed.signers)


def test_a_stored_list_older_than_the_one_seen_is_refused_s6() -> None:
    newer = current_list(RING, revocation_list(8))
    host = replace(SCENE.host, state=hoststate.see_list(SCENE.host.state, newer, NOW))
    assert refused(start(host=host)).code == "number-went-back"
    other = current_list(RING, revocation_list(7, layers=(digest("x"),)))
    assert refused(start(host=replace(SCENE.host, revocations=other))).code == "same-number-other-content"


def test_an_expired_trust_json_is_refused() -> None:
    late = NOW + timedelta(hours=1)
    trust = Trust.parse(RING.signed_root(replace(RING.root, expires=late)), NOW)
    assert isinstance(start(host=replace(SCENE.host, trust=trust)), Verified)
    assert refused(start(host=replace(SCENE.host, trust=trust), now=late)).code == "trust-expired"


@pytest.mark.parametrize("state", ["denied", "quarantined", "revoked", "fine"])
def test_a_state_in_which_nothing_starts_is_refused(state: str) -> None:
    assert isinstance(start(cleared(state="grace")), Verified)
    assert refused(start(cleared(state=state))).code == "state-not-startable"


def test_a_result_ends_with_the_first_thing_that_it_rests_on() -> None:
    approval = replace(image_approval(SCENE.image), expires=NOW + timedelta(hours=3))
    answer = start(cleared(approvals=(seal(approval, RING.alice),)))
    assert isinstance(answer, Verified)
    assert answer.until == approval.expires
    key = PrivateKey.generate()
    brief = trusted(key, Role.OFFICER, "dora", "application", end=NOW + timedelta(hours=2))
    trust = Trust.parse(RING.signed_root(replace(RING.root, keys=(*RING.root.keys, brief))), NOW)
    host = replace(SCENE.host, trust=trust)
    answer = start(cleared(approvals=(seal(image_approval(SCENE.image), key),)), host=host)
    assert isinstance(answer, Verified)
    assert answer.until == brief.not_after


def test_a_cache_of_results_is_keyed_by_what_they_rest_on_and_never_by_a_tag_s3() -> None:
    answer = start()
    assert isinstance(answer, Verified)
    newer = start(host=listing(digests=(digest("something else"),)))
    assert isinstance(newer, Verified)
    trust = Trust.parse(RING.signed_root(replace(RING.root, version=2)), NOW)
    rotated = start(host=replace(SCENE.host, trust=trust))
    assert isinstance(rotated, Verified)
    keys = {answer.key, newer.key, rotated.key}
    assert len(keys) == 3
    for part in (SCENE.image.manifest, SCENE.clearance.policy_digest, RING.trust.digest):
        assert str(part) in answer.key
    assert "2026-12-01T07:00:00Z" in answer.key
    # Nothing is remembered between calls: the same clearance, a moment after the list changed, is refused.
    assert isinstance(start(host=listing(digests=(SCENE.image.manifest,))), Refused)


def test_marks_in_an_envelope_that_somebody_else_added_are_nothing_s5() -> None:
    marked = SCENE.envelope.replace(b'{"payload":', b'{"verified":true,"payload":', 1)
    assert isinstance(start(marked), Verified)
    stripped = seal(SCENE.clearance).replace(b'{"payload":', b'{"verified":true,"payload":', 1)
    assert refused(start(stripped)).code == "no-signature"


def test_the_subject_of_a_parsed_config_is_what_the_approval_tools_read() -> None:
    built = image([{"app": b"x"}])
    config = parse_config(built.config.raw)
    subject = Subject.of(
        registry=REGISTRY, repository=REPOSITORY, manifest=built.digest, config=config, root_index=digest("index")
    )
    assert subject.diff_ids == built.diff_ids
    assert subject.config == Digest.of(built.config.raw)
    assert subject.platform == str(config.platform)
    assert subject.config_facts.cmd == config.cmd


# Making one.

POLICY = RING.trust.verify(seal(policy_statement(), RING.alice, RING.bob), PolicyStatement, NOW)
WAIVED = RING.trust.verify(seal(waiver(), RING.alice), Waiver, NOW)


def made(target: Scene = SCENE, **changes: object) -> Clearance:
    given: dict[str, object] = {
        "image": target.image,
        "decision": decision_of(target.image, policy_statement(), tuple(each.digest for each in target.approvals)),
        "policy": POLICY,
        "statements": (*target.approvals, WAIVED),
        "components": (),
        "data": (),
        "issued": NOW + timedelta(microseconds=7),
    }
    return make_clearance(**{**given, **changes})  # type: ignore[arg-type]  # the values are of the parameters' type


def test_only_what_the_decision_rests_on_is_embedded() -> None:
    clearance = made()
    assert clearance.waivers == ()
    assert len(clearance.approvals) == 3
    assert clearance.issued == NOW
    assert clearance.expires == NOW + CLEARANCE_LIFETIME
    assert isinstance(start(SCENE.signed(clearance)), Verified)


def test_a_clearance_does_not_outlive_what_it_rests_on() -> None:
    decision = decision_of(SCENE.image, policy_statement(), tuple(each.digest for each in SCENE.approvals))
    graced = replace(decision, valid_until=NOW + timedelta(hours=5, microseconds=3))
    assert made(decision=graced).expires == NOW + timedelta(hours=5)
    assert made(lifetime=timedelta(days=60)).expires == NOW + 30 * DAY


def test_what_was_not_allowed_or_is_about_something_else_is_not_cleared() -> None:
    decision = decision_of(SCENE.image, policy_statement(), tuple(each.digest for each in SCENE.approvals))
    for changes, says in (
        ({"decision": replace(decision, state=State.DENIED)}, "denied"),
        ({"decision": replace(decision, image=digest("other"))}, "is about"),
        ({"decision": replace(decision, policy=digest("other"))}, "another policy"),
        ({"decision": replace(decision, policy_version=2)}, "another policy"),
        ({"decision": replace(decision, rests_on=(digest("lost"),))}, "was not given"),
        ({"decision": replace(decision, rests_on=(WAIVED.digest,))}, "no approval"),
        ({"image": replace(SCENE.image, user=None)}, "user"),
        ({"image": replace(SCENE.image, layers=())}, "no layer"),
    ):
        with pytest.raises(PolicyError, match=says):
            made(**changes)


def test_every_scene_is_made_of_these() -> None:
    ring = keyring(levels=("application",))
    assert ring.trust.root.list_threshold == 2
    assert subject_of(SCENE.image) == SCENE.subject
    assert isinstance(SCENE.host.revocations.list.statement if SCENE.host.revocations else None, RevocationList)
