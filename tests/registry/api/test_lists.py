"""Tags, repositories and referrers: order, pages, filters, and who sees what."""

from __future__ import annotations

import json
import re

import pytest

from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.manifest import parse_manifest
from policy.cosign import ATTESTATION, attestation_tag, signature_tag
from policy.model import State
from registry.access import REGISTRY, Role
from registry.app import utc_now
from registry.audit import Audit
from registry.catalogue.blobs import add_blob
from registry.push import Push, push_manifest
from registry.store.open import open_store
from tests.support.images import image
from tests.support.registry import Answer, LiveRegistry

OCI = str(MediaType.OCI_MANIFEST)
EMPTY = b"{}"


def artifact(subject: Descriptor | None, artifact_type: str, *, content: bytes = b"sbom", **annotations: str) -> bytes:
    """An artifact manifest about `subject`."""
    members: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI,
        "artifactType": artifact_type,
        "config": {"mediaType": str(MediaType.OCI_EMPTY), "digest": str(Digest.of(EMPTY)), "size": len(EMPTY)},
        "layers": [{"mediaType": "text/plain", "digest": str(Digest.of(content)), "size": len(content)}],
    }
    if subject is not None:
        members["subject"] = subject.to_json()
    if annotations:
        members["annotations"] = annotations
    return json.dumps(members).encode()


def attach(live: LiveRegistry, repository: str, raw: bytes, reference: object = None) -> Answer:
    """Push an artifact made by `artifact`."""
    for content in (EMPTY, b"sbom"):
        live.push_blob(repository, content)
    return live.put_manifest(repository, reference or Digest.of(raw), raw, OCI)


def referrers(live: LiveRegistry, repository: str, subject: Digest, query: str = "", account: str = "pusher") -> Answer:
    """Ask for the referrers of `subject`."""
    return live.request("GET", f"/v2/{repository}/referrers/{subject}{query}", account=account)


def sign(live: LiveRegistry, repository: str, raw: bytes, tag: str | None) -> None:
    """Store an artifact as the registry's own signer does."""
    catalogue, store = live.catalogue(), open_store(live.settings)
    for content in (EMPTY, b"sbom"):
        store.put(Digest.of(content), [content])
    with catalogue.write() as conn:
        for content in (EMPTY, b"sbom"):
            add_blob(conn, repository, Digest.of(content), len(content), by=REGISTRY.name, now=utc_now())
        parsed = parse_manifest(raw, OCI)
        tags = (tag,) if tag is not None else ()
        push = Push(repository=repository, parsed=parsed, tags=tags, principal=REGISTRY, source="", now=utc_now())
        push_manifest(conn, Audit(utc_now), push, referrers=100)
    catalogue.close()


def next_page(answer: Answer) -> str:
    """The path that the Link header names."""
    found = re.fullmatch(r'<([^>]+)>; rel="next"', answer.headers["link"])
    assert found is not None
    return found[1]


def test_tags_come_in_byte_order_a_page_at_a_time(live: LiveRegistry, repository: str) -> None:
    built = image()
    names = ["b", "a", "Z", "0.1", "a.b", "a-b", "_x"]
    for name in names:
        live.push(repository, built, name)
    whole = live.request("GET", f"/v2/{repository}/tags/list")
    assert json.loads(whole.body) == {"name": repository, "tags": sorted(names)}
    assert "link" not in whole.headers
    got: list[str] = []
    path = f"/v2/{repository}/tags/list?n=3"
    for _ in range(3):
        page = live.request("GET", path)
        got += json.loads(page.body)["tags"]
        if "link" not in page.headers:
            break
        path = next_page(page)
    assert got == sorted(names)
    after = live.request("GET", f"/v2/{repository}/tags/list?last=a.b")
    assert json.loads(after.body)["tags"] == ["b"]
    assert json.loads(live.request("GET", f"/v2/{repository}/tags/list?n=0").body)["tags"] == []
    for query in ("n=-1", "n=x", "n=", "last=-x", "last=a%2Fb", "last=%00", "last=" + "a" * 129):
        refused = live.request("GET", f"/v2/{repository}/tags/list?{query}")
        assert (refused.status, json.loads(refused.body)["errors"][0]["code"]) == (400, "UNSUPPORTED")


def test_tags_of_a_repository_that_is_not_there(live: LiveRegistry) -> None:
    answer = live.request("GET", "/v2/no/such/tags/list")
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (404, "NAME_UNKNOWN")


