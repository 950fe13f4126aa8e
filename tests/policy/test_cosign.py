"""The clearance in the forms of other tools, read by the tools themselves: cosign, skopeo, oras."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.manifest import Manifest, parse_manifest
from ocispec.reference import Reference
from policy import dsse
from policy.cosign import (
    ATTESTATION,
    BUNDLE,
    SIGNATURE_ANNOTATION,
    SIMPLE_SIGNING,
    Artifact,
    attestation_artifact,
    attestation_tag,
    bundle_referrer,
    envelope_in,
    envelope_referrer,
    sign_references,
    signature_artifact,
    signature_tag,
    simple_signing,
)
from policy.errors import TrustError
from policy.export import ExportedFile, podman
from policy.keys import Algorithm
from policy.seal import countersign, seal
from policy.statements import Clearance
from policy.wire.clearance import CLEARANCE
from tests.support.fakeregistry import FakeRegistry
from tests.support.images import BuiltImage, image
from tests.support.tools import need
from tests.support.trust import NOW, Keyring, digest, keyring, scene

REPOSITORY = "team/app"
SUBJECT = Descriptor(media_type=MediaType.OCI_MANIFEST, digest=digest("manifest"), size=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """An image in a registry on loopback, with its keys, its clearance and the folder of this test."""

    registry: FakeRegistry
    ring: Keyring
    built: BuiltImage
    clearance: bytes
    folder: Path

    @property
    def reference(self) -> Reference:
        """The image by its tag."""
        return Reference(registry=self.registry.host, repository=REPOSITORY, tag="1.0")

    def store(self, artifact: Artifact) -> None:
        """Put an artifact beside the image."""
        self.registry.put_manifest(REPOSITORY, artifact.manifest, artifact.media_type, artifact.tag)
        for blob in artifact.blobs:
            self.registry.blobs[REPOSITORY, str(blob.digest)] = blob.content

    def run(self, tool: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a tool that knows no home but this test's folder."""
        environment = {**os.environ, "HOME": str(self.folder), "TUF_ROOT": str(self.folder / "tuf")}
        return subprocess.run(
            [need(tool), *arguments], capture_output=True, text=True, env=environment, timeout=60, check=False
        )

    def cosign(self, verb: str, *options: str, reference: str = "") -> subprocess.CompletedProcess[str]:
        """Verify with the registry's public key, offline."""
        key = self.folder / "cosign.pub"
        key.write_bytes(self.ring.registry.public.pem)
        offline = ["--key", str(key), "--private-infrastructure"]
        return self.run("cosign", verb, *offline, *options, reference or str(self.reference))


@pytest.fixture(params=list(Algorithm))
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    with FakeRegistry() as registry:
        built = image([{"hello": b"hello"}])
        registry.add(built, REPOSITORY, "1.0")
        ring = keyring(registry=registry.host, algorithm=request.param)
        cleared = replace(scene(ring).clearance, registry=registry.host, manifest=built.digest)
        yield Served(registry=registry, ring=ring, built=built, clearance=seal(cleared, ring.registry), folder=tmp_path)


def test_cosign_verifies_the_simple_signature_offline(served: Served) -> None:
    served.store(sign_references([served.reference], served.built.digest, served.ring.registry))
    done = served.cosign("verify")
    assert done.returncode == 0, done.stderr
    (payload,) = json.loads(done.stdout)
    assert payload["critical"]["identity"]["docker-reference"] == str(served.reference)
    assert payload["critical"]["image"]["docker-manifest-digest"] == str(served.built.digest)


def test_cosign_refuses_the_signature_of_another_key_and_of_another_digest(served: Served) -> None:
    served.store(sign_references([served.reference], served.built.digest, served.ring.alice))
    assert served.cosign("verify").returncode != 0
    payload = simple_signing(served.reference, digest("another image"))
    served.store(signature_artifact(served.built.digest, [(payload, served.ring.registry.sign(payload))]))
    done = served.cosign("verify")
    assert done.returncode != 0
    assert "digest" in done.stderr


