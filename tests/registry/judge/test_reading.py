"""Reading: followed uploads, hostile layers, and children that crash - which is never a pass (attack L6)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from ocispec.digest import Digest
from ocispec.fields import JsonObject
from policy.model import State
from registry.catalogue import schema
from registry.judge import layers
from registry.judge.works import WORKS
from tests.support.bench import Bench
from tests.support.images import BuiltImage, Link, image, tar

REPOSITORY = "team/app"


def _crash(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    raise MemoryError


def _vanish(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    os._exit(1)


def _nonsense(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    return (b"[]", b"x", b"y", b"z")


def _nothing(arguments: JsonObject, sources: Sequence[int]) -> tuple[bytes, ...]:
    return ()


def _image(content: bytes = b"#!") -> BuiltImage:
    return image([{"bin/": b"", "bin/sh": content}])


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.publish()
    made.settle()
    yield made
    made.close()


def _broken(bench: Bench, **works: object) -> None:
    """Replace what children do."""
    bench.worker.close()
    bench.works = {**WORKS, **works}  # type: ignore[dict-item]  # works, as the table has them
    bench.worker = bench.new_worker()


def _approved(bench: Bench) -> BuiltImage:
    built = _image()
    bench.approve(REPOSITORY, built, "base", bench.ring.alice, bench.ring.bob)
    bench.push(REPOSITORY, built, "1")
    return built


@pytest.mark.parametrize(
    ("works", "state", "reason"),
    [
        ({"layer": _crash}, State.QUARANTINED, "layer-unreadable"),
        ({"layer": _vanish}, State.QUARANTINED, "layer-unreadable"),
        ({"layer": _nonsense}, State.QUARANTINED, "layer-unreadable"),
        ({"layer": _nothing}, State.QUARANTINED, "layer-unreadable"),
        ({"image": _crash}, State.QUARANTINED, "image-unreadable"),
        ({"image": _nothing}, State.QUARANTINED, "image-unreadable"),
        ({"match": _crash}, State.DENIED, "scan-failed"),
        ({"match": _nonsense}, State.DENIED, "scan-failed"),
    ],
)
def test_l6_crashed_reader_or_scanner_is_not_a_pass(
    bench: Bench, works: Mapping[str, object], state: State, reason: str
) -> None:
    _broken(bench, **works)
    built = _approved(bench)
    bench.settle()
    row = bench.image(REPOSITORY, built.digest)
    assert (row.state, row.reason) == (str(state), reason), row.message
    assert bench.tag(REPOSITORY, "1").served is None
    _broken(bench)
    bench.pass_time(timedelta(days=1, minutes=1))
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.CLEARED


def test_l6_image_that_passed_is_denied_when_its_scan_crashes(bench: Bench) -> None:
    built = _approved(bench)
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.CLEARED
    _broken(bench, match=_crash)
    bench.pass_time(timedelta(days=4))
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.DENIED


def test_job_that_never_ends_is_put_aside(bench: Bench) -> None:
    built = _approved(bench)
    with bench.catalogue.write() as conn:
        conn.execute(schema.jobs.update().where(schema.jobs.c.kind == "judge").values(attempts=5))
    bench.settle()
    row = bench.image(REPOSITORY, built.digest)
    assert (row.state, row.reason) == ("quarantined", "judge-failed")
    bench.pass_time(timedelta(minutes=11))
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.CLEARED


@pytest.mark.parametrize(
    "content",
    [
        tar({"../evil": b"x"}),
        tar({"a": b"x" * 4000})[:1536],
        b"no tar at all" * 100,
    ],
    ids=["escape", "cut off", "no tar"],
)
def test_hostile_layer_is_refused_with_the_reason(bench: Bench, content: bytes) -> None:
    built = image([content], compression="none")
    bench.push(REPOSITORY, built, "1")
    bench.settle()
    row = bench.image(REPOSITORY, built.digest)
    assert (row.state, row.reason) == ("denied", "layer-refused")
    assert str(built.layers[0].descriptor.digest) in row.message


def test_layers_that_do_not_fit_are_refused_with_the_reason(bench: Bench) -> None:
    built = image([{"a": Link("missing", hard=True)}])
    bench.push(REPOSITORY, built, "1")
    bench.settle()
    row = bench.image(REPOSITORY, built.digest)
    assert (row.state, row.reason) == ("denied", "layers-do-not-fit")


def _known(bench: Bench) -> int:
    with bench.catalogue.read() as conn:
        return len(conn.execute(select(schema.layers.c.digest)).all())


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_upload_is_read_while_it_arrives(bench: Bench, compression: str) -> None:
    built = image([{"bin/": b"", "bin/big": os.urandom(700_000)}], compression=compression)
    blob = built.layers[0].blob
    upload = bench.store.begin()
    for start in range(0, len(blob), 100_000):
        upload = bench.store.append(upload, [blob[start : start + 100_000]])
        if start == 0:
            bench.worker.reader.uploads.begun(upload.id)
        bench.worker.step(0.01)
    digest = built.layers[0].descriptor.digest
    bench.store.commit(upload, digest)
    bench.worker.reader.uploads.ended(upload.id, digest, len(blob))
    bench.settle()
    with bench.catalogue.read() as conn:
        known = layers.find_layer(conn, digest)
    assert known is not None
    assert (known.diff_id, known.compression) == (built.diff_ids[0], compression)
    _broken(bench, layer=_crash)  # it is not needed any more
    bench.push(REPOSITORY, built)
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.DENIED
    assert bench.image(REPOSITORY, built.digest).reason == "no-approved-parent"


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_upload_that_is_over_soon_is_read_afterwards(bench: Bench, compression: str) -> None:
    built = image([{"bin/": b"", "bin/big": os.urandom(700_000)}], compression=compression)
    layer = built.layers[0]
    worker = bench.new_worker(short=3600.0)
    upload = bench.store.append(bench.store.begin(), [layer.blob])
    worker.reader.uploads.begun(upload.id)
    worker.step(0.0)
    meanwhile = worker.tasks.busy
    digest = layer.descriptor.digest
    bench.store.commit(upload, digest)
    worker.reader.uploads.ended(upload.id, digest, len(layer.blob))
    read_by = worker.reader.uploads.reading(digest)
    while worker.tasks.busy:
        worker.step(0.01)
    worker.close()
    assert (meanwhile, read_by) == (False, f"upload:{upload.id}")
    with bench.catalogue.read() as conn:
        known = layers.find_layer(conn, digest)
    assert known is not None
    assert (known.diff_id, known.compression) == (built.diff_ids[0], compression)


def test_short_upload_that_comes_to_nothing_is_forgotten(bench: Bench) -> None:
    worker = bench.new_worker(short=3600.0)
    upload = bench.store.append(bench.store.begin(), [_image().layers[0].blob])
    worker.reader.uploads.begun(upload.id)
    worker.reader.uploads.ended(upload.id, None, 0)
    worker.step(0.0)
    busy = worker.tasks.busy
    worker.close()
    assert not busy
    assert _known(bench) == 0


def test_short_upload_whose_blob_is_gone_is_left_for_later(bench: Bench) -> None:
    worker = bench.new_worker(short=3600.0)
    blob = _image().layers[0].blob
    upload = bench.store.append(bench.store.begin(), [blob])
    worker.reader.uploads.begun(upload.id)
    worker.reader.uploads.ended(upload.id, Digest.of(blob), len(blob))
    reading = worker.reader.uploads.reading(Digest.of(blob))
    worker.close()
    assert reading is None


def test_upload_that_becomes_another_blob_teaches_nothing(bench: Bench) -> None:
    built, other = _image(), _image(b"other")
    upload = bench.store.append(bench.store.begin(), [built.layers[0].blob])
    bench.worker.reader.uploads.begun(upload.id)
    bench.worker.step(0.01)
    bench.worker.reader.uploads.ended(upload.id, other.layers[0].descriptor.digest, len(built.layers[0].blob))
    bench.settle()
    assert _known(bench) == 0


def test_cancelled_upload_is_let_go(bench: Bench) -> None:
    upload = bench.store.append(bench.store.begin(), [_image().layers[0].blob])
    bench.worker.reader.uploads.begun(upload.id)
    busy = [bench.worker.tasks.busy]
    bench.worker.reader.uploads.ended(upload.id, None, 0)
    busy.append(bench.worker.tasks.busy)
    assert busy == [True, False]
    assert _known(bench) == 0


def test_config_upload_is_no_layer(bench: Bench) -> None:
    built = _image()
    upload = bench.store.append(bench.store.begin(), [built.config.raw])
    bench.worker.reader.uploads.begun(upload.id)
    bench.store.commit(upload, built.config.digest)
    bench.worker.reader.uploads.ended(upload.id, built.config.digest, len(built.config.raw))
    bench.settle()
    assert _known(bench) == 0


def test_lost_listing_is_made_again(bench: Bench) -> None:
    built = _approved(bench)
    bench.settle()
    for key in bench.store.derived():
        if key.name.startswith(("listing", "assembly")):
            bench.store.delete_derived(key)
    bench.pass_time(timedelta(days=4))
    bench.settle()
    assert bench.state(REPOSITORY, built.digest) is State.CLEARED


def test_missing_blob_is_said(bench: Bench) -> None:
    built = _approved(bench)
    bench.store.delete(built.layers[0].descriptor.digest)
    bench.settle()
    assert bench.image(REPOSITORY, built.digest).reason == "layer-missing"
