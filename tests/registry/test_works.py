"""What confined children answer about real layers, and what they make of hostile ones."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from ocispec import erofs, listing
from ocispec.digest import Digest
from ocispec.layer import read_layer
from ocispec.merge import merge
from ocispec.strictjson import parse_object
from policy import canonical
from registry import assemble
from registry.judge.child import Answered, Failed, Outcome, Refused
from registry.judge.confine import Cell, Limits
from registry.judge.keeper import Local
from registry.judge.warm import warm
from registry.judge.works import WORKS, bundle, read_report
from scanner import codec
from tests.support.images import BuiltImage, BuiltLayer, File, Link, image, layer

BASE = image(
    [
        {
            "etc/": b"",
            "etc/os-release": b'ID=debian\nVERSION_ID="13"\n',
            "etc/passwd": b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n",
            "etc/group": b"app:x:1000:\n",
            "bin/": b"",
            "bin/sh": File(b"#!", mode=0o755),
        }
    ]
)
APP = image([{"srv/": b"", "srv/app": b"v1", "bin/sh": b"mine", "var/lib/dpkg/status": b""}], parent=BASE, user="app")


@pytest.fixture
def spawner(tmp_path: Path) -> Local:
    root = tmp_path / "empty"
    root.mkdir(mode=0o755)
    warm()
    return Local(cell=Cell(root=root, require=True), works=WORKS)


def _do(spawner: Local, work: str, arguments: Mapping[str, str | int], contents: Sequence[bytes]) -> Outcome:
    sources = [_file(content) for content in contents]
    try:
        return spawner.spawn(work, arguments, sources=sources, limits=Limits(seconds=60)).wait()
    finally:
        for source in sources:
            os.close(source)


def _file(content: bytes) -> int:
    descriptor = os.memfd_create("test")
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


def _read(spawner: Local, built: BuiltLayer, **other: str | int) -> Outcome:
    arguments: dict[str, str | int] = {
        "mediaType": str(built.descriptor.media_type),
        "digest": str(built.descriptor.digest),
        "size": built.descriptor.size,
    }
    return _do(spawner, "layer", arguments | other, [built.blob])


def _parts(outcome: Outcome) -> tuple[bytes, ...]:
    assert isinstance(outcome, Answered), outcome
    return outcome.parts


def _assembled(spawner: Local, built: BuiltImage) -> tuple[assemble.Assembly, bytes]:
    parts = [part for each in built.layers for part in _parts(_read(spawner, each))[1:]]
    source = bundle(parts)
    try:
        arguments = {"layers": len(built.layers)}
        outcome = spawner.spawn("image", arguments, sources=[source], limits=Limits(seconds=60)).wait()
    finally:
        os.close(source)
    raw, index = _parts(outcome)
    return assemble.load(raw, layers=len(built.layers)), index


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_layer_is_read_as_by_anybody_else(spawner: Local, compression: str) -> None:
    built = layer({"etc/": b"", "etc/passwd": b"root:x:0:0::/:/bin/sh\n", "a": b"x" * 70_000}, compression=compression)
    head, listed, _, accounts = _parts(_read(spawner, built, diffId=str(built.diff_id)))
    assert parse_object(head, what="head") == {
        "compression": compression,
        "diffId": str(built.diff_id),
        "size": len(built.tar),
    }
    with (fd := os.fdopen(_file(built.tar), "rb")):
        assert listing.load(listed) == read_layer(fd, what="layer")
    assert b"etc/passwd" in accounts


def test_layer_that_is_not_its_digest_is_refused(spawner: Local) -> None:
    built = layer({"a": b"1"})
    other = layer({"a": b"2"})
    outcome = _read(spawner, built, diffId=str(other.diff_id))
    assert isinstance(outcome, Refused)
    assert "diff_id mismatch" in outcome.message
    assert isinstance(_read(spawner, built, size=built.descriptor.size + 1), Refused)
    assert isinstance(_read(spawner, built, mediaType="application/vnd.example"), Refused)


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_upload_is_read_while_it_arrives(spawner: Local, compression: str) -> None:
    built = layer({"a": os.urandom(300_000), "b": b"y" * 10_000}, compression=compression)
    reader, writer = os.pipe()

    def arrive() -> None:
        with os.fdopen(writer, "wb") as pipe:
            for start in range(0, len(built.blob), 10_000):
                pipe.write(built.blob[start : start + 10_000])

    child = spawner.spawn("follow", {}, sources=[reader], limits=Limits(seconds=60))
    os.close(reader)
    thread = threading.Thread(target=arrive)
    thread.start()
    stored, *rest = _parts(child.wait())
    thread.join()
    assert parse_object(stored, what="head") == {"digest": str(built.descriptor.digest), "stored": len(built.blob)}
    assert rest == list(_parts(_read(spawner, built)))


def test_upload_that_is_no_layer_is_not_read(spawner: Local) -> None:
    assert _do(spawner, "follow", {}, [b'{"architecture":"amd64"}']) == Refused(message="upload: not a layer")
    assert isinstance(_do(spawner, "follow", {}, [b""]), Refused)


def test_image_is_put_together_as_on_a_host(spawner: Local) -> None:
    made, index = _assembled(spawner, APP)
    contents = []
    for built in APP.layers:
        with os.fdopen(_file(built.tar), "rb") as tar:
            contents.append(read_layer(tar, what="layer"))
    assert index == erofs.root_index(merge(contents), contents)
    assert made.root_index == Digest.of(index)
    assert made.databases == (False, True)
    assert [(change.path, change.layer, change.kind) for change in made.changes] == [("/bin/sh", 1, "replaced")]
    assert made.inventory.operating_system is not None
    assert made.passwd == b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/srv:/bin/sh\n"


def test_x7_passwd_behind_a_symlink_is_nobody(spawner: Local) -> None:
    linked = image([{"etc/": b"", "etc/shadow": b"root:x:1:1::/:/bin/sh\n", "etc/passwd": Link("shadow")}])
    made, _ = _assembled(spawner, linked)
    assert made.passwd is None


def test_database_written_behind_a_symlink_is_seen(spawner: Local) -> None:
    base = image([{"var/": b"", "var/lib/": b"", "var/lib/dpkg/": b"", "lib": Link("var/lib")}])
    made, _ = _assembled(spawner, image([{"lib/dpkg/status": b"Package: x\n"}], parent=base))
    assert made.databases == (False, True)


def test_report_without_advisories_knows_nothing(spawner: Local) -> None:
    made, _ = _assembled(spawner, BASE)
    source = bundle([canonical.encode(assemble.clean(codec.to_json(made.inventory)))])
    try:
        outcome = spawner.spawn("match", {"now": 1_790_000_000}, sources=[source], limits=Limits(seconds=60)).wait()
    finally:
        os.close(source)
    report = read_report(_parts(outcome)[0])
    assert (report.data, report.findings) == ((), ())
    assert report.inventory == made.inventory


def test_l6_cut_off_input_is_refused_or_has_failed(spawner: Local) -> None:
    built = layer({"a": b"x" * 100_000}, compression="gzip")
    outcome = _do(
        spawner,
        "layer",
        {
            "mediaType": str(built.descriptor.media_type),
            "digest": str(built.descriptor.digest),
            "size": len(built.blob),
        },
        [built.blob[:-20]],
    )
    assert isinstance(outcome, Refused)
    assert isinstance(_do(spawner, "image", {"layers": 1}, [b"\0" * 12]), Refused)
    assert isinstance(_do(spawner, "match", {"now": 1}, [b""]), Refused | Failed)