def test_cosign_verifies_the_clearance_as_an_attestation(served: Served) -> None:
    served.store(attestation_artifact(served.built.digest, [(served.clearance, CLEARANCE)]))
    done = served.cosign("verify-attestation", "--type", CLEARANCE)
    assert done.returncode == 0, done.stderr
    statement = json.loads(base64.b64decode(json.loads(done.stdout)["payload"]))
    assert statement["predicate"]["verificationResult"] == "PASSED"
    other = seal(served.ring.trust.verify(served.clearance, Clearance, NOW).statement, served.ring.alice)
    served.store(attestation_artifact(served.built.digest, [(other, CLEARANCE)]))
    assert served.cosign("verify-attestation", "--type", CLEARANCE).returncode != 0


def test_cosign_refuses_a_clearance_that_is_about_another_manifest(served: Served) -> None:
    said = served.ring.trust.verify(served.clearance, Clearance, NOW).statement
    other = seal(replace(said, manifest=digest("another")), served.ring.registry)
    served.store(attestation_artifact(served.built.digest, [(other, CLEARANCE)]))
    assert served.cosign("verify-attestation", "--type", CLEARANCE).returncode != 0


def test_cosign_finds_the_clearance_as_a_sigstore_bundle_among_referrers(served: Served) -> None:
    root = served.folder / "trusted_root.json"
    root.write_text('{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}')
    served.store(bundle_referrer(served.built.descriptor, served.clearance, CLEARANCE))
    served.store(envelope_referrer(served.built.descriptor, served.clearance, CLEARANCE))
    options = ("--new-bundle-format", "--trusted-root", str(root), "--type", CLEARANCE)
    done = served.cosign("verify-attestation", *options)
    assert done.returncode == 0, done.stderr


def test_oras_lists_the_referrers(served: Served) -> None:
    served.store(envelope_referrer(served.built.descriptor, served.clearance, CLEARANCE))
    served.store(bundle_referrer(served.built.descriptor, served.clearance, CLEARANCE))
    done = served.run("oras", "discover", "--plain-http", "--format", "json", str(served.reference))
    assert done.returncode == 0, done.stderr
    kinds = {found["artifactType"] for found in json.loads(done.stdout)["manifests"]}
    assert kinds == {ATTESTATION, BUNDLE}


def skopeo(served: Served, reference: Reference, files: tuple[ExportedFile, ...]) -> subprocess.CompletedProcess[str]:
    for file in files:
        path = served.folder / file.name
        path.parent.mkdir(exist_ok=True)
        path.write_text(file.text)
    return served.run(
        "skopeo",
        f"--policy={served.folder / 'policy.json'}",
        f"--registries.d={served.folder / 'registries.d'}",
        "copy",
        "--src-tls-verify=false",
        "--remove-signatures",
        f"docker://{reference}",
        f"dir:{served.folder / 'copy'}",
    )


def test_podmans_library_takes_the_served_tag_and_its_digest_under_the_exported_files(served: Served) -> None:
    served.store(sign_references([served.reference], served.built.digest, served.ring.registry))
    files = podman(served.ring.trust, served.registry.host, NOW)
    assert skopeo(served, served.reference, files).returncode == 0
    by_digest = replace(served.reference, tag=None, digest=served.built.digest)
    assert skopeo(served, by_digest, files).returncode == 0


def test_podmans_library_refuses_what_is_not_cleared_another_tag_and_another_key(served: Served) -> None:
    files = podman(served.ring.trust, served.registry.host, NOW)
    unsigned = skopeo(served, served.reference, files)
    assert unsigned.returncode != 0
    assert "signature" in unsigned.stderr
    served.store(sign_references([replace(served.reference, tag="0.9")], served.built.digest, served.ring.registry))
    other_tag = skopeo(served, served.reference, files)
    assert other_tag.returncode != 0
    assert "0.9" in other_tag.stderr
    served.store(sign_references([served.reference], served.built.digest, served.ring.alice))
    assert skopeo(served, served.reference, files).returncode != 0


# The forms themselves.

RING = keyring()
ENVELOPE = scene(RING).envelope


def parsed(artifact: Artifact) -> Manifest:
    manifest = parse_manifest(artifact.manifest, artifact.media_type)
    assert isinstance(manifest, Manifest)
    assert manifest.digest == artifact.digest
    stored = {blob.digest: blob.content for blob in artifact.blobs}
    for descriptor in (manifest.config, *manifest.layers):
        content = stored[descriptor.digest]
        assert len(content) == descriptor.size
        assert Digest.of(content) == descriptor.digest
    return manifest


