"""Attacks on a host by whoever serves its images, or touches its store (attacks.md: S1, S3, S4, S6, S7, S10, S12, X9).

In each test a control that differs only in the cause is pulled or started.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.descriptor import Descriptor
from ocispec.errors import DigestMismatchError, SpecError
from ocispec.platform import Platform
from ocispec.reference import Reference
from policy import dsse
from policy.model import Signed
from policy.refusal import Refused
from policy.seal import seal
from policy.statements import Clearance, IndexClearance, LayerApproval, RevocationList, Waiver
from runtime import images
from runtime.admission import Proven
from runtime.errors import RequestError
from runtime.model import Bind
from runtime.ownfiles import replace_file
from runtime.pull import Pulled, pull
from runtime.watch import Watcher
from tests.support.cleared import ClearedImage, app_image, base_image
from tests.support.fakeregistry import Answer, Request
from tests.support.images import BuiltImage, index
from tests.support.ready import AMD64, WISH, Ready, ready
from tests.support.tools import need_root
from tests.support.trust import DAY, NOW, list_date, payload_of, revocation_list

pytestmark = pytest.mark.root


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Ready]:
    need_root()
    with ready(tmp_path / "store") as made:
        yield made


def _try(scene: Ready, app: ClearedImage, **changes: object) -> Pulled | Refused:
    reference = replace(app.reference, **changes)  # type: ignore[arg-type]  # a tag or a digest
    registry = scene.registry
    return pull(reference, host=scene.host, clock=registry.clock, platform=AMD64, access=registry.access)


def _code(result: object) -> str:
    assert isinstance(result, Refused), result
    return result.code


def _pulls(scene: Ready, app: ClearedImage, **changes: object) -> None:
    result = _try(scene, app, **changes)
    assert isinstance(result, Pulled), result


# S1: a signature over something else


def test_s1_a_clearance_of_another_image_repository_or_kind_clears_nothing(scene: Ready) -> None:
    """The payload is bound to digest and repository, and its type is checked (CVE-2022-35929)."""
    registry = scene.registry
    victim = registry.clear(app_image(base_image(), "victim"), "team/victim")
    elsewhere = registry.clear(victim.built, "team/elsewhere")
    offers: dict[str, tuple[bytes, str]] = {
        "of another image": (scene.app.envelope, "other-repository"),
        "of another repository": (elsewhere.envelope, "other-repository"),
        "a tag statement": (registry.tag_statement("team/victim", "1.0", victim.built.digest, 9), "wrong-type"),
        "an approval": (registry.approve(victim.facts, "application").envelope, "wrong-type"),
        "signed by nobody": (dsse.sign(payload_of(victim.envelope), []), "no-signature"),
        "one byte changed": (_changed_payload(victim.envelope), "bad-signature"),
        "cut short": (victim.envelope[:-20], "malformed"),
    }
    for name, (envelope, code) in offers.items():
        registry.detach("team/victim")
        registry.attach(victim.built, "team/victim", envelope, Clearance)
        assert _code(_try(scene, victim)) == code, name
    registry.attach(victim.built, "team/victim", victim.envelope, Clearance)
    _pulls(scene, victim)


def test_s1_a_tag_statement_of_another_tag_serves_nothing(scene: Ready) -> None:
    registry, digest = scene.registry, scene.app.built.digest
    offers = {
        "other-tag": registry.tag_statement("team/app", "2.0", digest, 9),
        "other-repository": registry.tag_statement("team/other", "1.0", digest, 9),
        "wrong-type": scene.app.envelope,
    }
    for code, envelope in offers.items():
        registry.serve_tag_envelope("team/app", "1.0", digest, envelope)
        assert _code(_try(scene, scene.app)) == code
    registry.serve_tag("team/app", "1.0", digest)
    _pulls(scene, scene.app)


def _changed_payload(envelope: bytes) -> bytes:
    payload = payload_of(envelope)
    members = json.loads(envelope)
    members["payload"] = base64.b64encode(payload.replace(b"PASSED", b"PASSEd")).decode()
    return json.dumps(members).encode()


# S3: what was once believed


def test_s3_a_revocation_counts_at_the_next_start_and_for_what_runs(scene: Ready) -> None:
    """Nothing is remembered as "verified": the same image is proven anew each time (CVE-2026-122321)."""
    proven = scene.start()
    assert isinstance(proven, Proven)
    watch = Watcher(host=scene.host, watched=proven.watched(), clock=scene.registry.clock, sync_every=0)
    assert watch() is None
    assert watch() is None
    scene.registry.revoke(revocation_list(8, digests=(scene.app.built.digest,)))
    reason = watch()
    assert reason is not None
    assert (reason.code, str(scene.app.built.digest) in reason.message) == ("revoked-digest", True)
    assert _code(scene.start()) == "revoked-digest"
    assert _code(scene.start(scene.app.pinned)) == "revoked-digest"


def test_s3_a_moved_tag_does_not_take_the_older_images_proof_along(scene: Ready) -> None:
    newer = scene.registry.clear(app_image(base_image(), "newer"))
    record = scene.pull(newer)
    scene.keep_with(approvals=())
    proven = scene.start()
    assert isinstance(proven, Proven)
    assert proven.record == record, "the tag leads to the newer one"
    assert _code(scene.start(scene.app.pinned)) == "approvals-missing", "and the older one is judged by itself"


# S4: one answer for the check, another for the use


def test_s4_a_tag_is_resolved_once_and_then_only_digests_are_asked_for(scene: Ready) -> None:
    registry = scene.registry
    newer = registry.clear(app_image(base_image(), "newer"))
    asked = len(registry.fake.requests)
    _pulls(scene, newer)
    manifests = [request.path for request in registry.fake.requests[asked:] if "/manifests/" in request.path]
    assert manifests
    assert all("/manifests/sha256:" in path for path in manifests)
    # The first try without credentials is answered 401.
    known = [request for request in registry.fake.requests[asked:] if "authorization" in request.headers]
    tags = [request.path for request in known if "/tags/" in request.path]
    assert tags == ["/api/v1/tags/1.0/team/app"]


def test_s4_a_second_answer_that_differs_is_refused(scene: Ready) -> None:
    registry = scene.registry
    good = registry.clear(app_image(base_image(), "good"), "team/good")
    evil = app_image(base_image(), "evil")
    registry.fake.add(evil, "team/good")
    seen: list[str] = []

    def second_time(request: Request) -> Answer | None:
        swapped = {
            f"/v2/team/good/manifests/{good.built.digest}": (evil.manifest.media_type, evil.manifest.raw),
            f"/v2/team/good/blobs/{good.built.config.digest}": ("application/x", evil.config.raw),
        }
        if request.path not in swapped:
            return None
        seen.append(request.path)
        media_type, body = swapped[request.path]
        return Answer(200, body, {"Content-Type": media_type, "Docker-Content-Digest": str(good.built.digest)})

    registry.fake.hook(second_time)
    with pytest.raises(DigestMismatchError, match=f"want {good.built.digest}"):
        _try(scene, good)
    assert seen
    registry.fake.unhook()
    _pulls(scene, good)


# S6: old, and validly signed


def test_s6_an_older_image_is_not_served_again(scene: Ready) -> None:
    registry = scene.registry
    older = registry.tag_statement("team/app", "1.0", scene.app.built.digest, 1)
    newer = registry.clear(app_image(base_image(), "newer"))
    _pulls(scene, newer)
    registry.serve_tag_envelope("team/app", "1.0", scene.app.built.digest, older)
    assert _code(_try(scene, scene.app)) == "number-went-back"
    replace_file(scene.host.store._tag(scene.app.reference), older)
    assert _code(scene.start()) == "number-went-back", "nor by a store that was put back"
    registry.serve_tag("team/app", "1.0", scene.app.built.digest, number=3)
    _pulls(scene, scene.app)
    scene.must_start()


def test_s6_an_older_clearance_ends_though_the_registry_offers_it_for_ever(scene: Ready) -> None:
    registry = scene.registry
    registry.now = NOW + 8 * DAY
    registry.revoke(revocation_list(8))
    assert _code(_try(scene, scene.app)) == "expired"
    registry.clear(scene.app.built)
    _pulls(scene, scene.app)
    scene.must_start()


# S7: an index between the check and what runs


def _amd64_and_arm64() -> tuple[BuiltImage, BuiltImage]:
    return app_image(base_image(), "amd64"), app_image(base_image(), "arm64", platform="linux/arm64/v8")


def test_s7_a_child_that_is_not_cleared_does_not_come_with_its_index(scene: Ready) -> None:
    registry = scene.registry
    amd64, arm64 = _amd64_and_arm64()
    app = registry.clear(amd64, "team/multi", tag=None)
    both = index([amd64, arm64])
    registry.clear_index(both, "team/multi", "1.0", arm64.digest)
    assert _code(_try(scene, app, tag="1.0")) == "child-not-cleared"
    registry.clear_index(both, "team/multi", "1.0", amd64.digest, arm64.digest)
    _pulls(scene, app, tag="1.0")


def test_s7_a_child_of_a_cleared_index_needs_a_clearance_of_its_own(scene: Ready) -> None:
    registry = scene.registry
    amd64, arm64 = _amd64_and_arm64()
    app = registry.clear(amd64, "team/multi", tag=None)
    registry.detach("team/multi")
    both = index([amd64, arm64])
    registry.clear_index(both, "team/multi", "1.0", amd64.digest, arm64.digest)
    assert _code(_try(scene, app, tag="1.0")) == "no-clearance"
    registry.attach(amd64, "team/multi", app.envelope, Clearance)
    _pulls(scene, app, tag="1.0")


def test_s7_two_children_that_match_equally_are_refused(scene: Ready) -> None:
    registry = scene.registry
    amd64, _ = _amd64_and_arm64()
    evil = app_image(base_image(), "evil")
    app = registry.clear(amd64, "team/multi", tag=None)
    two = index([amd64, evil])
    registry.clear_index(two, "team/multi", "1.0", amd64.digest, evil.digest)
    refused = _try(scene, app, tag="1.0")
    assert _code(refused) == "index-child"
    assert isinstance(refused, Refused)
    assert "2 children match linux/amd64 equally" in refused.detail
    registry.clear_index(index([amd64]), "team/multi", "2.0", amd64.digest)
    _pulls(scene, app, tag="2.0")


def test_s7_a_child_that_says_it_is_for_this_platform_and_is_not_is_refused(scene: Ready) -> None:
    registry = scene.registry
    _, arm64 = _amd64_and_arm64()
    app = registry.clear(arm64, "team/multi", tag=None)
    lying = Descriptor(
        media_type=arm64.manifest.media_type,
        digest=arm64.digest,
        size=len(arm64.manifest.raw),
        platform=Platform.parse("linux/amd64"),
    )
    registry.clear_index(index([], others=[lying]), "team/multi", "1.0", arm64.digest)
    assert _code(_try(scene, app, tag="1.0")) == "other-platform"


def test_s7_an_index_without_a_statement_is_refused(scene: Ready) -> None:
    registry = scene.registry
    amd64, arm64 = _amd64_and_arm64()
    app = registry.clear(amd64, "team/multi", tag=None)
    both = index([amd64, arm64])
    registry.fake.add(both, "team/multi")
    registry.serve_tag("team/multi", "1.0", both.digest)
    assert _code(_try(scene, app, tag="1.0")) == "no-index-clearance"
    forged = IndexClearance(
        registry=registry.fake.host,
        repository="team/multi",
        index=both.digest,
        children=(amd64.digest,),
        issued=NOW - timedelta(hours=1),
        expires=NOW + DAY,
    )
    registry.attach(both, "team/multi", seal(forged, registry.ring.team), IndexClearance)
    assert _code(_try(scene, app, tag="1.0")) == "wrong-role"
    registry.attach(both, "team/multi", registry.seal(forged), IndexClearance)
    _pulls(scene, app, tag="1.0")


def test_s7_a_revoked_index_takes_its_children_along(scene: Ready) -> None:
    registry = scene.registry
    amd64, arm64 = _amd64_and_arm64()
    app = registry.clear(amd64, "team/multi", tag=None)
    both = index([amd64, arm64])
    registry.clear_index(both, "team/multi", "1.0", amd64.digest)
    _pulls(scene, app, tag="1.0")
    reference = replace(app.reference, tag="1.0")
    assert isinstance(scene.start(reference), Proven)
    registry.revoke(revocation_list(8, digests=(both.digest,)))
    scene.host.sync(NOW)
    assert _code(scene.start(reference)) == "revoked-digest"


# S10: a trusted name for something else, in the store itself


def _poison_tag(scene: Ready, evil: ClearedImage) -> None:
    replace_file(scene.host.store._tag(scene.app.reference), scene.host.store.tag(evil.reference) or b"")


def _poison_tag_unsigned(scene: Ready, evil: ClearedImage) -> None:
    payload = payload_of(scene.registry.tag_statement("team/app", "1.0", evil.built.digest, 2))
    forged = dsse.sign(payload, [scene.registry.ring.team])
    replace_file(scene.host.store._tag(scene.app.reference), forged)


def _poison_record(scene: Ready, evil: ClearedImage) -> None:
    folder = scene.host.store.path / "images"
    other = scene.host.store.find(scene.registry.fake.host, "team/evil", evil.built.digest)
    assert other is not None
    mine = replace(scene.record, diff_ids=other.diff_ids, root_index=other.root_index)
    replace_file(folder / scene.record.key / "record", images.encode(mine))


def _poison_record_whole(scene: Ready, evil: ClearedImage) -> None:
    other = scene.host.store.find(scene.registry.fake.host, "team/evil", evil.built.digest)
    assert other is not None
    mine = replace(other, repository="team/app", manifest=scene.record.manifest)
    folder = scene.host.store.path / "images" / scene.record.key
    replace_file(folder / "record", images.encode(mine))
    replace_file(folder / "clearance", evil.envelope)


@pytest.mark.parametrize(
    ("poison", "code"),
    [
        (_poison_tag, "other-repository"),
        (_poison_tag_unsigned, "wrong-role"),
        (_poison_record, "other-layers"),
        (_poison_record_whole, "other-repository"),
    ],
)
def test_s10_a_store_cannot_be_made_to_call_another_image_by_a_trusted_name(
    scene: Ready, poison: Callable[[Ready, ClearedImage], None], code: str
) -> None:
    evil = scene.registry.clear(app_image(base_image(), "evil"), "team/evil")
    scene.pull(evil)
    scene.must_start()
    poison(scene, evil)
    assert _code(scene.start()) == code


# S12: a registry that turned hostile, with its online key in hand


def test_s12_another_tree_under_an_approved_manifest(scene: Ready) -> None:
    """The key signs a clearance that says: this manifest's root index is that of another tree."""
    registry = scene.registry
    victim = registry.clear(app_image(base_image(), "victim"), "team/victim")
    evil = registry.facts(app_image(base_image(), "evil"))
    registry.detach("team/victim")
    forged = replace(victim.clearance, root_index=evil.root_index)
    registry.attach(victim.built, "team/victim", registry.seal(forged), Clearance)
    assert _code(_try(scene, victim)) == "approval-other-root-index"
    registry.attach(victim.built, "team/victim", victim.envelope, Clearance)
    _pulls(scene, victim)