def test_a_host_sees_the_tags_that_serve_something(live: LiveRegistry, repository: str) -> None:
    built, other = image([{"x": "1"}]), image([{"x": "2"}])
    live.push(repository, built, "cleared")
    live.push(repository, other, "quarantined")
    live.judge(repository, built.digest, State.CLEARED, serve="cleared")
    sign(live, repository, artifact(built.descriptor, "application/x"), signature_tag(built.digest))
    sign(live, repository, artifact(other.descriptor, "application/x"), signature_tag(other.digest))
    seen = json.loads(live.request("GET", f"/v2/{repository}/tags/list", account="host").body)["tags"]
    assert seen == ["cleared", signature_tag(built.digest)]


def test_the_catalog_shows_what_is_in_scope(live: LiveRegistry, repository: str) -> None:
    for name in (f"{repository}/a", f"{repository}/b", f"{repository}/c"):
        live.push(name, image())
    account = repository.replace("/", "-")
    live.account(account, Role.PUSHER, f"{repository}/b", f"{repository}/c*")
    first = live.request("GET", "/v2/_catalog?n=1", account=account)
    assert json.loads(first.body)["repositories"] == [f"{repository}/b"]
    second = live.request("GET", next_page(first), account=account)
    assert json.loads(second.body)["repositories"] == [f"{repository}/c"]
    assert "link" not in second.headers
    assert json.loads(live.request("GET", "/v2/_catalog", account="admin").body)["repositories"] == []


