"""What the signer signs, and what a hostile worker or web process asks of it in vain."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from ocispec.digest import Digest
from policy import codec
from policy.errors import PolicyError, TrustError
from policy.model import Evidence, ImageFacts, State
from policy.private_key import PrivateKey
from policy.seal import seal
from policy.statements import AuditCheckpoint, Clearance, IndexClearance, ListDate, TagStatement, Withdrawal
from registry.signer.memory import Memory
from registry.signer.signer import MAX_MOVES_A_DAY, Signer
from tests.support import images, judging
from tests.support import trust as builders
from tests.support.judging import Heap
from tests.support.trust import DAY, NOW, REGISTRY, REPOSITORY, Keyring, digest


@dataclass(slots=True)
class Scene:
    """A signer that has trust, a policy and a revocation list, and an image on an approved base."""

    ring: Keyring
    signer: Signer
    memory: Memory
    now: datetime
    base: ImageFacts
    app: ImageFacts
    heap: Heap

    def evidence(self, image: ImageFacts | None = None, **changes: object) -> Evidence:
        made = judging.evidence_on(image or self.app, self.ring.trust, self.heap, now=self.now)
        return replace(made, **changes)  # type: ignore[arg-type]  # members by name

    def ask(self, evidence: Evidence) -> bytes:
        judged = self.signer.judge(codec.encode_evidence(evidence))
        assert judged.clearance is not None, judged.decision.refusals or judged.obstacle
        return judged.clearance

    def cleared(self, image: ImageFacts | None = None) -> bytes:
        return self.ask(self.evidence(image))


@pytest.fixture
def ring() -> Keyring:
    return builders.keyring()


@pytest.fixture
def scene(ring: Keyring, tmp_path: Path) -> Iterator[Scene]:
    memory = Memory(tmp_path / "memory.sqlite")
    now = [NOW]
    signer = Signer(key=ring.registry, registry=REGISTRY, memory=memory, clock=lambda: now[0])
    signer.take_trust(ring.envelope)
    signer.learn(judging.published_policy(ring, now=NOW - DAY))
    listed = judging.published_list(ring, now=NOW - DAY)
    signer.learn(listed)
    base = builders.image_facts(layers=("base layer",), name="base")
    app = builders.image_facts()
    heap = Heap(
        statements=(
            judging.approve(base, "base", ring.alice, ring.bob, now=NOW),
            judging.approve(app, "application", ring.team, now=NOW),
        ),
        revocations=listed,
    )
    made = Scene(ring=ring, signer=signer, memory=memory, now=NOW, base=base, app=app, heap=heap)
    yield made
    memory.close()


def _code(error: pytest.ExceptionInfo[TrustError]) -> str:
    return error.value.code


# ---- what it signs ---------------------------------------------------------------------------------------------


def test_cleared_image_gets_a_clearance_that_embeds_what_it_rests_on(scene: Scene) -> None:
    signed = scene.ring.trust.verify(scene.cleared(), Clearance, NOW)
    clearance = signed.statement
    assert (clearance.registry, clearance.repository, clearance.manifest) == (REGISTRY, REPOSITORY, scene.app.manifest)
    assert (clearance.state, clearance.level) == ("cleared", "application")
    assert set(clearance.approvals) == set(scene.heap.statements)
    assert clearance.expires == NOW + 7 * DAY


def test_denied_image_gets_a_decision_and_nothing_else(scene: Scene) -> None:
    found = judging.evidence_on(scene.app, scene.ring.trust, Heap(revocations=scene.heap.revocations), now=NOW)
    judged = scene.signer.judge(codec.encode_evidence(found))
    assert judged.clearance is None
    assert judged.decision.state is State.DENIED


def test_tag_number_rises_with_each_move_and_only_then(scene: Scene) -> None:
    app, base = scene.cleared(), scene.cleared(scene.base)
    numbers = []
    for clearance in (app, app, base, base, app):
        signed = scene.signer.sign_tag(REPOSITORY, "1", clearance)
        statement = scene.ring.trust.verify(signed.statement, TagStatement, NOW).statement
        numbers.append((statement.number, statement.digest))
    assert numbers == [
        (1, scene.app.manifest),
        (1, scene.app.manifest),
        (2, scene.base.manifest),
        (2, scene.base.manifest),
        (3, scene.app.manifest),
    ]


def test_numbers_survive_a_restart(scene: Scene, tmp_path: Path) -> None:
    scene.signer.sign_tag(REPOSITORY, "1", scene.cleared())
    scene.signer.sign_tag(REPOSITORY, "1", scene.cleared(scene.base))
    again = Memory(tmp_path / "memory.sqlite")
    signer = Signer(key=scene.ring.registry, registry=REGISTRY, memory=again, clock=lambda: NOW)
    signed = signer.sign_tag(REPOSITORY, "1", scene.cleared())
    assert scene.ring.trust.verify(signed.statement, TagStatement, NOW).statement.number == 3
    again.close()


def test_list_is_dated_for_as_long_as_the_policy_says(scene: Scene) -> None:
    date = scene.ring.trust.verify(scene.signer.date_list(), ListDate, NOW).statement
    assert (date.number, date.expires - date.issued) == (1, timedelta(hours=24))


def test_index_is_cleared_with_all_its_children(scene: Scene) -> None:
    built = images.image()
    child = replace(builders.image_facts(), manifest=built.digest)
    scene.heap = replace(
        scene.heap,
        statements=(*scene.heap.statements, judging.approve(child, "application", scene.ring.team, now=NOW)),
    )
    index = images.index([built])
    envelope = scene.signer.clear_index(REPOSITORY, index.index.raw, index.index.media_type, [scene.cleared(child)])
    statement = scene.ring.trust.verify(envelope, IndexClearance, NOW).statement
    assert (statement.index, statement.children) == (index.digest, (built.digest,))
    tag = scene.signer.sign_tag(REPOSITORY, "multi", envelope)
    assert [simple.digest for simple in tag.simple] == [index.digest, built.digest]
    for simple in tag.simple:
        assert scene.ring.registry.public.verifies(simple.payload, simple.signature)


# ---- what it refuses ------------------------------------------------------------------------------------------


def test_s12_foreign_registry_name_is_refused(scene: Scene) -> None:
    with pytest.raises(TrustError) as error:
        scene.cleared(replace(scene.app, registry="other.example"))
    assert _code(error) == "foreign-registry"


def test_s1_approvals_that_do_not_verify_are_refused(scene: Scene) -> None:
    evidence = scene.evidence()
    mallory = PrivateKey.generate()
    forged = judging.approve(scene.app, "application", mallory, now=NOW)
    approval = replace(evidence.image_approvals[0], envelope=forged)
    with pytest.raises(TrustError) as error:
        scene.ask(replace(evidence, image_approvals=(approval,)))
    assert _code(error) == "unknown-key"


def test_registry_key_approves_nothing(scene: Scene) -> None:
    evidence = scene.evidence()
    own = judging.approve(scene.app, "application", scene.ring.registry, now=NOW)
    approval = replace(evidence.image_approvals[0], envelope=own)
    with pytest.raises(TrustError) as error:
        scene.ask(replace(evidence, image_approvals=(approval,)))
    assert _code(error) == "wrong-role"


def test_s6_withheld_revocations_are_missed(scene: Scene) -> None:
    with pytest.raises(TrustError) as error:
        scene.ask(scene.evidence(revocations=None))
    assert _code(error) == "revocations-withheld"
    scene.signer.learn(judging.published_list(scene.ring, 2, now=NOW, digests=(scene.app.manifest,)))
    with pytest.raises(TrustError) as error:
        scene.cleared()
    assert _code(error) == "number-went-back"


def test_s6_withdrawn_approval_is_remembered(scene: Scene) -> None:
    evidence = scene.evidence()
    approval = evidence.image_approvals[0]
    scene.signer.learn(seal(Withdrawal(statement=approval.digest, reason="no", issued=NOW), scene.ring.alice))
    with pytest.raises(TrustError) as error:
        scene.ask(evidence)
    assert _code(error) == "withdrawn"


def test_s6_older_policy_and_trust_are_refused(scene: Scene) -> None:
    scene.signer.learn(judging.published_policy(scene.ring, 2, now=NOW))
    with pytest.raises(TrustError) as error:
        scene.signer.learn(judging.published_policy(scene.ring, 1, now=NOW))
    assert _code(error) == "number-went-back"
    newer = scene.ring.signed_root(replace(scene.ring.root, version=2))
    scene.signer.take_trust(newer)
    with pytest.raises(TrustError) as error:
        scene.signer.take_trust(scene.ring.envelope)
    assert _code(error) == "number-went-back"
    assert scene.signer.status().trust == 2


def test_trust_of_somebody_else_is_refused(scene: Scene) -> None:
    with pytest.raises(TrustError) as error:
        scene.signer.take_trust(builders.keyring().signed_root(replace(builders.keyring().root, version=2)))
    assert _code(error) == "too-few-roots"


def test_old_evidence_is_refused(scene: Scene) -> None:
    old = judging.evidence_on(scene.app, scene.ring.trust, scene.heap, now=NOW - timedelta(minutes=10))
    with pytest.raises(TrustError) as error:
        scene.ask(old)
    assert _code(error) == "evidence-out-of-date"


def test_evidence_that_is_no_evidence_is_refused(scene: Scene) -> None:
    with pytest.raises(PolicyError):
        scene.signer.judge(b'{"state":"cleared"}')


def test_tag_for_an_uncleared_digest_is_refused(scene: Scene) -> None:
    clearance = scene.ring.trust.verify(scene.cleared(), Clearance, NOW).statement
    forged = seal(replace(clearance, manifest=digest("evil")), PrivateKey.generate())
    with pytest.raises(TrustError) as error:
        scene.signer.sign_tag(REPOSITORY, "1", forged)
    assert _code(error) == "unknown-key"
    # Signed by its own key, but never by this signer: a clearance from a stolen copy of the key.
    with pytest.raises(TrustError) as error:
        scene.signer.sign_tag(REPOSITORY, "1", seal(replace(clearance, manifest=digest("evil")), scene.ring.registry))
    assert _code(error) == "superseded"


def test_tag_in_another_repository_is_refused(scene: Scene) -> None:
    with pytest.raises(TrustError) as error:
        scene.signer.sign_tag("team/other", "1", scene.cleared())
    assert _code(error) == "wrong-repository"


def test_tag_after_a_denial_is_refused(scene: Scene) -> None:
    clearance = scene.cleared()
    denied = judging.evidence_on(scene.app, scene.ring.trust, Heap(revocations=scene.heap.revocations), now=NOW)
    assert scene.signer.judge(codec.encode_evidence(denied)).clearance is None
    with pytest.raises(TrustError) as error:
        scene.signer.sign_tag(REPOSITORY, "1", clearance)
    assert _code(error) == "superseded"


def test_tag_after_a_revocation_is_refused(scene: Scene) -> None:
    clearance = scene.cleared()
    scene.signer.learn(judging.published_list(scene.ring, 2, now=NOW, layers=(scene.app.layers[1].diff_id,)))
    with pytest.raises(TrustError) as error:
        scene.signer.sign_tag(REPOSITORY, "1", clearance)
    assert _code(error) == "revoked-layer"


def test_s12_tag_numbers_cannot_be_burnt(scene: Scene) -> None:
    both = (scene.cleared(), scene.cleared(scene.base))
    for move in range(MAX_MOVES_A_DAY):
        scene.signer.sign_tag(REPOSITORY, "1", both[move % 2])
    with pytest.raises(TrustError) as error:
        scene.signer.sign_tag(REPOSITORY, "1", both[MAX_MOVES_A_DAY % 2])
    assert _code(error) == "too-many-moves"
    scene.signer.sign_tag(REPOSITORY, "2", both[0])


def test_s12_revocation_content_is_never_signed(scene: Scene) -> None:
    own = judging.published_list(scene.ring, 2, now=NOW)
    forged = seal(judging.wire_statement(own), scene.ring.registry)
    with pytest.raises(TrustError) as error:
        scene.signer.learn(forged)
    assert _code(error) == "wrong-role"
    assert scene.signer.status().revocations == 1


def test_s7_index_with_an_uncleared_child_is_refused(scene: Scene) -> None:
    index = images.index([images.image()])
    with pytest.raises(TrustError) as error:
        scene.signer.clear_index(REPOSITORY, index.index.raw, index.index.media_type, [scene.cleared()])
    assert _code(error) == "child-not-cleared"


def test_s7_index_with_two_equal_children_is_refused(scene: Scene) -> None:
    two = images.index([images.image(), images.image(env=["A=1"])])
    with pytest.raises(TrustError) as error:
        scene.signer.clear_index(REPOSITORY, two.index.raw, two.index.media_type, [scene.cleared()])
    assert _code(error) == "index-ambiguous"


def test_s7_child_for_another_platform_than_the_index_says_is_refused(scene: Scene) -> None:
    built = images.image(platform="linux/arm64")
    child = replace(scene.app, manifest=built.digest)
    scene.heap = replace(
        scene.heap,
        statements=(*scene.heap.statements, judging.approve(child, "application", scene.ring.team, now=NOW)),
    )
    index = images.index([built])
    with pytest.raises(TrustError) as error:
        scene.signer.clear_index(REPOSITORY, index.index.raw, index.index.media_type, [scene.cleared(child)])
    assert _code(error) == "platform-mismatch"


def test_chain_that_was_cut_or_changed_gets_no_checkpoint(scene: Scene) -> None:
    checkpoint = scene.signer.sign_checkpoint(10, digest("head 10"))
    assert scene.ring.trust.verify(checkpoint, AuditCheckpoint, NOW).statement.records == 10
    with pytest.raises(TrustError) as error:
        scene.signer.sign_checkpoint(9, digest("head 9"))
    assert _code(error) == "number-went-back"
    with pytest.raises(TrustError) as error:
        scene.signer.sign_checkpoint(10, digest("another head"))
    assert _code(error) == "same-number-other-content"


def test_key_that_trust_does_not_list_signs_nothing(ring: Keyring, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory.sqlite")
    signer = Signer(key=PrivateKey.generate(), registry=REGISTRY, memory=memory, clock=lambda: NOW)
    signer.take_trust(ring.envelope)
    with pytest.raises(TrustError) as error:
        signer.sign_checkpoint(1, Digest.of(b""))
    assert _code(error) == "unknown-key"
    memory.close()


def test_fresh_signer_signs_nothing(ring: Keyring, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "memory.sqlite")
    signer = Signer(key=ring.registry, registry=REGISTRY, memory=memory, clock=lambda: NOW)
    for ask in (lambda: signer.judge(b"{}"), lambda: signer.sign_checkpoint(1, Digest.of(b""))):
        with pytest.raises(TrustError) as error:
            ask()
        assert _code(error) == "no-trust"
    signer.take_trust(ring.envelope)
    with pytest.raises(TrustError) as error:
        signer.date_list()
    assert _code(error) == "no-revocation-list"
    memory.close()