def test_s12_another_tree_under_an_image_whose_layer_alone_was_approved(scene: Ready) -> None:
    """Where no approval names the root index, the host's own is what it is compared with."""
    registry = scene.registry
    built = app_image(base_image(), "layered", entrypoint=None, user=None, env=("LANG=C",))
    facts = registry.facts(built)
    layer = LayerApproval(
        level="application",
        diff_id=built.diff_ids[1],
        chain_id=None,
        issued=NOW - timedelta(hours=2),
        expires=NOW + 30 * DAY,
    )
    approved: Signed[LayerApproval] = registry.ring.trust.verify(seal(layer, registry.ring.team), LayerApproval, NOW)
    base = registry.approve(registry.facts(base_image()), "base", registry.ring.alice, registry.ring.bob)
    honest = registry.decide(facts, (base, approved))
    registry.fake.add(built, "team/layered")
    registry.serve_tag("team/layered", "1.0", built.digest)
    app = ClearedImage(
        built=built,
        reference=replace(scene.app.reference, repository="team/layered"),
        facts=facts,
        clearance=replace(honest, repository="team/layered"),
        envelope=b"",
    )
    evil = registry.facts(app_image(base_image(), "evil"))
    for clearance, code in (
        (replace(app.clearance, root_index=evil.root_index), "other-root-index"),
        (app.clearance, ""),
    ):
        registry.detach("team/layered")
        registry.attach(built, "team/layered", registry.seal(clearance), Clearance)
        if code:
            assert _code(_try(scene, app)) == code
        else:
            _pulls(scene, app)


