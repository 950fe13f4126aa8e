"""Docker archives: both forms, of our own making and of real tools, and archives that say two things."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ocispec.archive import Archive, open_archive
from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.errors import DigestMismatchError, LimitError, MissingError, SpecError, UnsupportedError
from ocispec.platform import Platform
from tests.support.images import BuiltImage, Content, Link, compress, image, index, tar
from tests.support.tools import need

AMD64 = Platform.parse("linux/amd64")
NAME = "docker.io/library/app:1"


def _old(built: BuiltImage, *, tags: tuple[str, ...] = ("app:1",), compression: str = "none") -> dict[str, Content]:
    names = [f"{n}/layer.tar" for n in range(len(built.layers))]
    listed = [{"Config": "config.json", "RepoTags": list(tags), "Layers": names}]
    members: dict[str, Content] = {"config.json": built.config.raw, "manifest.json": json.dumps(listed)}
    return members | {name: compress(item.tar, compression) for name, item in zip(names, built.layers, strict=True)}


def _oci(tmp_path: Path, *images: BuiltImage, listed: list[dict[str, Any]] | None = None) -> dict[str, Content]:
    folder = tmp_path / "layout"
    for number, built in enumerate(images):
        built.write_layout(folder, f"{number}")
    members: dict[str, Content] = {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }
    if listed is not None:
        members["manifest.json"] = json.dumps(listed)
    return members


def _write(tmp_path: Path, members: dict[str, Content]) -> Path:
    path = tmp_path / "archive.tar"
    path.write_bytes(tar(members))
    return path


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_the_old_form_gets_a_manifest(tmp_path: Path, compression: str) -> None:
    built = image([{"a": b"1"}, {"b": b"2"}], compression="none", flavour="docker")
    found = open_archive(_write(tmp_path, _old(built, compression=compression)), None, AMD64)
    assert found.config == built.config
    assert found.manifest.media_type == MediaType.DOCKER_MANIFEST
    for layer, expected in zip(found.layers, built.layers, strict=True):
        with layer.open() as stream:
            content = stream.read()
        assert content == compress(expected.tar, compression)
        assert layer.diff_id == expected.diff_id


def test_the_made_manifest_depends_on_nothing_else(tmp_path: Path) -> None:
    built = image(compression="none", flavour="docker")
    digests = {
        open_archive(_write(tmp_path, _old(built, tags=tags)), None, AMD64).manifest.digest
        for tags in (("a:1",), ("b:1", "c:2"), ())
    }
    assert len(digests) == 1


def test_a_layer_may_be_a_link_to_another_as_old_dockers_wrote(tmp_path: Path) -> None:
    built = image([{"a": b"1"}, {"a": b"1"}], compression="none")
    members = _old(built)
    members["1/layer.tar"] = Link("../0/layer.tar")
    found = open_archive(_write(tmp_path, members), None, AMD64)
    with found.layers[1].open() as stream:
        assert stream.read() == built.layers[0].tar
    members["1/layer.tar"] = Link("../../../../etc/passwd")
    with pytest.raises(MissingError, match=r"no member '1/layer\.tar'"):
        open_archive(_write(tmp_path, members), None, AMD64)


def test_the_form_with_a_layout_keeps_the_manifest(tmp_path: Path) -> None:
    built = image()
    path = _write(tmp_path, _oci(tmp_path, built))
    found = open_archive(path, None, AMD64)
    assert found.manifest == built.manifest
    with found.layers[0].open() as stream:
        assert stream.read() == built.layers[0].blob


def test_an_image_is_chosen_by_its_name(tmp_path: Path) -> None:
    first, second = image(), image([{"b": b"2"}])
    members = _oci(tmp_path, first, second)
    document = json.loads((tmp_path / "layout" / "index.json").read_bytes())
    document["manifests"][1]["annotations"]["io.containerd.image.name"] = NAME
    members["index.json"] = json.dumps(document)
    path = _write(tmp_path, members)
    assert open_archive(path, NAME, AMD64).manifest == second.manifest
    assert open_archive(path, "0", AMD64).manifest == first.manifest
    with pytest.raises(SpecError, match="2 images, expected one"):
        open_archive(path, None, AMD64)


def test_an_image_of_the_old_form_is_chosen_by_its_tag(tmp_path: Path) -> None:
    first, second = image(compression="none"), image([{"b": b"2"}], compression="none")
    members = _old(first)
    layers = ["second/layer.tar"]
    listed = json.loads(str(members["manifest.json"]))
    listed.append({"Config": "second.json", "RepoTags": None, "Layers": layers})
    members |= {"second.json": second.config.raw, layers[0]: second.layers[0].tar, "manifest.json": json.dumps(listed)}
    path = _write(tmp_path, members)
    assert open_archive(path, "app:1", AMD64).config == first.config
    with pytest.raises(SpecError, match=r"2 images, expected one: 'app:1', 'second\.json'"):
        open_archive(path, None, AMD64)
    with pytest.raises(MissingError, match="no image called 'other'"):
        open_archive(path, "other", AMD64)


def test_an_index_in_an_archive_is_chosen_from_by_platform(tmp_path: Path) -> None:
    amd64, arm64 = image(), image(platform="linux/arm64/v8")
    index([amd64, arm64]).write_layout(tmp_path / "layout", "multi")
    path = _write(tmp_path, _oci(tmp_path))
    assert open_archive(path, None, Platform.parse("linux/arm64")).manifest == arm64.manifest


def test_r1_two_lists_that_name_different_images_are_refused(tmp_path: Path) -> None:
    built, other = image(), image([{"b": b"2"}])
    other.write_layout(tmp_path / "layout", "other")
    blob = f"blobs/sha256/{built.config.digest.hex}"
    good = [{"Config": blob, "RepoTags": ["app:1"], "Layers": [f"blobs/sha256/{built.diff_ids[0].hex}"]}]
    members = _oci(tmp_path, built, listed=good)
    assert open_archive(_write(tmp_path, members), "0", AMD64).manifest == built.manifest
    evil = [{**good[0], "Config": f"blobs/sha256/{other.config.digest.hex}"}]
    members["manifest.json"] = json.dumps(evil)
    with pytest.raises(SpecError, match="does not list the config"):
        open_archive(_write(tmp_path, members), "0", AMD64)


def test_l2_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    members = _old(image(compression="none"))
    members["./config.json"] = b"{}"
    with pytest.raises(SpecError, match=r"'config\.json' occurs twice"):
        open_archive(_write(tmp_path, members), None, AMD64)


def test_a_layer_that_is_not_its_diff_id_cannot_be_read(tmp_path: Path) -> None:
    members = _old(image(compression="none"))
    members["0/layer.tar"] = tar({"evil": b"1"})
    found = open_archive(_write(tmp_path, members), None, AMD64)
    with found.layers[0].open() as stream, pytest.raises(DigestMismatchError, match="mismatch"):
        stream.read()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"manifest.json": "{}"}, "not an array"),
        ({"manifest.json": "[1]"}, "expected an object"),
        ({"manifest.json": '[{"Layers":[]}]'}, "Config is missing"),
        ({"manifest.json": '[{"Config":"config.json","Layers":[]}]'}, "lists 0 layers, its config .* 1"),
        ({"manifest.json": '[{"Config":"none","Layers":[]}]'}, "no member 'none'"),
        ({"manifest.json": "[]"}, "no image"),
        ({"config.json": "{}"}, "rootfs is missing"),
        ({"blobs/sha256/../x": "1"}, "'..' part"),
        ({"blobs/sha256/short": "1"}, "64 lower-case hex digits"),
        ({"index.json": "{}"}, "no member 'oci-layout'"),
    ],
)
def test_a_malformed_archive_is_refused(tmp_path: Path, changes: dict[str, Content], reason: str) -> None:
    members = {**_old(image(compression="none")), **changes}
    with pytest.raises(SpecError, match=reason):
        open_archive(_write(tmp_path, members), None, AMD64)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    whole = tar(_old(image(compression="none")))
    path = tmp_path / "archive.tar"
    for content, kind, reason in (
        (tar({"a": b"1"}), MissingError, "neither"),
        (compress(whole, "gzip"), UnsupportedError, "compressed as a whole"),
        (compress(whole, "zstd"), UnsupportedError, "compressed as a whole"),
        (whole[:-700], SpecError, "not a multiple of 512"),
        (whole[:1024], SpecError, "ends"),
        (b"", SpecError, "ends"),
    ):
        path.write_bytes(content)
        with pytest.raises(kind, match=reason):
            open_archive(path, None, AMD64)
    with pytest.raises(MissingError, match="no such file"):
        open_archive(tmp_path / "none", None, AMD64)


def test_members_and_blobs_are_bounded_and_named(tmp_path: Path) -> None:
    archive = Archive.open(_write(tmp_path, _oci(tmp_path, image())))
    with pytest.raises(LimitError, match="more than 10 bytes"):
        archive.read_member("index.json", limit=10)
    unknown = Descriptor(media_type=MediaType.OCI_LAYER, digest=Digest.of(b"none"), size=4)
    with pytest.raises(MissingError, match=str(unknown.digest)), archive.open_blob(unknown):
        pass


def test_what_skopeo_writes_is_read(tmp_path: Path) -> None:
    built = image([{"etc/": b"", "etc/a": b"1"}, {"etc/b": b"2"}], entrypoint=["/a"])
    built.write_layout(tmp_path / "layout", "app")
    path = tmp_path / "skopeo.tar"
    command = [need("skopeo"), "copy", "-q", f"oci:{tmp_path}/layout:app", f"docker-archive:{path}:app.test/app:1"]
    subprocess.run(command, check=True, timeout=60)
    found = open_archive(path, "app.test/app:1", AMD64)
    assert found.config.diff_ids == built.diff_ids
    for layer, expected in zip(found.layers, built.layers, strict=True):
        with layer.open() as stream:
            assert stream.read() == expected.tar
