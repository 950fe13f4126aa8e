"""What the judge makes of what is pushed, published and revoked; on the bench, under a clock that is set."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from ocispec.descriptor import Descriptor, MediaType
from ocispec.manifest import Manifest, parse_manifest
from ocispec.platform import Platform
from policy.model import State
from policy.seal import seal
from policy.statements import Clearance, IndexClearance, ListDate, TagStatement, Withdrawal
from registry import statements
from registry.audit import Event, read
from registry.catalogue import schema
from registry.catalogue.manifests import remove_manifest
from tests.support import judging
from tests.support.bench import Bench
from tests.support.images import BuiltImage, image, index, layer

REPOSITORY = "team/app"
DAY = timedelta(days=1)


@pytest.fixture
def bench(tmp_path: Path, database: str) -> Iterator[Bench]:
    made = Bench(tmp_path, database)
    made.publish()
    yield made
    made.close()


def _base() -> BuiltImage:
    return image([{"bin/": b"", "bin/sh": b"#!"}])


def _app(base: BuiltImage, content: bytes = b"program") -> BuiltImage:
    return image([{"srv/": b"", "srv/app": content}], parent=base)


def _cleared(bench: Bench) -> tuple[BuiltImage, BuiltImage]:
    """An application on an approved base, both cleared, tag `1` serving the application."""
    base = _base()
    app = _app(base)
    bench.push(REPOSITORY, base, "base")
    bench.push(REPOSITORY, app, "1")
    bench.approve(REPOSITORY, base, "base", bench.ring.alice, bench.ring.bob)
    bench.approve(REPOSITORY, app, "application", bench.ring.team)
    bench.settle()
    assert bench.state(REPOSITORY, app.digest) is State.CLEARED
    return base, app


def test_pushed_image_waits_for_trust_policy_and_list(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    base = _base()
    bench.push(REPOSITORY, base, "1")
    bench.settle()
    row = bench.image(REPOSITORY, base.digest)
    assert (row.state, row.reason) == ("quarantined", "no-trust")
    bench.publish()
    bench.settle()
    assert bench.state(REPOSITORY, base.digest) is State.DENIED
    bench.close()


def test_approval_clears_and_moves_the_tag(bench: Bench) -> None:
    _, app = _cleared(bench)
    tag = bench.tag(REPOSITORY, "1")
    assert (tag.pushed, tag.served) == (app.digest, app.digest)
    assert tag.statement is not None
    said = bench.ring.trust.verify(tag.statement, TagStatement, bench.now).statement
    assert (said.digest, said.number) == (app.digest, 1)
    envelope = bench.clearance(REPOSITORY, app.digest)
    assert envelope is not None
    clearance = bench.ring.trust.verify(envelope, Clearance, bench.now).statement
    assert clearance.root_index == bench.facts(REPOSITORY, app).root_index


def test_s4_denied_push_leaves_what_is_served(bench: Bench) -> None:
    base, app = _cleared(bench)
    evil = _app(base, b"evil")
    bench.push(REPOSITORY, evil, "1")
    bench.settle()
    tag = bench.tag(REPOSITORY, "1")
    assert bench.state(REPOSITORY, evil.digest) is State.DENIED
    assert (tag.pushed, tag.served) == (evil.digest, app.digest)


def test_tag_moves_on_and_back_with_rising_numbers(bench: Bench) -> None:
    base, app = _cleared(bench)
    newer = _app(base, b"newer")
    numbers = []
    for pushed in (newer, app, newer):
        bench.push(REPOSITORY, pushed, "1")
        bench.approve(REPOSITORY, pushed, "application", bench.ring.team)
        bench.settle()
        tag = bench.tag(REPOSITORY, "1")
        assert tag.served == pushed.digest
        assert tag.statement is not None
        numbers.append(bench.ring.trust.verify(tag.statement, TagStatement, bench.now).statement.number)
    assert numbers == [2, 3, 4]


def test_s12_revoked_tag_serves_nothing_and_no_older_image(bench: Bench) -> None:
    base, app = _cleared(bench)
    newer = _app(base, b"newer")
    bench.push(REPOSITORY, newer, "1")
    bench.approve(REPOSITORY, newer, "application", bench.ring.team)
    bench.settle()
    bench.revoke(2, digests=(newer.digest,))
    bench.settle()
    assert bench.state(REPOSITORY, newer.digest) is State.REVOKED
    assert bench.state(REPOSITORY, app.digest) is State.CLEARED
    tag = bench.tag(REPOSITORY, "1")
    assert tag.served is None
    assert "revoked" in tag.reason
    assert bench.clearance(REPOSITORY, newer.digest) is None


def test_revocation_reaches_what_stands_on_it_and_ends_with_a_newer_list(bench: Bench) -> None:
    base, app = _cleared(bench)
    bench.revoke(2, layers=(base.diff_ids[0],))
    bench.settle()
    assert {bench.state(REPOSITORY, each.digest) for each in (base, app)} == {State.REVOKED}
    bench.revoke(3)
    bench.settle()
    assert {bench.state(REPOSITORY, each.digest) for each in (base, app)} == {State.CLEARED}
    assert bench.tag(REPOSITORY, "1").served == app.digest


def test_withdrawn_approval_denies_what_rested_on_it(bench: Bench) -> None:
    base = _base()
    bench.push(REPOSITORY, base, "base")
    approval = bench.approve(REPOSITORY, base, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    assert bench.state(REPOSITORY, base.digest) is State.CLEARED
    bench.post(seal(Withdrawal(statement=approval, reason="found a flaw", issued=bench.now), bench.ring.alice))
    bench.settle()
    assert bench.state(REPOSITORY, base.digest) is State.DENIED
    assert bench.tag(REPOSITORY, "base").served is None


def test_approval_by_two_people_in_two_envelopes(bench: Bench) -> None:
    base = _base()
    bench.push(REPOSITORY, base, "base")
    facts = bench.facts(REPOSITORY, base)
    bench.post(judging.approve(facts, "base", bench.ring.alice, now=bench.now))
    bench.settle()
    assert bench.image(REPOSITORY, base.digest).reason == "quorum-not-met"
    bench.post(judging.approve(facts, "base", bench.ring.bob, now=bench.now))
    bench.settle()
    assert bench.state(REPOSITORY, base.digest) is State.CLEARED


def test_newer_policy_judges_everything_again(bench: Bench) -> None:
    _, app = _cleared(bench)
    first = bench.image(REPOSITORY, app.digest).decision
    bench.pass_time(timedelta(minutes=1))
    bench.post(judging.published_policy(bench.ring, 2, now=bench.now))
    bench.settle()
    assert bench.image(REPOSITORY, app.digest).decision != first
    envelope = bench.clearance(REPOSITORY, app.digest)
    assert envelope is not None
    assert bench.ring.trust.verify(envelope, Clearance, bench.now).statement.policy_version == 2


def test_clearance_is_renewed_at_half_of_its_life(bench: Bench) -> None:
    _, app = _cleared(bench)
    first = bench.clearance(REPOSITORY, app.digest)
    bench.pass_time(3 * DAY)
    bench.settle()
    assert bench.clearance(REPOSITORY, app.digest) == first
    bench.pass_time(DAY)
    bench.settle()
    envelope = bench.clearance(REPOSITORY, app.digest)
    assert envelope != first
    assert envelope is not None
    assert bench.ring.trust.verify(envelope, Clearance, bench.now).statement.expires == bench.now + 7 * DAY


def test_clearance_ends_with_the_approval_that_it_rests_on(bench: Bench) -> None:
    _, app = _cleared(bench)
    for _ in range(40):
        bench.pass_time(DAY)
        bench.settle()
    row = bench.image(REPOSITORY, app.digest)
    assert row.state == "denied"
    assert bench.tag(REPOSITORY, "1").served is None


def test_clearance_that_cannot_be_renewed_ends(bench: Bench) -> None:
    _, app = _cleared(bench)

    def silent(_question: str) -> None:
        raise ConnectionRefusedError("no signer")

    bench.signer.before = silent
    bench.pass_time(4 * DAY)
    _try_for_a_while(bench)
    assert bench.state(REPOSITORY, app.digest) is State.CLEARED  # it still holds
    bench.pass_time(4 * DAY)
    _try_for_a_while(bench)
    row = bench.image(REPOSITORY, app.digest)
    assert (row.state, row.reason) == ("quarantined", "clearance-expired")
    bench.signer.before = lambda _question: None
    bench.pass_time(timedelta(minutes=10))
    bench.settle()
    assert bench.state(REPOSITORY, app.digest) is State.CLEARED


def _try_for_a_while(bench: Bench) -> None:
    for _ in range(20):
        bench.worker.step(0.01)


def test_s8_base_label_makes_no_parent(bench: Bench) -> None:
    base, _ = _cleared(bench)
    label = {"org.opencontainers.image.base.digest": str(base.digest), "org.opencontainers.image.base.name": "base"}
    spoofed = image([{"bin/": b"", "bin/sh": b"#!"}, {"srv/app": b"evil"}], labels=label, annotations=label)
    squashed = image([{"bin/": b"", "bin/sh": b"#!", "srv/": b"", "srv/app": b"evil"}], labels=label)
    other = layer({"bin/": b"", "bin/sh": b"#!"}, compression="zstd")
    for each in (squashed, image([other.tar + bytes(512)], labels=label)):
        bench.push(REPOSITORY, each)
        bench.settle()
        assert bench.image(REPOSITORY, each.digest).reason == "no-approved-parent"
    bench.push(REPOSITORY, spoofed)  # its layers do begin with the base's, whatever the label says
    bench.settle()
    row = bench.image(REPOSITORY, spoofed.digest)
    assert (row.state, row.parent) == ("denied", base.digest)


def test_s7_index_is_cleared_with_its_children_and_falls_with_them(bench: Bench) -> None:
    _, app = _cleared(bench)
    arm_base = image([{"bin/": b"", "bin/sh": b"#!"}], platform="linux/arm64")
    bench.approve(REPOSITORY, arm_base, "base", bench.ring.alice, bench.ring.bob)
    other = image([{"srv/": b"", "srv/app": b"arm"}], parent=arm_base, platform="linux/arm64")
    both = index([app, other])
    bench.push(REPOSITORY, both, "multi")
    bench.settle()
    assert bench.image(REPOSITORY, both.digest).reason == "child-not-cleared"
    bench.approve(REPOSITORY, other, "application", bench.ring.alice)
    bench.settle()
    assert bench.state(REPOSITORY, both.digest) is State.CLEARED
    envelope = bench.clearance(REPOSITORY, both.digest)
    assert envelope is not None
    said = bench.ring.trust.verify(envelope, IndexClearance, bench.now).statement
    assert set(said.children) == {app.digest, other.digest}
    assert bench.tag(REPOSITORY, "multi").served == both.digest
    bench.revoke(2, digests=(other.digest,))
    bench.settle()
    assert bench.state(REPOSITORY, both.digest) is State.DENIED
    assert bench.tag(REPOSITORY, "multi").served is None


def test_s7_two_children_that_match_equally_are_refused(bench: Bench) -> None:
    base, app = _cleared(bench)
    evil = _app(base, b"evil")
    bench.push(REPOSITORY, evil)
    both = index([app, evil])
    bench.push(REPOSITORY, both, "multi")
    bench.settle()
    row = bench.image(REPOSITORY, both.digest)
    assert (row.state, row.reason) == ("denied", "index-ambiguous")


def test_s7_attestation_children_do_not_count(bench: Bench) -> None:
    _, app = _cleared(bench)
    attestation = image([{"a": b"1"}], platform="unknown/unknown")
    both = index(
        [app],
        others=[
            Descriptor(
                media_type=MediaType.OCI_MANIFEST,
                digest=attestation.digest,
                size=len(attestation.manifest.raw),
                platform=Platform.parse("unknown/unknown"),
            )
        ],
    )
    bench.push(REPOSITORY, attestation)
    bench.push(REPOSITORY, both, "multi")
    bench.settle()
    assert bench.state(REPOSITORY, attestation.digest) is State.DENIED
    assert bench.state(REPOSITORY, both.digest) is State.CLEARED


def test_revoked_index_is_revoked(bench: Bench) -> None:
    _, app = _cleared(bench)
    both = index([app])
    bench.push(REPOSITORY, both, "multi")
    bench.settle()
    bench.revoke(2, digests=(both.digest,))
    bench.settle()
    assert bench.state(REPOSITORY, both.digest) is State.REVOKED
    assert bench.state(REPOSITORY, app.digest) is State.CLEARED
    bench.revoke(3)
    bench.settle()
    assert bench.state(REPOSITORY, both.digest) is State.CLEARED


def test_config_of_another_layer_is_refused(bench: Bench) -> None:
    one, other = image([{"a": b"1"}]), image([{"a": b"2"}])
    mixed = image([other.layers[0].tar], config={"rootfs": {"type": "layers", "diff_ids": [str(one.diff_ids[0])]}})
    bench.push(REPOSITORY, mixed)
    bench.settle()
    row = bench.image(REPOSITORY, mixed.digest)
    assert (row.state, row.reason) == ("denied", "diff-id-mismatch")


def test_layer_is_read_once_for_all_images(bench: Bench) -> None:
    base, _ = _cleared(bench)
    with bench.catalogue.read() as conn:
        before = conn.execute(select(schema.layers.c.digest, schema.layers.c.read)).all()
    bench.pass_time(DAY)
    newer = _app(base, b"newer")
    bench.push("other/app", newer)
    bench.settle()
    with bench.catalogue.read() as conn:
        after = conn.execute(select(schema.layers.c.digest, schema.layers.c.read)).all()
    assert set(before) < set(after)
    assert len(after) == len(before) + 1


def test_wrong_media_type_spoils_no_layer_for_others(bench: Bench) -> None:
    good = _base()
    blob = good.layers[0]
    lying = image([blob.tar], compression="gzip")
    raw = lying.manifest.raw.replace(b"tar+gzip", b"tar+zstd")
    bench._push_blobs(REPOSITORY, lying)
    parsed = parse_manifest(raw, lying.manifest.media_type)
    assert isinstance(parsed, Manifest)
    bench._push_manifest(REPOSITORY, parsed, None)
    bench.settle()
    assert bench.image(REPOSITORY, parsed.digest).reason == "layer-refused"
    bench.push(REPOSITORY, good)
    bench.approve(REPOSITORY, good, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    assert bench.state(REPOSITORY, good.digest) is State.CLEARED


def test_every_change_of_state_is_in_the_audit(bench: Bench) -> None:
    _, app = _cleared(bench)
    bench.revoke(2, digests=(app.digest,))
    bench.settle()
    with bench.catalogue.read() as conn:
        records = read(conn, after=0, limit=1000)
    changes = [
        (record.before.partition(":")[0], record.after.partition(":")[0])
        for record in records
        if record.event == Event.STATE and str(app.digest) in record.subject
    ]
    assert changes[-2:] == [("denied", "cleared"), ("cleared", "revoked")] or changes == [
        ("quarantined", "cleared"),
        ("cleared", "revoked"),
    ]
    served = [record for record in records if record.event == Event.SERVED]
    assert [record.after for record in served if record.subject == f"{REPOSITORY}:1"] == [str(app.digest)]


def test_deleted_image_is_no_error(bench: Bench) -> None:
    base = _base()
    bench.push(REPOSITORY, base)
    with bench.catalogue.write() as conn:
        remove_manifest(conn, REPOSITORY, base.digest)
    bench.settle()
    with bench.catalogue.read() as conn:
        left = conn.scalars(select(schema.jobs.c.kind)).all()
    assert "judge" not in left


def test_revocation_list_is_dated_again_before_its_date_ends(bench: Bench) -> None:
    bench.settle()

    def dated() -> ListDate:
        with bench.catalogue.read() as conn:
            found = statements.dated_list(conn)
        assert found is not None
        return bench.ring.trust.verify(found[1], ListDate, bench.now).statement

    first = dated()
    assert first.number == 1
    bench.pass_time(timedelta(hours=1, minutes=1))
    bench.settle()
    assert dated().issued == bench.now
    bench.revoke(2)
    bench.settle()
    assert dated().number == 2