def test_s12_an_approval_that_it_signed_itself(scene: Ready) -> None:
    registry = scene.registry
    victim = registry.clear(app_image(base_image(), "victim"), "team/victim")
    honest = registry.approve(victim.facts, "application").statement
    forged = registry.seal(honest)
    registry.detach("team/victim")
    registry.attach(
        victim.built, "team/victim", registry.seal(replace(victim.clearance, approvals=(forged,))), Clearance
    )
    assert _code(_try(scene, victim)) == "approval-wrong-role"
    registry.attach(victim.built, "team/victim", victim.envelope, Clearance)
    _pulls(scene, victim)


def test_s12_a_waiver_that_it_signed_itself(scene: Ready) -> None:
    registry = scene.registry
    waiver = Waiver(
        rule="vulnerabilities",
        advisory="",
        component="pkg:deb/**",
        scope="**",
        owner="alice",
        reason="none",
        ticket="",
        issued=NOW - timedelta(hours=1),
        expires=NOW + DAY,
    )
    scene.keep_with(waivers=(registry.seal(waiver),))
    assert _code(scene.start()) == "waiver-wrong-role"


@pytest.mark.parametrize(
    ("number", "code"),
    [(0, ""), (1, "same-number-other-content"), (3, ""), (1002, "number-jump"), (2**63, "malformed")],
)
def test_s12_numbers_of_a_tag(scene: Ready, number: int, code: str) -> None:
    """An older served tag, the same number for another image, a jump, and 2^63 (0 stands for the next one)."""
    registry = scene.registry
    newer = registry.clear(app_image(base_image(), "newer"), tag=None)
    payload = payload_of(registry.tag_statement("team/app", "1.0", newer.built.digest, 2))
    changed = payload.replace(b'"number":2', b'"number":%d' % (number or 2))
    envelope = dsse.sign(changed, [registry.ring.registry])
    registry.serve_tag_envelope("team/app", "1.0", newer.built.digest, envelope)
    if code:
        assert _code(_try(scene, newer, tag="1.0")) == code
    else:
        _pulls(scene, newer, tag="1.0")


