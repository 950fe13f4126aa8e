"""skopeo: copy in, out and across, inspect, list, delete."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ocispec.digest import Digest
from tests.clients.conftest import Desk
from tests.support.images import BuiltImage, image, index

PLAIN_FROM = "--src-tls-verify=false"
PLAIN_TO = "--dest-tls-verify=false"


def blobs_of(layout: Path) -> set[str]:
    """The blobs of an OCI layout, each checked against its name."""
    found = {path.name for path in (layout / "blobs/sha256").iterdir()}
    for name in found:
        assert Digest.of((layout / "blobs/sha256" / name).read_bytes()).hex == name
    return found


def names_of(built: BuiltImage) -> set[str]:
    """The blobs that an image's layout has."""
    return {built.digest.hex, *(digest.hex for digest in built.blobs)}


@pytest.mark.parametrize(("flavour", "compression"), [("oci", "gzip"), ("oci", "zstd"), ("docker", "gzip")])
def test_an_image_goes_in_and_comes_out_the_same(desk: Desk, name: str, flavour: str, compression: str) -> None:
    built = image([{"a": "1"}, {"b": "2" * 50_000}], flavour=flavour, compression=compression)
    source = f"dir:{built.write_dir(desk.folder / 'in')}"
    desk.run("skopeo", "copy", PLAIN_TO, "--preserve-digests", source, f"docker://{name}:v1")
    desk.run("skopeo", "copy", PLAIN_FROM, "--preserve-digests", f"docker://{name}:v1", f"dir:{desk.folder / 'out'}")
    assert (desk.folder / "out/manifest.json").read_bytes() == built.manifest.raw
    for digest, content in built.blobs.items():
        assert (desk.folder / "out" / digest.hex).read_bytes() == content


def test_a_push_shows_the_state_and_the_command_that_explains_it(desk: Desk, name: str) -> None:
    source = image().write_layout(desk.folder / "in", "v1")
    done = desk.try_run("skopeo", "copy", PLAIN_TO, f"oci:{source}:v1", f"docker://{name}:v1")
    assert done.returncode == 0
    assert "quarantined" in done.stderr
    assert f"pratique explain {name}:v1" in done.stderr


def test_an_index_is_copied_with_all_its_children(desk: Desk, name: str) -> None:
    built = index([image(), image(platform="linux/arm64")])
    source = built.write_layout(desk.folder / "in", "v1")
    desk.run("skopeo", "copy", "--all", PLAIN_TO, f"oci:{source}:v1", f"docker://{name}:v1")
    desk.run("skopeo", "copy", "--all", PLAIN_FROM, f"docker://{name}:v1", f"oci:{desk.folder / 'out'}:v1")
    assert blobs_of(desk.folder / "out") == {built.digest.hex}.union(*(names_of(child) for child in built.images))
    one = desk.folder / "one"
    desk.run("skopeo", "copy", "--override-arch=arm64", PLAIN_FROM, f"docker://{name}:v1", f"oci:{one}:v1")
    assert names_of(built.images[1]) == blobs_of(one)


def test_an_image_is_copied_across_repositories_and_by_digest(desk: Desk, name: str) -> None:
    built = image([{"x": "y"}])
    source = built.write_layout(desk.folder / "in", "v1")
    desk.run("skopeo", "copy", PLAIN_TO, f"oci:{source}:v1", f"docker://{name}:v1")
    desk.run("skopeo", "copy", PLAIN_FROM, PLAIN_TO, f"docker://{name}@{built.digest}", f"docker://{name}/copy:v2")
    raw = desk.run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}/copy:v2")
    assert raw.encode() == built.manifest.raw


def test_inspect_list_and_delete(desk: Desk, name: str) -> None:
    built = image()
    source = built.write_layout(desk.folder / "in", "v1")
    for tag in ("v1", "v2"):
        desk.run("skopeo", "copy", PLAIN_TO, f"oci:{source}:v1", f"docker://{name}:{tag}")
    seen = json.loads(desk.run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}:v1"))
    assert (seen["Digest"], seen["RepoTags"]) == (str(built.digest), ["v1", "v2"])
    listed = json.loads(desk.run("skopeo", "list-tags", "--tls-verify=false", f"docker://{name}"))
    assert listed["Tags"] == ["v1", "v2"]
    desk.run("skopeo", "delete", "--tls-verify=false", f"docker://{name}:v1")
    gone = desk.try_run("skopeo", "inspect", "--tls-verify=false", f"docker://{name}:v2")
    assert gone.returncode != 0
    assert "manifest unknown" in gone.stderr


def test_a_wrong_login_is_told_so(desk: Desk, name: str) -> None:
    desk.login("pusher", "not-the-secret")
    source = image().write_layout(desk.folder / "in", "v1")
    done = desk.try_run("skopeo", "copy", PLAIN_TO, f"oci:{source}:v1", f"docker://{name}:v1")
    assert done.returncode != 0
    assert "invalid username/password: unauthorized: unknown account or wrong secret" in done.stderr