def test_one_signature_for_each_tag_that_serves_the_image() -> None:
    tags = [Reference(registry="registry.example:5000", repository="team/app", tag=tag) for tag in ("1", "latest")]
    artifact = sign_references(tags, digest("m"), RING.registry)
    manifest = parsed(artifact)
    assert artifact.tag == f"sha256-{digest('m').hex}.sig" == signature_tag(digest("m"))
    assert {layer.media_type for layer in manifest.layers} == {SIMPLE_SIGNING}
    stored = {blob.digest: blob.content for blob in artifact.blobs}
    for layer, tag in zip(manifest.layers, tags, strict=True):
        payload = stored[layer.digest]
        assert json.loads(payload)["critical"]["identity"] == {"docker-reference": str(tag)}
        signature = base64.b64decode(dict(layer.annotations)[SIGNATURE_ANNOTATION])
        assert RING.registry.public.verifies(payload, signature)


def test_a_signature_of_no_tag_is_not_made_s1() -> None:
    bare = Reference(registry="registry.example:5000", repository="team/app", digest=digest("m"))
    with pytest.raises(TrustError, match="tag"):
        sign_references([bare], digest("m"), RING.registry)
    with pytest.raises(TrustError, match="nothing"):
        sign_references([], digest("m"), RING.registry)


def test_an_attestation_is_found_by_its_tag_and_names_its_type() -> None:
    artifact = attestation_artifact(digest("m"), [(ENVELOPE, CLEARANCE)])
    manifest = parsed(artifact)
    assert artifact.tag == attestation_tag(digest("m")) == f"sha256-{digest('m').hex}.att"
    (layer,) = manifest.layers
    assert layer.media_type == dsse.MEDIA_TYPE
    assert dict(layer.annotations)["predicateType"] == CLEARANCE
    assert envelope_in(layer.media_type, artifact.blobs[1].content) == ENVELOPE


def test_a_referrer_names_its_subject_and_holds_the_envelope() -> None:
    artifact = envelope_referrer(SUBJECT, ENVELOPE, CLEARANCE)
    manifest = parsed(artifact)
    assert artifact.tag is None
    assert manifest.subject == SUBJECT
    assert manifest.artifact_type == artifact.artifact_type == ATTESTATION
    assert dict(manifest.annotations)["predicateType"] == CLEARANCE
    assert envelope_in(manifest.layers[0].media_type, artifact.blobs[1].content) == ENVELOPE


def test_an_envelope_comes_back_from_a_bundle_with_its_key() -> None:
    artifact = bundle_referrer(SUBJECT, ENVELOPE, CLEARANCE)
    manifest = parsed(artifact)
    assert manifest.artifact_type == BUNDLE
    envelope = envelope_in(manifest.layers[0].media_type, artifact.blobs[1].content)
    assert envelope == ENVELOPE
    RING.trust.verify(envelope, Clearance, NOW)


def test_a_bundle_holds_exactly_one_signature() -> None:
    with pytest.raises(TrustError, match="2 signatures"):
        bundle_referrer(SUBJECT, countersign(ENVELOPE, RING.alice), CLEARANCE)


@pytest.mark.parametrize(
    ("media_type", "blob"),
    [
        ("application/octet-stream", b"{}"),
        (BUNDLE, b""),
        (BUNDLE, b"{}"),
        (BUNDLE, b'{"verificationMaterial":{"publicKey":{"hint":"x"}}}'),
        (BUNDLE, b'{"dsseEnvelope":{"x":1.5},"verificationMaterial":{"publicKey":{"hint":"x"}}}'),
        (BUNDLE, b'{"dsseEnvelope":[],"verificationMaterial":{"publicKey":{"hint":"x"}}}'),
    ],
)
def test_a_layer_that_holds_no_envelope_is_refused(media_type: str, blob: bytes) -> None:
    with pytest.raises(TrustError) as refused:
        envelope_in(media_type, blob)
    assert refused.value.code == "malformed"