def test_s12_a_list_with_another_content(scene: Ready) -> None:
    """It may redate the officers' list; it cannot write one, drop a line of one, or serve an older one."""
    registry = scene.registry
    full = revocation_list(8, digests=(scene.app.built.digest,))
    registry.revoke(full)
    scene.host.sync(NOW)
    assert _code(scene.start()) == "revoked-digest"
    emptied: RevocationList = replace(full, digests=())
    for listed in (registry.seal(emptied), seal(revocation_list(7), registry.ring.alice, registry.ring.bob)):
        registry.serve_list(listed, registry.seal(list_date(listed, 8)))
        assert scene.host.sync(NOW).refused
        assert _code(scene.start()) == "revoked-digest", "what was revoked stays so"
    registry.revoke(replace(emptied, number=9))
    assert scene.host.sync(NOW).news == ("revocation list 9",), "the control: two officers take it back"
    scene.must_start()


def test_s12_a_withheld_revocation_stops_everything_in_the_end(scene: Ready) -> None:
    registry = scene.registry
    registry.fake.hook(lambda request: Answer(404) if request.path == "/api/v1/revocations" else None)
    proven = scene.start(now=NOW + 6 * DAY)
    assert isinstance(proven, Proven), "the control: in the grace"
    assert _code(scene.start(now=NOW + 9 * DAY)) == "revocation-list-expired"


