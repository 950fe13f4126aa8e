"""cosign: people's own signatures go beside an image as referrers; the tags that clients believe are the signer's."""

from __future__ import annotations

import pytest

from tests.clients.conftest import Desk
from tests.support.images import image
from tests.support.registry import LiveRegistry

PLAIN = "--allow-http-registry"


@pytest.fixture
def subject(live: LiveRegistry, name: str) -> str:
    """A pushed image, by digest."""
    built = image()
    live.push(name.partition("/")[2], built, "v1")
    return f"{name}@{built.digest}"


@pytest.fixture
def key(desk: Desk) -> str:
    """A person's own key."""
    desk.run("cosign", "generate-key-pair")
    return "cosign.key"


def test_s1_a_persons_signature_under_the_believed_tag_is_refused(
    desk: Desk, live: LiveRegistry, subject: str, name: str, key: str
) -> None:
    done = desk.try_run("cosign", "sign", "--key", key, "--tlog-upload=false", PLAIN, "-y", subject)
    assert done.returncode != 0
    assert "only this registry's signer writes tags" in done.stderr
    assert live.request("GET", f"/v2/{name.partition('/')[2]}/tags/list").body.count(b".sig") == 0


def test_a_persons_signature_as_a_referrer_is_stored_and_verified(desk: Desk, subject: str, key: str) -> None:
    options = ("--registry-referrers-mode=oci-1-1", PLAIN, "-y")
    desk.run("cosign", "sign", "--key", key, "--tlog-upload=false", *options, subject, COSIGN_EXPERIMENTAL="1")
    verify = ("cosign", "verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--experimental-oci11", PLAIN)
    assert "docker-manifest-digest" in desk.run(*verify, subject, COSIGN_EXPERIMENTAL="1")


def test_a_persons_attestation_as_a_referrer_is_stored(desk: Desk, live: LiveRegistry, subject: str, key: str) -> None:
    (desk.folder / "predicate.json").write_text('{"by": "hand"}')
    desk.run(
        *("cosign", "attest", "--key", key, "--tlog-upload=false", "--new-bundle-format", "--type", "custom"),
        *("--predicate", "predicate.json", PLAIN, "-y", subject),
    )
    repository, _, digest = subject.partition("/")[2].partition("@")
    listed = live.request("GET", f"/v2/{repository}/referrers/{digest}").body.decode()
    assert "application/vnd.dev.sigstore.bundle" in listed


def test_an_image_is_copied(desk: Desk, live: LiveRegistry, subject: str, name: str) -> None:
    desk.run("cosign", "copy", PLAIN, f"{name}:v1", f"{name}/copy:v1")
    repository, _, digest = subject.partition("/")[2].partition("@")
    copied = live.request("GET", f"/v2/{repository}/copy/manifests/v1")
    assert copied.headers["docker-content-digest"] == digest


def test_a_blob_is_uploaded_and_downloaded(desk: Desk, name: str) -> None:
    (desk.folder / "data.txt").write_text("some data")
    desk.run("cosign", "upload", "blob", PLAIN, "-f", "data.txt", f"{name}:blob")
    assert "artifacts" in desk.run("cosign", "tree", PLAIN, f"{name}:blob")