def test_referrers_are_listed_and_filtered(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    assert json.loads(referrers(live, repository, built.digest).body)["manifests"] == []
    sbom = artifact(built.descriptor, "application/x-sbom", org_example="yes")
    other = artifact(built.descriptor, "application/x-other")
    answer = attach(live, repository, sbom)
    assert (answer.status, answer.headers["oci-subject"]) == (201, str(built.digest))
    attach(live, repository, other)
    listed = referrers(live, repository, built.digest)
    assert listed.headers["content-type"] == str(MediaType.OCI_INDEX)
    assert "oci-filters-applied" not in listed.headers
    document = json.loads(listed.body)
    assert (document["schemaVersion"], document["mediaType"]) == (2, str(MediaType.OCI_INDEX))
    assert {item["digest"] for item in document["manifests"]} == {str(Digest.of(sbom)), str(Digest.of(other))}
    filtered = referrers(live, repository, built.digest, "?artifactType=application/x-sbom")
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    assert json.loads(filtered.body)["manifests"] == [
        {
            "mediaType": OCI,
            "digest": str(Digest.of(sbom)),
            "size": len(sbom),
            "artifactType": "application/x-sbom",
            "annotations": {"org_example": "yes"},
        }
    ]


def test_referrers_of_what_is_not_there_are_none_yet(live: LiveRegistry, repository: str) -> None:
    built = image()
    raw = artifact(built.descriptor, "application/x-sbom")
    assert attach(live, repository, raw).status == 201
    found = json.loads(referrers(live, repository, built.digest).body)["manifests"]
    assert [item["digest"] for item in found] == [str(Digest.of(raw))]
    # A host may not have an artifact whose subject nobody has judged, and is not told of it.
    assert json.loads(referrers(live, repository, built.digest, account="host").body)["manifests"] == []
    absent = referrers(live, repository, Digest.of(b"absent"))
    assert (absent.status, json.loads(absent.body)["manifests"]) == (200, [])


def test_an_artifact_type_is_the_configs_where_none_is_said(live: LiveRegistry, repository: str) -> None:
    built = image()
    referrer = image([{"another": "image"}], subject=built.descriptor)
    live.push(repository, referrer)
    found = json.loads(referrers(live, repository, built.digest).body)["manifests"]
    assert found[0]["artifactType"] == str(MediaType.OCI_CONFIG)


def test_referrers_come_a_page_at_a_time_the_registrys_own_first(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    own = [artifact(built.descriptor, ATTESTATION, number=str(number)) for number in range(2)]
    others = [artifact(built.descriptor, "application/x", number=str(number)) for number in range(5)]
    for raw in others:
        attach(live, repository, raw)
    for raw in own:
        sign(live, repository, raw, None)
    got: list[str] = []
    path = f"/v2/{repository}/referrers/{built.digest}?n=1"
    for _ in range(8):
        page = live.request("GET", path)
        got += [item["digest"] for item in json.loads(page.body)["manifests"]]
        if "link" not in page.headers:
            break
        path = next_page(page)
    assert got == sorted(str(Digest.of(raw)) for raw in own) + sorted(str(Digest.of(raw)) for raw in others)


def test_r10_a_subject_has_a_bounded_number_of_referrers_with_bounded_annotations(
    live: LiveRegistry, repository: str
) -> None:
    raw = artifact(image().descriptor, "application/x", note="x" * 70_000)
    answer = attach(live, repository, raw)
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, "MANIFEST_INVALID")


def test_an_artifact_takes_its_subjects_state(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    sbom = artifact(built.descriptor, "application/x-sbom")
    of_sbom = artifact(Descriptor(media_type=OCI, digest=Digest.of(sbom), size=len(sbom)), "application/x-signature")
    alone = artifact(None, "application/x-alone")
    for raw in (of_sbom, sbom, alone):
        attach(live, repository, raw)

    def statuses(raw: bytes) -> set[int]:
        digest = Digest.of(raw)
        answers = [live.request("GET", f"/v2/{repository}/manifests/{digest}", account="host")]
        answers.append(referrers(live, repository, built.digest, account="host"))
        return {answer.status for answer in answers}

    assert statuses(sbom) == statuses(of_sbom) == {403}
    live.judge(repository, built.digest, State.CLEARED)
    assert statuses(sbom) == statuses(of_sbom) == {200}
    assert statuses(alone) == {200, 403}
    blob = f"/v2/{repository}/blobs/{Digest.of(b'sbom')}"
    assert live.request("GET", blob, account="host").status == 200
    live.judge(repository, built.digest, State.DENIED)
    assert statuses(sbom) == statuses(of_sbom) == {403}
    assert live.request("GET", blob, account="host").status == 403


def test_an_image_about_a_cleared_one_is_not_cleared_by_it(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    live.judge(repository, built.digest, State.CLEARED)
    rider = image([{"bin/evil": "x"}], subject=built.descriptor)
    live.push(repository, rider, "rider")
    for reference in ("rider", str(rider.digest), f"sha256-{built.digest.hex}"):
        assert live.request("GET", f"/v2/{repository}/manifests/{reference}", account="host").status in {403, 404}
    layer = rider.layers[0].descriptor.digest
    assert live.request("GET", f"/v2/{repository}/blobs/{layer}", account="host").status == 403


def test_a_fallback_tag_of_referrers_can_be_pushed_and_takes_the_subjects_state(
    live: LiveRegistry, repository: str
) -> None:
    built = image()
    live.push(repository, built)
    sbom = artifact(built.descriptor, "application/x-sbom")
    attach(live, repository, sbom)
    listed = {"mediaType": OCI, "digest": str(Digest.of(sbom)), "size": len(sbom)}
    raw = json.dumps({"schemaVersion": 2, "mediaType": str(MediaType.OCI_INDEX), "manifests": [listed]}).encode()
    tag = f"sha256-{built.digest.hex}"
    assert live.put_manifest(repository, tag, raw, str(MediaType.OCI_INDEX)).status == 201
    path = f"/v2/{repository}/manifests/{tag}"
    assert live.request("GET", path).body == raw
    assert live.request("GET", path, account="host").status == 403
    live.judge(repository, built.digest, State.CLEARED)
    assert live.request("GET", path, account="host").body == raw


@pytest.mark.parametrize("suffix", ["sig", "att", "sbom", "anything.else"])
def test_s1_signature_tags_are_the_signers_alone(live: LiveRegistry, repository: str, suffix: str) -> None:
    built = image()
    live.push(repository, built)
    raw = artifact(None, "application/x")
    answer = attach(live, repository, raw, f"sha256-{built.digest.hex}.{suffix}")
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (403, "DENIED")
    assert live.request("GET", f"/v2/{repository}/manifests/{Digest.of(raw)}").status == 404


def test_s1_the_clearances_type_is_the_signers_alone(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    answer = attach(live, repository, artifact(built.descriptor, ATTESTATION))
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (403, "DENIED")
    assert json.loads(referrers(live, repository, built.digest).body)["manifests"] == []


def test_what_the_signer_made_is_deleted_with_its_image_and_not_before(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    live.judge(repository, built.digest, State.CLEARED)
    tag, raw = attestation_tag(built.digest), artifact(None, "application/x")
    clearance = artifact(built.descriptor, ATTESTATION)
    sign(live, repository, raw, tag)
    sign(live, repository, clearance, None)
    path = f"/v2/{repository}/manifests"
    assert live.request("GET", f"{path}/{tag}", account="host").body == raw
    for reference in (tag, Digest.of(raw), Digest.of(clearance)):
        assert live.request("DELETE", f"{path}/{reference}").status == 403
    assert live.request("DELETE", f"{path}/{built.digest}").status == 202
    for reference in (tag, Digest.of(raw), Digest.of(clearance)):
        assert live.request("GET", f"{path}/{reference}").status == 404
