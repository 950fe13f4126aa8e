"""Attacks on the registry that no other file tries; docs/security.md has the table of all of them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.limits import LIMITS
from policy.seal import seal
from policy.statements import PolicyStatement
from policy.times import format_time
from tests.registry.desk import Desk
from tests.support import judging
from tests.support.bench import Bench
from tests.support.images import BuiltImage, BuiltLayer, image

TEAM = "team/app"
MIB = 1024 * 1024


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    bench = Bench(tmp_path)
    bench.publish()
    bench.settle()
    made = Desk(bench)
    yield made
    made.close()
    bench.close()


def bomb(mebibytes: int) -> BuiltImage:
    """An image whose layer is one file of zeros, a thousand times as large as what is stored; what it says is true."""
    info = tarfile.TarInfo("zeros")
    info.size = mebibytes * MIB
    head, end = info.tobuf(tarfile.PAX_FORMAT), bytes(1024)
    zeros = bytes(MIB)
    block = gzip.compress(zeros, mtime=0)
    blob = gzip.compress(head, mtime=0) + block * mebibytes + gzip.compress(end, mtime=0)
    running = hashlib.sha256(head)
    for _ in range(mebibytes):
        running.update(zeros)
    running.update(end)
    descriptor = Descriptor(media_type=MediaType.OCI_LAYER_GZIP, digest=Digest.of(blob), size=len(blob))
    layer = BuiltLayer(descriptor=descriptor, diff_id=Digest("sha256", running.hexdigest()), blob=blob, tar=b"")
    return image([], parent=replace(image(), layers=(layer,)))


def settle(bench: Bench) -> None:
    """Until nothing is due and no import goes on."""
    deadline = time.monotonic() + 120
    while not bench.worker.idle():
        assert time.monotonic() < deadline
        bench.worker.step(0.05)


def test_l5_a_bomb_is_denied_with_its_reason_and_nothing_else_suffers(desk: Desk) -> None:
    """GO-2026-5983: a scanner that inflates what an image says. Here a confined child does, and counts what comes."""
    made = bomb(2 * LIMITS.ratio_free // MIB)
    stored = made.layers[0].descriptor.size
    assert 2 * LIMITS.ratio_free > LIMITS.ratio * stored
    good = image([{"bin/": b"", "bin/sh": b"#!"}])
    desk.push(TEAM, made, "bomb")  # a push never fails for what is in it
    desk.push(TEAM, good, "good")
    desk.bench.approve(TEAM, good, "base", desk.bench.ring.alice, desk.bench.ring.bob)
    settle(desk.bench)
    row = desk.bench.image(TEAM, made.digest)
    assert (row.state, row.reason) == ("denied", "layer-refused")
    assert "stored bytes inflate to" in str(row.message)
    assert str(made.layers[0].descriptor.digest) in str(row.message)
    refused = desk.get("host", TEAM, "bomb")
    assert refused.status_code == 403
    assert "layer-refused" in refused.get_json()["errors"][0]["message"]
    assert desk.get("host", TEAM, "good").status_code == 200


def test_l5_sizes_that_lie_are_refused_at_the_push_or_by_the_judge(desk: Desk) -> None:
    """CVE-2026-61449: forged sizes. The blob's own, and both digests of a layer."""
    good = image([{"bin/": b"", "bin/sh": b"#!"}])
    desk.push_blobs(TEAM, *good.blobs.values())
    for size in (0, good.layers[0].descriptor.size - 1, good.layers[0].descriptor.size + 1, 2**40):
        members = json.loads(good.manifest.raw)
        members["layers"][0]["size"] = size
        assert desk.put(TEAM, "lying", json.dumps(members).encode()).status_code == 400
    layer = replace(good.layers[0], diff_id=Digest.of(b"another tar"))
    lying = image([], parent=replace(image(), layers=(layer,)))
    desk.push(TEAM, lying, "lying")
    settle(desk.bench)
    assert desk.bench.image(TEAM, lying.digest).state == "denied"
    assert desk.get("host", TEAM, "lying").status_code == 403


KNOWN = json.dumps({"vulnerabilities": [{"cveID": "CVE-2026-0001", "dateAdded": "2026-01-01"}]}).encode()


def hand_in(desk: Desk, kind: str, body: bytes) -> None:
    """Advisory data, and wait until they are in use."""
    for actor in ("pusher", "host", "officer", "auditor"):
        assert desk.ask(actor, "POST", f"/api/v1/advisories?kind={kind}", body).status_code == 403
    assert desk.ask("scanner", "POST", f"/api/v1/advisories?kind={kind}", body).status_code == 202
    settle(desk.bench)


