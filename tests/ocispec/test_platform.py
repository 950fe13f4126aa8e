"""S7: one matcher chooses, and an ambiguity is refused."""

from __future__ import annotations

import pytest

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.platform import Platform, choose


def _child(platform: str | None, seed: str, features: tuple[str, ...] = ()) -> Descriptor:
    parsed = Platform.parse(platform) if platform is not None else None
    if parsed is not None and features:
        parsed = Platform(os=parsed.os, architecture=parsed.architecture, os_features=features)
    return Descriptor(media_type=MediaType.OCI_MANIFEST, digest=Digest.of(seed.encode()), size=1, platform=parsed)


@pytest.mark.parametrize(
    ("host", "image", "runs"),
    [
        ("linux/amd64", "linux/amd64", True),
        ("linux/amd64", "linux/amd64/v1", True),
        ("linux/amd64", "linux/amd64/v3", False),
        ("linux/amd64/v3", "linux/amd64", False),
        ("linux/arm64", "linux/arm64/v8", True),
        ("linux/arm64/v8", "linux/arm64", True),
        ("linux/arm64", "linux/arm64/v9", False),
        ("linux/arm", "linux/arm/v7", True),
        ("linux/arm/v7", "linux/arm/v6", False),
        ("linux/amd64", "linux/386", False),
        ("linux/amd64", "windows/amd64", False),
        ("linux/s390x", "linux/s390x", True),
        ("linux/amd64", "unknown/unknown", False),
    ],
)
def test_which_host_runs_which_image(host: str, image: str, runs: bool) -> None:
    assert Platform.parse(host).runs(Platform.parse(image)) is runs


def test_an_image_that_needs_a_feature_is_not_for_a_host_without_it() -> None:
    host = Platform.parse("linux/amd64")
    needs = Platform(os="linux", architecture="amd64", os_features=("erofs",))
    assert not host.runs(needs)
    assert needs.runs(host)


def test_the_child_for_the_host_is_chosen() -> None:
    wanted = _child("linux/amd64", "a")
    children = [_child("linux/arm64", "b"), wanted, _child("unknown/unknown", "c"), _child(None, "d")]
    assert choose(children, Platform.parse("linux/amd64")) is wanted
    assert choose([*children, wanted], Platform.parse("linux/amd64")) is wanted


def test_s7_two_children_that_match_equally_are_refused() -> None:
    children = [_child("linux/arm64", "a"), _child("linux/arm64/v8", "b")]
    with pytest.raises(SpecError, match="2 children match linux/arm64 equally"):
        choose(children, Platform.parse("linux/arm64"))
    assert choose(children[:1], Platform.parse("linux/arm64")) is children[0]


def test_no_child_and_a_child_without_platform_are_refused() -> None:
    with pytest.raises(SpecError, match="no child for linux/amd64"):
        choose([_child(None, "a")], Platform.parse("linux/amd64"))


@pytest.mark.parametrize("text", ["linux", "linux/", "/amd64", "a/b/c/d", "linux/am d64", "linux/a\n", "-/amd64"])
def test_a_platform_that_is_not_words_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        Platform.parse(text)


def test_a_platform_goes_through_json_and_back() -> None:
    platform = Platform(os="windows", architecture="arm", variant="v7", os_version="10.0.1", os_features=("win32k",))
    assert Platform.from_json(platform.to_json(), what="x") == platform
    assert str(platform) == "windows/arm/v7"
    assert Platform.parse("unknown/unknown").is_unknown


def test_this_host_has_a_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Platform.of_this_host().os == "linux"
    monkeypatch.setattr("ocispec.platform._MACHINES", {})
    with pytest.raises(SpecError, match="no platform is known"):
        Platform.of_this_host()
