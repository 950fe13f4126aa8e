"""R1: a document that can be read as two things is refused, whoever sends it."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from ocispec.descriptor import Descriptor, MediaType, check_media_type
from ocispec.digest import Digest
from ocispec.errors import DigestMismatchError, LimitError, SpecError, UnsupportedError
from ocispec.manifest import (
    MAX_LAYERS,
    MAX_MANIFEST,
    Index,
    Manifest,
    guess_media_type,
    parse_image_manifest,
    parse_index,
    parse_manifest,
)
from tests.support.images import image, index

DESCRIPTOR = {"mediaType": "application/x", "digest": str(Digest.of(b"")), "size": 0}
MANIFEST: dict[str, Any] = {
    "schemaVersion": 2,
    "mediaType": str(MediaType.OCI_MANIFEST),
    "config": {**DESCRIPTOR, "mediaType": str(MediaType.OCI_CONFIG)},
    "layers": [DESCRIPTOR],
}
INDEX: dict[str, Any] = {"schemaVersion": 2, "mediaType": str(MediaType.OCI_INDEX), "manifests": [DESCRIPTOR]}


def _raw(members: dict[str, Any], **changes: Any) -> bytes:
    return json.dumps({name: value for name, value in {**members, **changes}.items() if value != "drop"}).encode()


def test_a_manifest_keeps_its_bytes() -> None:
    raw = _raw(MANIFEST, annotations={"b": "2", "a": "1"}, unknown={"x": 1}, artifactType="application/y")
    manifest = parse_manifest(raw, MediaType.OCI_MANIFEST)
    assert isinstance(manifest, Manifest)
    assert manifest.raw == raw
    assert manifest.digest == Digest.of(raw)
    assert manifest.annotations == (("a", "1"), ("b", "2"))
    assert manifest.artifact_type == "application/y"


def test_an_index_tells_children_from_data() -> None:
    unknown = {**DESCRIPTOR, "platform": {"os": "unknown", "architecture": "unknown"}}
    real = {**DESCRIPTOR, "platform": {"os": "linux", "architecture": "amd64"}}
    parsed = parse_index(_raw(INDEX, manifests=[unknown, real, DESCRIPTOR], subject=DESCRIPTOR), None)
    assert len(parsed.manifests) == 3
    assert [child.platform is None for child in parsed.platform_children] == [False, True]
    assert parsed.subject is not None


def test_sha512_names_a_manifest_where_it_was_asked_for() -> None:
    raw = _raw(MANIFEST)
    assert parse_manifest(raw, None, algorithm="sha512").digest == Digest.of(raw, "sha512")


@pytest.mark.parametrize(
    ("raw", "sent", "reason"),
    [
        (_raw(MANIFEST, manifests=[]), None, "must not have 'manifests'"),
        (_raw(MANIFEST, fsLayers=[]), None, "must not have 'fsLayers'"),
        (_raw(INDEX, config=DESCRIPTOR), None, "must not have 'config'"),
        (_raw(INDEX, layers=[]), None, "must not have 'layers'"),
        (_raw(MANIFEST), str(MediaType.OCI_INDEX), "sent as"),
        (_raw(MANIFEST, mediaType=str(MediaType.DOCKER_MANIFEST)), str(MediaType.OCI_MANIFEST), "sent as"),
        (_raw(MANIFEST, mediaType="drop"), str(MediaType.OCI_INDEX), "must not have 'config'"),
        (_raw(MANIFEST, mediaType="drop"), None, "mediaType is missing"),
        (_raw(MANIFEST, Layers=[]), None, "'layers' in another case"),
        (_raw(MANIFEST, layers="drop", Layers=[]), None, "'layers' in another case"),
        (_raw(MANIFEST, layers=[{**DESCRIPTOR, "Digest": str(Digest.of(b"x"))}]), None, "'digest' in another case"),
    ],
)
def test_r1_an_ambiguous_document_is_refused(raw: bytes, sent: str | None, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        parse_manifest(raw, sent)


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (_raw(MANIFEST, schemaVersion=3), "schemaVersion is 3, expected 2"),
        (_raw(MANIFEST, schemaVersion="drop"), "schemaVersion is null"),
        (_raw(MANIFEST, config="drop"), "config: expected a descriptor object"),
        (_raw(MANIFEST, layers="drop"), "layers is missing"),
        (_raw(MANIFEST, layers={}), "layers is an object, expected an array"),
        (_raw(MANIFEST, artifactType="nonsense"), "artifactType: 'nonsense' is not a media type"),
        (_raw(MANIFEST, annotations={"a": 1}), "annotations"),
        (_raw(MANIFEST, layers=[{**DESCRIPTOR, "size": -1}]), "size is -1"),
        (_raw(MANIFEST, layers=[{**DESCRIPTOR, "size": 1.5}]), "size is a number"),
        (_raw(MANIFEST, layers=[{**DESCRIPTOR, "digest": "sha256:x"}]), "digest"),
        (_raw(MANIFEST, subject={"digest": "sha256:../../x", "mediaType": "a/b", "size": 1}), "digest"),
        (_raw(MANIFEST, layers=[{**DESCRIPTOR, "mediaType": "x"}]), "not a media type"),
        (_raw(MANIFEST, layers=[[]]), "expected a descriptor object"),
        (b"[]", "expected an object"),
    ],
)
def test_a_malformed_document_is_refused(raw: bytes, reason: str) -> None:
    with pytest.raises(SpecError, match=reason):
        parse_manifest(raw, None)


@pytest.mark.parametrize("kind", [MediaType.DOCKER_SCHEMA1, MediaType.DOCKER_SCHEMA1_SIGNED])
def test_docker_schema_1_is_refused(kind: MediaType) -> None:
    for raw in (_raw(MANIFEST, mediaType=str(kind)), _raw({"schemaVersion": 1, "fsLayers": []})):
        with pytest.raises(UnsupportedError, match="schema 1"):
            parse_manifest(raw, kind)


def test_another_media_type_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="neither a manifest nor an index"):
        parse_manifest(_raw(MANIFEST, mediaType="application/json"), None)


def test_numbers_of_bytes_and_layers_are_bounded() -> None:
    with pytest.raises(LimitError):
        parse_manifest(b" " * (MAX_MANIFEST + 1), None)
    with pytest.raises(SpecError, match="expected at most 512"):
        parse_manifest(_raw(MANIFEST, layers=[DESCRIPTOR] * (MAX_LAYERS + 1)), None)


def test_the_kind_that_is_needed_is_required() -> None:
    assert isinstance(parse_index(_raw(INDEX), None), Index)
    assert isinstance(parse_image_manifest(_raw(MANIFEST), None), Manifest)
    with pytest.raises(SpecError, match="expected an index"):
        parse_index(_raw(MANIFEST), None)
    with pytest.raises(SpecError, match="expected a manifest"):
        parse_image_manifest(_raw(INDEX), None)


def test_a_document_without_a_type_is_guessed_by_its_members() -> None:
    assert guess_media_type(_raw(INDEX, mediaType="drop")) == MediaType.OCI_INDEX
    assert guess_media_type(_raw(MANIFEST, mediaType="drop")) == MediaType.OCI_MANIFEST
    assert guess_media_type(_raw(MANIFEST, mediaType="a/b")) == "a/b"


def test_embedded_data_must_be_what_the_digest_names() -> None:
    def described(data: str, content: bytes = b"{}") -> dict[str, Any]:
        digest = str(Digest.of(content))
        return {"mediaType": "application/x", "digest": digest, "size": len(content), "data": data}

    good = base64.b64encode(b"{}").decode()
    assert Descriptor.from_json(described(good), what="x").size == 2
    with pytest.raises(DigestMismatchError, match="embedded data is not the 2 bytes"):
        Descriptor.from_json(described(base64.b64encode(b"[]").decode()), what="x")
    with pytest.raises(SpecError, match="not base64"):
        Descriptor.from_json(described("e30=\n"), what="x")
    with pytest.raises(LimitError, match="embedded data"):
        Descriptor.from_json(described("A" * 70_000), what="x")


def test_a_descriptor_goes_through_json_and_back() -> None:
    listed = index([image(), image(platform="linux/arm64/v8")]).index.manifests
    full = Descriptor(
        media_type="application/x",
        digest=Digest.of(b""),
        size=0,
        platform=listed[0].platform,
        artifact_type="application/y",
        annotations=(("a", "b"),),
        urls=("https://u.example/",),
    )
    for descriptor in (*listed, full):
        assert Descriptor.from_json(descriptor.to_json(), what="x") == descriptor


@pytest.mark.parametrize("text", ["", "a", "a/", "/a", "a/b/c", "a/b;c=d", "a b/c", "a/b\n", "é/b", "a/" + "b" * 128])
def test_media_types_are_rfc_6838s(text: str) -> None:
    with pytest.raises(SpecError):
        check_media_type(text, what="x")