# X9: no way round


def _flip(path: Path) -> None:
    mode = path.stat().st_mode
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.seek(-1024, os.SEEK_END)
        byte = file.read(1)
        file.seek(-1024, os.SEEK_END)
        file.write(bytes([byte[0] ^ 1]))
    path.chmod(mode)


def test_x9_one_byte_of_a_stored_layer(scene: Ready) -> None:
    scene.must_start()
    path = scene.host.store.layer(scene.app.built.diff_ids[1])
    _flip(path)
    refused = scene.start()
    assert _code(refused) == "layer-changed"
    assert isinstance(refused, Refused)
    assert refused.subject == str(scene.app.built.diff_ids[1])
    _flip(path)
    scene.must_start()


def test_x9_one_byte_of_the_root_index(scene: Ready) -> None:
    path = scene.host.store.index(scene.app.facts.root_index)
    _flip(path)
    assert _code(scene.start()) == "other-root-index"
    _flip(path)
    scene.must_start()


def test_x9_the_index_of_another_image(scene: Ready) -> None:
    evil = scene.registry.clear(app_image(base_image(), "evil"), "team/evil")
    scene.pull(evil)
    mine, other = (scene.host.store.index(facts.root_index) for facts in (scene.app.facts, evil.facts))
    right = mine.read_bytes()
    replace_file(mine, other.read_bytes(), mode=0o444)
    assert _code(scene.start()) == "other-root-index"
    replace_file(mine, right, mode=0o444)
    scene.must_start()


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda path: path.unlink(), "layer-unusable"),
        (lambda path: path.chmod(0o666), "layer-unusable"),
        (lambda path: os.chown(path, 1000, 1000), "layer-unusable"),
        (lambda path: (path.rename(path.with_name("x")), path.symlink_to(path.with_name("x"))), "layer-unusable"),
        (lambda path: replace_file(path, path.read_bytes()[:-512], mode=0o444), "layer-changed"),
        (lambda path: replace_file(path, path.read_bytes() + bytes(512), mode=0o444), "layer-changed"),
    ],
)
def test_x9_a_layer_that_is_missing_another_or_anybodys(
    scene: Ready, damage: Callable[[Path], object], code: str
) -> None:
    scene.must_start()
    damage(scene.host.store.layer(scene.app.built.diff_ids[0]))
    assert _code(scene.start()) == code


