"""What clients find beside an image: one clearance, one signature for each tag that serves it, nothing else."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from ocispec.digest import Digest
from ocispec.manifest import Manifest, parse_manifest
from policy import dsse
from policy.cosign import SIGNATURE_ANNOTATION, attestation_tag, signature_tag
from registry.access import REGISTRY as REGISTRY_ACCOUNT
from registry.audit import GENESIS, head, read, verify
from registry.catalogue import schema
from registry.catalogue.manifests import manifest_by_tag
from tests.support.bench import Bench
from tests.support.images import BuiltImage, image, index
from tests.support.trust import REGISTRY

REPOSITORY = "team/base"


@pytest.fixture
def bench(tmp_path: Path, database: str) -> Iterator[Bench]:
    made = Bench(tmp_path, database)
    made.publish()
    made.settle()
    yield made
    made.close()


def _cleared(bench: Bench, *tags: str, content: bytes = b"#!", platform: str = "linux/amd64") -> BuiltImage:
    built = image([{"bin/": b"", "bin/sh": content}], platform=platform)
    for tag in tags:
        bench.push(REPOSITORY, built, tag)
    if not tags:
        bench.push(REPOSITORY, built)
    bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    return built


def _layers(bench: Bench, tag: str) -> list[tuple[bytes, dict[str, str]]]:
    """The blobs under a tag, with their annotations; [] if there is no such tag."""
    with bench.catalogue.read() as conn:
        found = manifest_by_tag(conn, REPOSITORY, tag, served=False)
    if found is None:
        return []
    manifest = parse_manifest(found.content, found.media_type)
    assert isinstance(manifest, Manifest)
    contents = []
    for layer in manifest.layers:
        with bench.store.open(layer.digest) as blob:
            contents.append((blob.read(), dict(layer.annotations)))
    return contents


def _signed_tags(bench: Bench, digest: Digest) -> list[str]:
    """The tags that the signatures on `digest` are for; each must be right."""
    names = []
    for payload, notes in _layers(bench, signature_tag(digest)):
        signature = base64.b64decode(notes[SIGNATURE_ANNOTATION])
        assert bench.ring.registry.public.verifies(payload, signature)
        critical = json.loads(payload)["critical"]
        assert critical["image"]["docker-manifest-digest"] == str(digest)
        name = critical["identity"]["docker-reference"]
        assert name.startswith(f"{REGISTRY}/{REPOSITORY}:")
        names.append(name.rpartition(":")[2])
    return names


def _own_artifacts(bench: Bench, digest: Digest) -> int:
    table = schema.manifests.c
    own = (table.pushed_by == REGISTRY_ACCOUNT.name) & (table.state_of == digest)
    with bench.catalogue.read() as conn:
        return len(conn.scalars(select(table.digest).where(own)).all())


def test_each_serving_tag_has_its_signature(bench: Bench) -> None:
    built = _cleared(bench, "1", "latest")
    assert _signed_tags(bench, built.digest) == ["1", "latest"]
    bench.push(REPOSITORY, built, "stable")
    bench.settle()
    assert _signed_tags(bench, built.digest) == ["1", "latest", "stable"]


def test_tag_that_moves_away_takes_its_signature_along(bench: Bench) -> None:
    built = _cleared(bench, "1", "latest")
    newer = _cleared(bench, "latest", content=b"newer")
    assert _signed_tags(bench, built.digest) == ["1"]
    assert _signed_tags(bench, newer.digest) == ["latest"]


def test_children_of_a_served_index_are_signed_for_its_tag(bench: Bench) -> None:
    amd = _cleared(bench, "amd")
    arm = _cleared(bench, platform="linux/arm64")
    both = index([amd, arm])
    bench.push(REPOSITORY, both, "multi")
    bench.settle()
    assert _signed_tags(bench, both.digest) == ["multi"]
    assert _signed_tags(bench, amd.digest) == ["amd", "multi"]
    assert _signed_tags(bench, arm.digest) == ["multi"]
    bench.revoke(2, digests=(arm.digest,))
    bench.settle()
    for gone in (both, arm):
        assert _signed_tags(bench, gone.digest) == []


def test_renewal_replaces_the_clearance_and_keeps_the_signatures(bench: Bench) -> None:
    built = _cleared(bench, "1")
    before = _layers(bench, attestation_tag(built.digest))
    signatures = _layers(bench, signature_tag(built.digest))
    count = _own_artifacts(bench, built.digest)
    bench.pass_time(timedelta(days=4))
    bench.settle()
    after = _layers(bench, attestation_tag(built.digest))
    assert len(after) == 1
    assert after != before
    assert after[0][0] == bench.clearance(REPOSITORY, built.digest)
    assert dsse.parse(after[0][0], what="clearance").signatures
    assert _layers(bench, signature_tag(built.digest)) == signatures
    assert _own_artifacts(bench, built.digest) == count == 4


def test_denied_image_keeps_no_word_in_its_favour(bench: Bench) -> None:
    built = _cleared(bench, "1")
    bench.revoke(2, layers=built.diff_ids)
    bench.settle()
    assert _layers(bench, attestation_tag(built.digest)) == []
    assert _signed_tags(bench, built.digest) == []
    assert _own_artifacts(bench, built.digest) == 0
    bench.revoke(3)
    bench.settle()
    assert _signed_tags(bench, built.digest) == ["1"]
    assert _own_artifacts(bench, built.digest) == 4


def test_referrers_of_others_do_not_keep_the_clearance_out(bench: Bench) -> None:
    built = image([{"bin/": b"", "bin/sh": b"#!"}])
    bench.push(REPOSITORY, built, "1")
    for number in range(5):
        noise = image([{"noise": b"%d" % number}], subject=built.descriptor)
        bench.push(REPOSITORY, noise)
    bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob)
    bench.settle()
    assert _own_artifacts(bench, built.digest) == 4


def test_checkpoints_cover_the_chain_and_show_a_chain_that_was_written_anew(bench: Bench) -> None:
    _cleared(bench, "1")
    bench.pass_time(timedelta(minutes=2))
    bench.settle()
    with bench.catalogue.read() as conn:
        records = read(conn, after=0, limit=1000)
        signed = conn.scalars(select(schema.checkpoints.c.envelope)).all()
        assert head(conn)[0] == len(records)
    verifier = bench.ring.trust.verifier(bench.now)
    report = verify(records, signed, verify_envelope=verifier, registry=REGISTRY)
    assert report.sound
    assert report.covered == report.records > 0

    # Whoever has the database writes a whole new chain, every hash of it right.
    forged, previous = [], GENESIS
    for record in records:
        principal = "mallory" if record.seq == 1 else record.principal
        forged.append(
            type(record)(
                **{
                    name: getattr(record, name)
                    for name in record.__slots__
                    if name not in {"principal", "previous", "hash"}
                },
                principal=principal,
                previous=previous,
            ).sealed()
        )
        previous = forged[-1].hash
    report = verify(forged, signed, verify_envelope=verifier, registry=REGISTRY)
    assert {problem.code for problem in report.problems} == {"checkpoint-mismatch"}
    cut = verify(records[:2], signed, verify_envelope=verifier, registry=REGISTRY)
    assert "records-missing" in {problem.code for problem in cut.problems}
    other = verify(records, signed, verify_envelope=verifier, registry="other.example")
    assert {problem.code for problem in other.problems} == {"other-registry"}
    tag = bench.tag(REPOSITORY, "1").statement
    assert tag is not None
    wrong = verify(records, [tag], verify_envelope=verifier, registry=REGISTRY)
    assert {problem.code for problem in wrong.problems} == {"bad-checkpoint"}
