"""One word for every place that an image can come from."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from ocispec.access import Access
from ocispec.errors import MissingError, SourceError, SpecError
from ocispec.platform import Platform
from ocispec.remote import Remote
from ocispec.source import open_source
from tests.support.fakeregistry import FakeRegistry, Request
from tests.support.images import image, index

AMD64 = Platform.parse("linux/amd64")


def _nobody(registry: str) -> NoReturn:
    raise AssertionError(f"asked for {registry}")


def test_each_place_gives_the_same_image(tmp_path: Path) -> None:
    built = image(compression="none", flavour="docker")
    built.write_layout(tmp_path / "layout", "app")
    built.write_docker_archive(tmp_path / "a.tar", "app:1")
    built.write_dir(tmp_path / "dir")
    for text in (
        f"oci:{tmp_path}/layout",
        f"oci:{tmp_path}/layout:app",
        f"docker-archive:{tmp_path}/a.tar",
        f"docker-archive:{tmp_path}/a.tar:app:1",
        f"dir:{tmp_path}/dir",
    ):
        assert open_source(text, connect=_nobody, platform=AMD64).config == built.config


def test_a_reference_is_asked_for_at_its_registry() -> None:
    built = image()
    with FakeRegistry() as registry:
        registry.add(built, "team/app", "1")
        for text in (f"{registry.host}/team/app:1", f"docker://{registry.host}/team/app@{built.digest}"):
            with Remote(registry.host, Access(plain_http=True)) as remote:
                found = open_source(text, connect=lambda host, remote=remote: remote, platform=AMD64)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
                with found.layers[0].open() as stream:
                    assert stream.read() == built.layers[0].blob
            assert found.manifest == built.manifest


def test_s4_a_tag_is_resolved_once() -> None:
    first, second = image(), image([{"evil": b""}])
    with FakeRegistry() as registry, Remote(registry.host, Access(plain_http=True)) as remote:
        registry.add(index([first]), "app", "1")

        def move(request: Request) -> None:
            if request.path.endswith("/manifests/1"):
                registry.add(index([second]), "app", "2")
                registry.manifests["app", "1"], registry.manifests["app", "2"] = (
                    registry.manifests["app", "2"],
                    registry.manifests["app", "1"],
                )

        registry.hook(move)
        registry.manifests["app", "2"] = registry.manifests["app", "1"]
        found = open_source(f"{registry.host}/app:1", connect=lambda _: remote, platform=AMD64)
        asked = [request.path for request in registry.requests if "/manifests/" in request.path]
    assert len([path for path in asked if path.endswith("/1")]) == 1
    assert all("sha256:" in path for path in asked[1:])
    assert found.manifest.digest in {first.digest, second.digest}


def test_a_source_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("oci:", "dir:", "debian:12", "", "ftp:x"):
        with pytest.raises(SpecError):
            open_source(text, connect=_nobody)
    with pytest.raises(MissingError):
        open_source(f"oci:{tmp_path}/none", connect=_nobody)
    assert issubclass(MissingError, SourceError)