def test_x9_layers_in_each_others_place(scene: Ready) -> None:
    first, second = (scene.host.store.layer(diff_id) for diff_id in scene.app.built.diff_ids)
    one, two = first.read_bytes(), second.read_bytes()
    replace_file(first, two, mode=0o444)
    replace_file(second, one, mode=0o444)
    assert _code(scene.start()) == "layer-changed"


def test_x9_code_of_the_hosts_cannot_be_brought_along(scene: Ready) -> None:
    """A binary on a mount, the loader's variables, another command: nothing that no approval has seen runs."""
    binary = Bind(source="/srv/tools", target="/tools", noexec=False)
    assert _code(scene.start(wish=replace(WISH, mounts=(binary,)))) == "executable-mount-not-allowed"
    assert _code(scene.start(wish=replace(WISH, env=("LD_LIBRARY_PATH=/srv",)))) == "command-override"
    assert _code(scene.start(wish=replace(WISH, entrypoint=("/tools/sh",)))) == "command-override"
    plain = Bind(source="/srv/tools", target="/tools")
    assert isinstance(scene.start(wish=replace(WISH, mounts=(plain,))), Proven), "as data it may be read"
    with pytest.raises(RequestError):
        Bind(source="/srv/tools", target="/")


def test_x9_a_root_that_was_not_pulled_has_no_name(scene: Ready, tmp_path: Path) -> None:
    """There is no start without a reference into the store: a folder is none."""
    for text in (str(tmp_path), f"dir:{tmp_path}", f"oci:{tmp_path}"):
        with pytest.raises(SpecError):
            Reference.parse(text)
    assert _code(scene.start(replace(scene.app.reference, repository="rootfs"))) == "not-pulled"