def test_l7_data_are_as_old_as_their_hand_in_whatever_else_comes(desk: Desk) -> None:
    """What is matched by must not look fresh because something else was imported: a policy asks for its age."""
    bench = desk.bench
    document = judging.policy_document(2).replace(b"scan:\n", b"scan:\n  data:\n    - {source: kev, max_age: 7d}\n")
    newer = PolicyStatement(name="default", version=2, document=document, issued=bench.now + timedelta(seconds=1))
    desk.hand_in(seal(newer, bench.ring.alice, bench.ring.bob))
    good = image([{"bin/": b"", "bin/sh": b"#!"}])
    desk.push(TEAM, good, "1")
    bench.approve(TEAM, good, "base", bench.ring.alice, bench.ring.bob)
    settle(bench)
    assert bench.image(TEAM, good.digest).reason == "data-missing"
    hand_in(desk, "kev", KNOWN)
    assert bench.image(TEAM, good.digest).reason == "policy-holds"
    assert desk.get("host", TEAM, "1").status_code == 200
    bench.pass_time(timedelta(days=8))
    hand_in(desk, "osv", osv())
    assert bench.image(TEAM, good.digest).reason == "data-stale"
    assert desk.get("host", TEAM, "1").status_code == 403
    hand_in(desk, "kev", KNOWN + b" ")
    assert desk.get("host", TEAM, "1").status_code == 200


def osv(modified: str = "2026-01-01T00:00:00Z") -> bytes:
    """An export with one record."""
    record = {"schema_version": "1.6.0", "id": "DEBIAN-CVE-2026-1", "modified": modified, "affected": []}
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("DEBIAN-CVE-2026-1.json", json.dumps(record))
    return made.getvalue()


def test_l7_data_that_are_not_what_they_say_leave_what_is_in_use(desk: Desk) -> None:
    hand_in(desk, "kev", KNOWN)
    used = desk.ask("officer", "GET", "/api/v1/advisories").get_json()["snapshot"]
    assert used is not None
    for kind, body in (
        ("kev", b"{}"),
        ("kev", b"\x00" * 1000),
        ("osv", b"PK\x03\x04"),
        ("snapshot", b"SQLite format 3\x00"),
    ):
        hand_in(desk, kind, body)  # it is looked at in a child, later
        found = desk.ask("officer", "GET", "/api/v1/advisories").get_json()
        assert found["snapshot"] == used
        assert found["import"]["state"] == "failed"


def test_l7_data_are_not_taken_back(desk: Desk) -> None:
    """Whoever has a scanner's account, and older data, cannot make what is known unknown; an admin says so aloud."""

    def after(body: bytes, actor: str = "scanner", extra: str = "") -> tuple[str, str]:
        answer = desk.ask(actor, "POST", f"/api/v1/advisories?kind=osv&name=debian{extra}", body)
        assert answer.status_code == 202
        settle(desk.bench)
        ended = desk.ask("officer", "GET", "/api/v1/advisories").get_json()
        return ended["import"]["state"], ended["import"]["detail"]

    assert after(osv("2026-02-01T00:00:00Z"))[0] == "imported"
    used = desk.ask("officer", "GET", "/api/v1/advisories").get_json()["snapshot"]
    state, detail = after(osv("2026-01-31T23:59:59Z"))
    assert state == "failed"
    assert "debian: its newest record is of 2026-01-31T23:59:59Z, expected 2026-02-01T00:00:00Z or later" in detail
    assert desk.ask("officer", "GET", "/api/v1/advisories").get_json()["snapshot"] == used
    for actor in ("scanner", "officer"):
        path = "/api/v1/advisories?kind=osv&name=debian&older=true"
        assert desk.ask(actor, "POST", path, osv()).status_code == 403
    # A record of a time to come is no reason to refuse all that comes after it.
    assert after(osv("2099-01-01T00:00:00+00:00"))[0] == "imported"
    desk.bench.pass_time(timedelta(days=1))
    fresh = format_time(desk.bench.now)
    assert after(osv(fresh))[0] == "imported"
    assert after(osv("2026-02-01T00:00:00Z"))[0] == "failed"
    assert after(osv("2026-02-01T00:00:00Z"), "admin", "&older=true")[0] == "imported"
    assert after(osv("2026-01-31T00:00:00Z"))[0] == "failed"
