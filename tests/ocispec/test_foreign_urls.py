"""R9: no `urls` are followed: what they name is never connected to, with or without the registry's credentials."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ocispec.access import Access, Credentials
from ocispec.blobs import choose_image
from ocispec.descriptor import MediaType
from ocispec.errors import MissingError, SpecError
from ocispec.platform import Platform
from ocispec.remote import Remote
from tests.support.fakeregistry import FakeRegistry
from tests.support.images import image

AMD64 = Platform.parse("linux/amd64")
BUILT = image([{"a": b"1"}, {"b": b"2"}])


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry(account=("host", "secret")) as running:
        yield running


@pytest.fixture
def elsewhere() -> Iterator[FakeRegistry]:
    """The host that the manifest names; it would hand the layer out."""
    with FakeRegistry() as running:
        running.documents["/layer"] = BUILT.layers[1].blob
        yield running


@pytest.fixture
def remote(registry: FakeRegistry) -> Iterator[Remote]:
    credentials = Credentials(name="host", secret="secret")
    access = Access(plain_http=True, attempts=2, first_delay=0.001, timeout=5, credentials=credentials)
    with Remote(registry.host, access) as client:
        yield client


def serve(registry: FakeRegistry, elsewhere: FakeRegistry, *, media_type: str | None) -> None:
    """Have the registry serve the image, whose last layer it does not have and says to be elsewhere."""
    registry.add(BUILT, "app", "1")
    members = json.loads(BUILT.manifest.raw)
    members["layers"][1]["urls"] = [f"http://{elsewhere.host}/layer"]
    if media_type is not None:
        members["layers"][1]["mediaType"] = media_type
    registry.manifests["app", "1"] = (BUILT.manifest.media_type, json.dumps(members).encode())
    del registry.blobs["app", str(BUILT.layers[1].descriptor.digest)]


@pytest.mark.parametrize("media_type", [MediaType.OCI_FOREIGN_GZIP, MediaType.DOCKER_FOREIGN_GZIP])
def test_r9_a_foreign_layer_is_refused(
    registry: FakeRegistry, elsewhere: FakeRegistry, remote: Remote, media_type: MediaType
) -> None:
    serve(registry, elsewhere, media_type=str(media_type))
    with pytest.raises(SpecError, match="is not read"):
        choose_image(remote.repository("app"), remote.manifest("app", "1"), AMD64)
    assert elsewhere.requests == []


def test_r9_the_urls_of_an_ordinary_layer_are_not_followed(
    registry: FakeRegistry, elsewhere: FakeRegistry, remote: Remote
) -> None:
    serve(registry, elsewhere, media_type=None)
    found = choose_image(remote.repository("app"), remote.manifest("app", "1"), AMD64)
    with found.layers[0].open() as stream:
        assert stream.read() == BUILT.layers[0].blob
    with pytest.raises(MissingError), found.layers[1].open() as stream:
        stream.read()
    assert elsewhere.requests == []
