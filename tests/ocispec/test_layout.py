"""OCI layouts, their tags, and what stands in them that should not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from ocispec.blobs import choose_image, parse_as
from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.errors import DigestMismatchError, LimitError, MissingError, SourceError, SpecError
from ocispec.layout import Layout
from ocispec.manifest import MAX_MANIFEST, Manifest
from ocispec.platform import Platform
from tests.support.images import BuiltImage, image, index

AMD64 = Platform.parse("linux/amd64")


def _blob(folder: Path, digest: Digest) -> Path:
    return folder / "blobs" / digest.algorithm / digest.hex


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_an_image_is_found_by_its_tag_and_read(tmp_path: Path, compression: str) -> None:
    first, second = image(compression=compression), image([{"b": b"2"}], compression=compression)
    first.write_layout(tmp_path, "one")
    second.write_layout(tmp_path, "two:2")
    layout = Layout.open(tmp_path)
    found = choose_image(layout, layout.find("two:2"), AMD64)
    assert found.manifest == second.manifest
    assert found.config == second.config
    with found.layers[0].open() as stream:
        assert stream.read() == second.layers[0].blob
    assert found.layers[0].diff_id == second.diff_ids[0]


def test_without_a_tag_one_image_is_expected(tmp_path: Path) -> None:
    built = image()
    built.write_layout(tmp_path)
    assert Layout.open(tmp_path).find(None).digest == built.digest
    image([{"b": b"2"}]).write_layout(tmp_path, "other")
    with pytest.raises(SpecError, match="2 images, expected one"):
        Layout.open(tmp_path).find(None)
    with pytest.raises(MissingError, match="no image called 'none'"):
        Layout.open(tmp_path).find("none")


def test_two_images_of_one_tag_are_refused(tmp_path: Path) -> None:
    image().write_layout(tmp_path, "same")
    image([{"b": b"2"}]).write_layout(tmp_path, "same")
    with pytest.raises(SpecError, match="2 images, expected one"):
        Layout.open(tmp_path).find("same")


def test_entries_that_are_no_manifests_are_passed_over(tmp_path: Path) -> None:
    built = image()
    built.write_layout(tmp_path)
    document = json.loads((tmp_path / "index.json").read_bytes())
    document["manifests"].insert(0, {"mediaType": "application/xml", "digest": str(Digest.of(b"")), "size": 0})
    (tmp_path / "index.json").write_text(json.dumps(document))
    assert Layout.open(tmp_path).find(None).digest == built.digest


def test_s7_the_child_of_an_index_is_this_platforms(tmp_path: Path) -> None:
    amd64, arm64 = image(), image(platform="linux/arm64/v8")
    index([amd64, arm64]).write_layout(tmp_path, "multi")
    layout = Layout.open(tmp_path)
    assert choose_image(layout, layout.find("multi"), AMD64).manifest == amd64.manifest
    assert choose_image(layout, layout.find("multi"), Platform.parse("linux/arm64")).manifest == arm64.manifest


def test_s7_a_child_whose_config_is_for_another_platform_is_refused(tmp_path: Path) -> None:
    arm64 = image(platform="linux/arm64/v8")
    lying = Descriptor(
        media_type=MediaType.OCI_MANIFEST, digest=arm64.digest, size=len(arm64.manifest.raw), platform=AMD64
    )
    index([], others=[lying]).write_layout(tmp_path, "multi")
    arm64.write_layout(tmp_path, "arm64")
    layout = Layout.open(tmp_path)
    with pytest.raises(SpecError, match="has a config for linux/arm64/v8"):
        choose_image(layout, layout.find("multi"), AMD64)


def test_s7_a_child_that_is_an_index_is_refused(tmp_path: Path) -> None:
    inner = index([image()])
    inner.write_layout(tmp_path, "inner")
    listed = inner.descriptor.to_json() | {"platform": AMD64.to_json()}
    index([], others=[Descriptor.from_json(listed, what="x")]).write_layout(tmp_path, "outer")
    layout = Layout.open(tmp_path)
    with pytest.raises(SpecError, match="is an index, expected a manifest"):
        choose_image(layout, layout.find("outer"), AMD64)


def _tampered(folder: Path, built: BuiltImage, digest: Digest, content: bytes) -> Layout:
    built.write_layout(folder)
    _blob(folder, digest).write_bytes(content)
    return Layout.open(folder)


def test_a_changed_layer_cannot_be_read_to_its_end(tmp_path: Path) -> None:
    built = image()
    digest = built.layers[0].descriptor.digest
    changed = bytes([built.layers[0].blob[0] ^ 1]) + built.layers[0].blob[1:]
    layout = _tampered(tmp_path, built, digest, changed)
    with (
        choose_image(layout, layout.find(None), AMD64).layers[0].open() as stream,
        pytest.raises(DigestMismatchError, match=f"digest mismatch: .* want {digest}"),
    ):
        stream.read()


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"\n"])
def test_a_config_or_manifest_of_another_size_is_refused(tmp_path: Path, change: object) -> None:
    assert callable(change)
    built = image()
    layout = _tampered(tmp_path / "a", built, built.config.digest, change(built.config.raw))
    with pytest.raises(DigestMismatchError, match="size mismatch"):
        choose_image(layout, layout.find(None), AMD64)
    layout = _tampered(tmp_path / "b", built, built.digest, change(built.manifest.raw))
    with pytest.raises(DigestMismatchError, match="size mismatch"):
        layout.find(None)


def test_a_missing_blob_is_named(tmp_path: Path) -> None:
    built = image()
    built.write_layout(tmp_path)
    _blob(tmp_path, built.config.digest).unlink()
    layout = Layout.open(tmp_path)
    with pytest.raises(MissingError, match=f"blob {built.config.digest}: no such file"):
        choose_image(layout, layout.find(None), AMD64)


def test_a_fifo_where_a_blob_should_be_does_not_block(tmp_path: Path) -> None:
    built = image()
    built.write_layout(tmp_path)
    path = _blob(tmp_path, built.digest)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(SourceError, match="is not a regular file"):
        Layout.open(tmp_path).find(None)


def test_a_document_that_says_it_is_huge_is_not_read(tmp_path: Path) -> None:
    image().write_layout(tmp_path)
    huge = Descriptor(media_type=MediaType.OCI_MANIFEST, digest=Digest.of(b""), size=MAX_MANIFEST + 1)
    with pytest.raises(LimitError, match="expected at most"):
        Layout.open(tmp_path).read_manifest(huge)
    with pytest.raises(LimitError, match="expected at most"):
        parse_as(b" " * (MAX_MANIFEST + 1), huge)


def test_a_manifest_is_what_its_descriptor_says(tmp_path: Path) -> None:
    built = image()
    built.write_layout(tmp_path)
    layout = Layout.open(tmp_path)
    assert isinstance(layout.read_manifest(built.descriptor), Manifest)
    for media_type, reason in ((MediaType.OCI_INDEX, "sent as"), ("application/x", "expected a manifest or an index")):
        wrong = Descriptor(media_type=media_type, digest=built.digest, size=len(built.manifest.raw))
        with pytest.raises(SpecError, match=reason):
            layout.read_manifest(wrong)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("oci-layout", b'{"imageLayoutVersion":"2.0.0"}', "imageLayoutVersion is '2.0.0'"),
        ("oci-layout", b"{}", "imageLayoutVersion is missing"),
        ("oci-layout", b" " * 5000, "more than 4096 bytes"),
        ("index.json", b'{"schemaVersion":2}', "manifests is missing"),
        ("index.json", b"not json", "not JSON"),
        ("oci-layout", None, "no such file"),
        ("index.json", None, "no such file"),
    ],
)
def test_a_folder_that_is_no_layout_is_refused(tmp_path: Path, name: str, content: bytes | None, reason: str) -> None:
    image().write_layout(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=reason):
        Layout.open(tmp_path)


def test_an_empty_layout_has_no_image(tmp_path: Path) -> None:
    image().write_layout(tmp_path)
    (tmp_path / "index.json").write_text('{"schemaVersion":2,"manifests":[]}')
    with pytest.raises(MissingError, match="no image"):
        Layout.open(tmp_path).find(None)


def test_a_path_with_a_nul_is_refused() -> None:
    with pytest.raises(SourceError):
        Layout.open(Path("a\0b"))
