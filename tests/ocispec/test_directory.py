"""`dir:` folders, and plain trees of files that become one layer."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.directory import open_directory
from ocispec.entry import Entry, HardLink, Kind
from ocispec.errors import DigestMismatchError, LimitError, MissingError, SourceError, SpecError
from ocispec.foldertar import MAX_DEPTH, FolderTar, _record
from ocispec.layer import read_layer
from ocispec.pax import records
from ocispec.platform import Platform
from tests.support.images import image
from tests.support.tools import need, need_root

AMD64 = Platform.parse("linux/amd64")


def _members(folder: Path) -> dict[bytes, Entry | HardLink]:
    with FolderTar(folder) as stream:
        content = read_layer(stream, what="layer")
    return {item.path: item for item in content.members if isinstance(item, Entry | HardLink)}


def test_the_dir_form_is_read(tmp_path: Path) -> None:
    for flavour in ("oci", "docker"):
        built = image(flavour=flavour)
        found = open_directory(built.write_dir(tmp_path / flavour), AMD64)
        assert found.manifest == built.manifest
        with found.layers[0].open() as stream:
            assert stream.read() == built.layers[0].blob


def test_the_dir_form_of_skopeo_is_read_with_all_its_platforms(tmp_path: Path) -> None:
    from tests.support.images import index

    amd64, arm64 = image(), image(platform="linux/arm64/v8")
    index([amd64, arm64]).write_layout(tmp_path / "layout", "multi")
    target = tmp_path / "dir"
    command = [need("skopeo"), "copy", "-q", "--all", f"oci:{tmp_path}/layout:multi", f"dir:{target}"]
    subprocess.run(command, check=True, timeout=60)
    assert open_directory(target, AMD64).manifest == amd64.manifest
    assert open_directory(target, Platform.parse("linux/arm64")).manifest == arm64.manifest


def test_a_manifest_without_media_type_is_ocis(tmp_path: Path) -> None:
    built = image()
    folder = built.write_dir(tmp_path)
    members = json.loads(built.manifest.raw)
    del members["mediaType"]
    (folder / "manifest.json").write_text(json.dumps(members))
    assert open_directory(folder, AMD64).manifest.media_type == MediaType.OCI_MANIFEST


def test_a_changed_blob_of_the_dir_form_is_refused(tmp_path: Path) -> None:
    built = image()
    folder = built.write_dir(tmp_path)
    (folder / built.config.digest.hex).write_bytes(built.config.raw + b" ")
    with pytest.raises(DigestMismatchError):
        open_directory(folder, AMD64)


def test_blobs_of_sha512_have_their_algorithm_in_front(tmp_path: Path) -> None:
    from ocispec.directory import BlobFolder

    digest = Digest.of(b"x", "sha512")
    (tmp_path / f"sha512-{digest.hex}").write_bytes(b"x")
    descriptor = Descriptor(media_type="application/x", digest=digest, size=1)
    with BlobFolder(folder=tmp_path).open_blob(descriptor) as stream:
        assert stream.read() == b"x"


def test_another_version_of_the_dir_form_is_refused(tmp_path: Path) -> None:
    folder = image().write_dir(tmp_path)
    (folder / "version").write_text("Directory Transport Version: 2.0\n")
    with pytest.raises(SpecError, match=r"version is 'Directory Transport Version: 2\.0'"):
        open_directory(folder, AMD64)
    with pytest.raises(MissingError, match="no such folder"):
        open_directory(tmp_path / "none", AMD64)


def _tree(folder: Path) -> Path:
    folder.mkdir()
    (folder / "etc").mkdir()
    (folder / "etc" / "motd").write_text("hello\n")
    (folder / "etc" / "motd").chmod(0o4755)
    os.link(folder / "etc" / "motd", folder / "second")
    (folder / "link").symlink_to("etc/motd")
    os.mkfifo(folder / "pipe")
    (folder / ("n" * 200)).write_bytes(b"")
    (folder / "long-link").symlink_to("t" * 300)
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff" + b"x" * 120)).mkdir()
    os.setxattr(folder / "etc", "user.colour", b"red")
    os.utime(folder / "second", ns=(0, 5_900_000_000))
    return folder


def test_a_plain_tree_is_one_layer(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "root")
    found = open_directory(folder, AMD64)
    assert found.config.platform == AMD64
    assert found.layers[0].descriptor.digest == found.layers[0].diff_id
    members = _members(folder)
    motd, second = members[b"etc/motd"], members[b"second"]
    assert isinstance(motd, Entry)
    assert (motd.kind, motd.mode, motd.size, motd.mtime) == (Kind.FILE, 0o4755, 6, (5, 0))
    assert second == HardLink(path=b"second", target=b"etc/motd")
    etc, link = members[b"etc"], members[b"link"]
    assert isinstance(etc, Entry)
    assert etc.xattrs == ((b"user.colour", b"red"),)
    assert isinstance(link, Entry)
    assert link.target == b"etc/motd"
    assert {b"pipe", b"n" * 200, b"long-link", b"\xff" + b"x" * 120, b""} <= members.keys()


def test_a_plain_tree_is_the_same_layer_every_time_and_in_every_place(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "root")
    first = open_directory(folder, AMD64)
    subprocess.run(["cp", "-a", folder, tmp_path / "copy"], check=True)
    second = open_directory(tmp_path / "copy", AMD64)
    assert first.manifest == second.manifest
    with first.layers[0].open() as one, second.layers[0].open() as two:
        assert one.read(100) + one.read() == two.read()


def test_pythons_tarfile_sees_the_same_tree(tmp_path: Path) -> None:
    folder = _tree(tmp_path / "root")
    with FolderTar(folder) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        names = {os.fsencode(item.name).removeprefix(b"./") for item in archive}
    assert names == {name or b"." for name in _members(folder)}


@pytest.mark.root
def test_owners_devices_and_times_that_ustar_cannot_hold(tmp_path: Path) -> None:
    need_root()
    file = tmp_path / "file"
    file.write_bytes(b"x" * 513)
    os.chown(file, 4_000_000_000, 3_000_000)
    os.utime(file, (0, -100))
    os.mknod(tmp_path / "null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    members = _members(tmp_path)
    found, null = members[b"file"], members[b"null"]
    assert isinstance(found, Entry)
    assert (found.uid, found.gid, found.mtime, found.size) == (4_000_000_000, 3_000_000, (-100, 0), 513)
    assert isinstance(null, Entry)
    assert (null.kind, null.rdev) == (Kind.CHARACTER, (1, 3))


def test_another_file_system_is_an_empty_directory() -> None:
    members = _members(Path("/dev"))
    assert b"pts" in members
    assert not any(name.startswith(b"pts/") for name in members)


def test_sockets_are_left_out(tmp_path: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s"))
        assert _members(tmp_path).keys() == {b""}


def test_l4_a_file_named_as_a_whiteout_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".wh.passwd").write_bytes(b"")
    with pytest.raises(SourceError, match="named as a whiteout"):
        open_directory(tmp_path, AMD64)


def test_l3_a_link_out_of_the_tree_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("s")
    (tmp_path / "root" / "out").symlink_to(tmp_path)
    assert _members(tmp_path / "root").keys() == {b"", b"out"}


def test_a_tree_that_changes_after_it_was_named_is_another_layer(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    found = open_directory(tmp_path, AMD64)
    (tmp_path / "a").write_text("2")
    with found.layers[0].open() as stream, pytest.raises(DigestMismatchError):
        stream.read()
    with pytest.raises(MissingError):
        found.layers[0].blobs.read_manifest(found.layers[0].descriptor)


@pytest.mark.parametrize("change", ["truncate", "replace"])
def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, change: str) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 2_000_000)
    with FolderTar(tmp_path) as stream:
        stream.read(512)  # the header of the root; the walk has the file's status next
        stream.read(512)
        if change == "truncate":
            os.truncate(big, 10)
        else:
            big.rename(tmp_path / "old")
            big.write_bytes(b"y" * 2_000_000)
        with pytest.raises(SourceError, match="while it was read"):
            stream.read()


def test_a_file_that_vanishes_is_named(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"1")
    with FolderTar(tmp_path) as stream:
        stream.read(512)  # the root, and then the header of `a`
        stream.read(512)
        (tmp_path / "b").unlink()
        with pytest.raises(SourceError, match="No such file"):
            stream.read()


def test_a_tree_of_endless_depth_is_refused(tmp_path: Path) -> None:
    folder = os.open(tmp_path, os.O_RDONLY)
    for _ in range(MAX_DEPTH + 2):
        os.mkdir("d", dir_fd=folder)
        below = os.open("d", os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = below
    os.close(folder)
    with FolderTar(tmp_path) as stream, pytest.raises(LimitError, match="deeper than 512"):
        stream.read()
    subprocess.run(["rm", "-rf", tmp_path / "d"], check=True)


@settings(max_examples=200)
@given(st.binary(min_size=1, max_size=30).filter(lambda key: b"=" not in key), st.binary(max_size=1100))
def test_a_pax_record_counts_its_own_length(key: bytes, value: bytes) -> None:
    assert records(_record(key, value)) == {key: value}
