"""A registry as a client sees it, and registries that lie, break off, flood, or ask for our credentials."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest

from ocispec.access import Access, Credentials
from ocispec.blobs import choose_image
from ocispec.descriptor import Descriptor, MediaType
from ocispec.digest import Digest
from ocispec.errors import (
    DigestMismatchError,
    LimitError,
    MissingError,
    RemoteError,
    RemoteMissingError,
    SourceError,
    SpecError,
)
from ocispec.manifest import Manifest
from ocispec.platform import Platform
from ocispec.remote import MAX_BREAKS, MAX_PAGES, MAX_REFERRERS, Remote
from tests.support.fakeregistry import Answer, FakeRegistry, Request
from tests.support.images import image, index

AMD64 = Platform.parse("linux/amd64")
QUICK = Access(plain_http=True, attempts=3, first_delay=0.001, timeout=5)
TYPE = "application/vnd.test+json"


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as running:
        yield running


@pytest.fixture
def remote(registry: FakeRegistry) -> Iterator[Remote]:
    with Remote(registry.host, QUICK) as client:
        yield client


def test_an_image_is_pulled_by_tag_and_by_digest(registry: FakeRegistry, remote: Remote) -> None:
    built = image([{"a": b"1"}, {"b": b"2" * 300_000}])
    registry.add(index([built, image(platform="linux/arm64")]), "team/app", "1.0")
    for target in ("1.0", built.digest):
        found = choose_image(remote.repository("team/app"), remote.manifest("team/app", target), AMD64)
        assert found.manifest == built.manifest
        for layer, expected in zip(found.layers, built.layers, strict=True):
            with layer.open() as stream:
                assert stream.read() == expected.blob


def test_sha512_digests_are_asked_for_and_proven(registry: FakeRegistry, remote: Remote) -> None:
    built = image()
    digest = Digest.of(built.manifest.raw, "sha512")
    registry.manifests["app", str(digest)] = (built.manifest.media_type, built.manifest.raw)
    assert remote.manifest("app", digest).digest == digest


def test_r2_a_body_under_another_digest_is_refused_whatever_its_header_says(
    registry: FakeRegistry, remote: Remote
) -> None:
    built, other = image(), image([{"evil": b"1"}])
    registry.add(built, "app", "1")
    headers = {"Content-Type": other.manifest.media_type, "Docker-Content-Digest": str(built.digest)}
    registry.hook(lambda request: Answer(200, other.manifest.raw, headers) if "/manifests/" in request.path else None)
    for target in (built.digest, "1"):
        with pytest.raises(DigestMismatchError, match=f"got {other.digest}, want {built.digest}"):
            remote.manifest("app", target)


def test_r2_a_blob_under_another_digest_is_refused(registry: FakeRegistry, remote: Remote) -> None:
    built = image()
    registry.add(built, "app", "1")
    registry.blobs["app", str(built.config.digest)] = built.config.raw.replace(b"amd64", b"arm64")
    with pytest.raises(DigestMismatchError, match="digest mismatch"):
        choose_image(remote.repository("app"), remote.manifest("app", "1"), AMD64)


def test_r1_a_body_of_another_type_than_its_header_is_refused(registry: FakeRegistry, remote: Remote) -> None:
    built = image()
    registry.manifests["app", "1"] = (str(MediaType.OCI_INDEX), built.manifest.raw)
    with pytest.raises(SpecError, match="sent as"):
        remote.manifest("app", "1")


def test_parameters_of_a_content_type_are_ignored(registry: FakeRegistry, remote: Remote) -> None:
    built = image()
    registry.manifests["app", "1"] = (f"{built.manifest.media_type}; charset=utf-8", built.manifest.raw)
    assert remote.manifest("app", "1").digest == built.digest


def test_a_manifest_of_another_size_than_its_descriptor_is_refused(registry: FakeRegistry, remote: Remote) -> None:
    built = image()
    registry.add(built, "app")
    good = built.descriptor
    assert isinstance(remote.repository("app").read_manifest(good), Manifest)
    bad = Descriptor(media_type=good.media_type, digest=good.digest, size=good.size + 1)
    with pytest.raises(DigestMismatchError, match=f"want {good.size + 1}"):
        remote.repository("app").read_manifest(bad)


@pytest.mark.parametrize("cut", [0, 1, 1000, 250_000])
def test_a_broken_download_is_taken_up_where_it_broke(registry: FakeRegistry, remote: Remote, cut: int) -> None:
    content = bytes(range(256)) * 2000
    descriptor = Descriptor(media_type="application/x", digest=Digest.of(content), size=len(content))
    registry.blobs["app", str(descriptor.digest)] = content
    breaks = iter([True, True, False])

    def break_off(request: Request) -> Answer | None:
        if "/blobs/" not in request.path or not next(breaks):
            return None
        whole = registry._blob(request, "app", str(descriptor.digest))
        return Answer(whole.status, whole.body, whole.headers, cut=cut)

    registry.hook(break_off)
    with remote.repository("app").open_blob(descriptor) as stream:
        assert stream.read() == content
    ranges = [request.headers.get("range") for request in registry.requests]
    assert ranges == ([None, None, None] if cut == 0 else [None, f"bytes={cut}-", f"bytes={2 * cut}-"])


def test_a_server_without_ranges_begins_again_and_what_is_there_is_skipped(
    registry: FakeRegistry, remote: Remote
) -> None:
    content = b"0123456789" * 1000
    descriptor = Descriptor(media_type="application/x", digest=Digest.of(content), size=len(content))
    answers = iter([Answer(200, content, cut=777), Answer(200, content)])
    registry.hook(lambda request: next(answers))
    with remote.repository("app").open_blob(descriptor) as stream:
        assert stream.read() == content


def test_a_download_that_always_breaks_ends(registry: FakeRegistry, remote: Remote) -> None:
    descriptor = Descriptor(media_type="application/x", digest=Digest.of(b""), size=100)
    registry.hook(lambda request: Answer(206 if "range" in request.headers else 200, b"x" * 100, cut=0))
    with remote.open_blob("app", descriptor) as stream, pytest.raises(SourceError, match="broke off"):
        stream.read()
    assert len(registry.requests) == MAX_BREAKS + 1


def test_a_download_that_goes_on_elsewhere_is_refused(registry: FakeRegistry, remote: Remote) -> None:
    descriptor = Descriptor(media_type="application/x", digest=Digest.of(b""), size=100)
    answers = iter([Answer(200, b"x" * 100, cut=10), Answer(206, b"y" * 50, {"Content-Range": "bytes 50-99/100"})])
    registry.hook(lambda request: next(answers))
    with remote.open_blob("app", descriptor) as stream, pytest.raises(SpecError, match="asked for bytes from 10"):
        stream.read()


def test_a_download_that_is_denied_on_the_way_says_so(registry: FakeRegistry, remote: Remote) -> None:
    descriptor = Descriptor(media_type="application/x", digest=Digest.of(b""), size=100)
    answers = iter(
        [Answer(200, b"x" * 100, cut=10), Answer(403, b'{"errors":[{"code":"DENIED","message":"revoked"}]}')]
    )
    registry.hook(lambda request: next(answers))
    with remote.open_blob("app", descriptor) as stream, pytest.raises(RemoteError, match="403 DENIED: revoked"):
        stream.read()


def test_a_blob_longer_than_its_descriptor_is_refused_without_reading_it_all(
    registry: FakeRegistry, remote: Remote
) -> None:
    descriptor = Descriptor(media_type="application/x", digest=Digest.of(b"abc"), size=3)
    registry.blobs["app", str(descriptor.digest)] = b"abc" + b"x" * 5_000_000
    with (
        remote.repository("app").open_blob(descriptor) as stream,
        pytest.raises(DigestMismatchError, match="more than 3 bytes"),
    ):
        stream.read()


def test_an_error_is_told_with_code_message_and_detail(registry: FakeRegistry, remote: Remote) -> None:
    body = {"errors": [{"code": "DENIED", "message": "licence-not-allowed", "detail": {"tree": []}}]}
    registry.hook(lambda request: Answer(403, json.dumps(body).encode()))
    with pytest.raises(RemoteError, match="answered 403 DENIED: licence-not-allowed") as caught:
        remote.manifest("app", "1")
    assert (caught.value.status, caught.value.code, caught.value.detail) == (403, "DENIED", {"tree": []})


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"errors":[1]}', b'{"errors":{}}', b'{"errors":[]}', b"\xff"]
)
def test_an_error_without_a_readable_body_is_still_that_error(
    registry: FakeRegistry, remote: Remote, body: bytes
) -> None:
    registry.hook(lambda request: Answer(418, body))
    with pytest.raises(RemoteError, match=r"answered 418$") as caught:
        remote.manifest("app", "1")
    assert caught.value.code == ""


def test_what_is_not_there_is_missing(registry: FakeRegistry, remote: Remote) -> None:
    with pytest.raises(RemoteMissingError) as caught:
        remote.manifest("app", "none")
    assert isinstance(caught.value, MissingError)
    assert caught.value.code == "MANIFEST_UNKNOWN"
    registry.add(image(), "app", "1")
    assert (remote.head_manifest("app", "1"), remote.head_manifest("app", "2")) == (True, False)
    registry.hook(lambda request: Answer(403))
    with pytest.raises(RemoteError, match="403"):
        remote.head_blob("app", Digest.of(b""))


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_registry_that_is_busy_is_asked_again(registry: FakeRegistry, remote: Remote, status: int) -> None:
    registry.add(image(), "app", "1")
    answers = iter(
        [Answer(status, headers={"Retry-After": "0"}), Answer(status, headers={"Retry-After": "soon"}), None]
    )
    registry.hook(lambda request: next(answers))
    assert remote.manifest("app", "1").digest == image().digest
    registry.unhook()
    registry.hook(lambda request: Answer(status))
    with pytest.raises(RemoteError, match=f"answered {status}"):
        remote.manifest("app", "1")


def test_a_registry_that_is_gone_is_one_clear_line() -> None:
    with FakeRegistry() as registry:
        host = registry.host
    with Remote(host, QUICK) as remote, pytest.raises(SourceError, match=f"http://{host}: no connection: .*refused"):
        remote.manifest("app", "1")


def test_a_registry_that_was_restarted_is_found_again_on_a_kept_connection(
    registry: FakeRegistry, remote: Remote
) -> None:
    registry.add(image(), "app", "1")
    registry.hook(lambda request: Answer(200, b"{}", {"Connection": "keep-alive"}, cut=2))
    remote.get_document("/x", limit=10)
    registry.unhook()
    assert remote.manifest("app", "1").digest == image().digest


def test_a_document_is_bounded_announced_or_not(registry: FakeRegistry, remote: Remote) -> None:
    registry.documents["/api/v1/x"] = b"{}" + b" " * 100
    assert len(remote.get_document("/api/v1/x", limit=102)) == 102
    with pytest.raises(LimitError, match="102 bytes, expected at most 101"):
        remote.get_document("/api/v1/x", limit=101)
    chunked = b"66\r\n" + b" " * 0x66 + b"\r\n0\r\n\r\n"
    registry.hook(lambda request: Answer(200, chunked, {"Transfer-Encoding": "chunked"}))
    assert len(remote.get_document("/api/v1/x", limit=102)) == 102
    with pytest.raises(LimitError, match="more than 101 bytes"):
        remote.get_document("/api/v1/x", limit=101)


def test_a_chunked_body_that_breaks_off_is_no_end(registry: FakeRegistry, remote: Remote) -> None:
    registry.hook(lambda request: Answer(200, b"66\r\nxx", {"Transfer-Encoding": "chunked"}, cut=6))
    with pytest.raises(SourceError, match="broke off"):
        remote.get_document("/x", limit=1000)


def test_documents_are_sent_once(registry: FakeRegistry, remote: Remote) -> None:
    registry.hook(lambda request: Answer(201, request.body + request.method.encode()))
    sent = remote.send_document("POST", "/api/v1/statements", b"{}", content_type="application/json", limit=100)
    assert sent == b"{}POST"
    registry.unhook()
    registry.hook(lambda request: Answer(503))
    with pytest.raises(RemoteError, match="503"):
        remote.send_document("POST", "/x", b"", content_type="application/json", limit=100)
    assert len(registry.requests) == 2


# Referrers and tags


def _attach(registry: FakeRegistry, count: int) -> Descriptor:
    built = image()
    registry.add(built, "app", "1")
    for number in range(count):
        registry.attach("app", built.descriptor, TYPE, b"%d" % number, TYPE)
    registry.attach("app", built.descriptor, "application/other", b"x", "application/x")
    return built.descriptor


def test_referrers_are_listed_by_type(registry: FakeRegistry, remote: Remote) -> None:
    subject = _attach(registry, 3)
    assert len(remote.referrers("app", subject.digest, TYPE)) == 3
    assert len(remote.referrers("app", subject.digest)) == 4
    assert remote.referrers("app", Digest.of(b"none")) == ()


def test_referrers_of_another_type_are_dropped_where_the_server_did_not(registry: FakeRegistry, remote: Remote) -> None:
    subject = _attach(registry, 1)
    registry.hook(
        lambda request: (
            registry._referrers(Request("GET", request.path, {}, {}), "app", str(subject.digest))
            if "/referrers/" in request.path
            else None
        )
    )
    assert [item.artifact_type for item in remote.referrers("app", subject.digest, TYPE)] == [TYPE]


def test_r10_endless_referrers_are_refused(registry: FakeRegistry, remote: Remote) -> None:
    subject = _attach(registry, MAX_REFERRERS + 1)
    with pytest.raises(LimitError, match=r"65 referrers of .*, expected at most 64"):
        remote.referrers("app", subject.digest, TYPE)
    assert len(remote.referrers("app", subject.digest, "application/other")) == 1


def test_r10_endless_pages_are_refused(registry: FakeRegistry, remote: Remote) -> None:
    page = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    link = {"Link": '</v2/app/referrers/x?n=1>; rel="next"'}
    registry.hook(lambda request: Answer(200, page, link))
    with pytest.raises(LimitError, match=f"more than {MAX_PAGES} pages"):
        remote.referrers("app", Digest.of(b""))
    registry.unhook()
    registry.hook(lambda request: Answer(200, page + b" " * 3_000_000, link))
    with pytest.raises(LimitError):
        remote.referrers("app", Digest.of(b""))


def test_r9_the_next_page_is_on_the_same_host(registry: FakeRegistry, remote: Remote) -> None:
    link = {"Link": '<http://169.254.169.254/latest>; rel="next"'}
    registry.hook(lambda request: Answer(200, b'{"tags":["a"]}', link))
    with pytest.raises(SpecError, match="on another host"):
        remote.tags("app")


def test_a_registry_without_referrers_is_asked_for_the_fallback_tag(registry: FakeRegistry, remote: Remote) -> None:
    subject = _attach(registry, 2)
    listed = remote.referrers("app", subject.digest, TYPE)
    registry.referrers_api = False
    assert remote.referrers("app", subject.digest, TYPE) == ()
    fallback = {"schemaVersion": 2, "mediaType": str(MediaType.OCI_INDEX)}
    raw = json.dumps({**fallback, "manifests": [item.to_json() for item in listed]}).encode()
    registry.put_manifest("app", raw, MediaType.OCI_INDEX, f"sha256-{subject.digest.hex}")
    assert remote.referrers("app", subject.digest, TYPE) == listed
    built = image()
    registry.put_manifest("app", built.manifest.raw, MediaType.OCI_MANIFEST, f"sha256-{subject.digest.hex}")
    with pytest.raises(SpecError, match="is a manifest, expected an index"):
        remote.referrers("app", subject.digest)


def test_tags_are_listed_over_pages(registry: FakeRegistry, remote: Remote) -> None:
    for number in range(5):
        registry.add(image(), "app", f"v{number}")
    registry.hook(
        lambda request: (
            registry._tags(Request("GET", request.path, {**request.query, "n": ["2"]}, {}), "app", "list")
            if request.path.endswith("/tags/list")
            else None
        )
    )
    assert remote.tags("app") == ("v0", "v1", "v2", "v3", "v4")
    assert len(registry.requests) == 3


def test_tags_are_checked_and_bounded(registry: FakeRegistry, remote: Remote) -> None:
    registry.hook(lambda request: Answer(200, b'{"tags":["../x"]}'))
    with pytest.raises(SpecError, match="tag"):
        remote.tags("app")
    registry.unhook()
    registry.hook(lambda request: Answer(200, json.dumps({"tags": ["t"] * 10_001}).encode()))
    with pytest.raises(SpecError, match="expected at most 10000"):
        remote.tags("app")
    registry.unhook()
    pages = {"Link": '</v2/app/tags/list?x>; rel="next"'}
    registry.hook(lambda request: Answer(200, json.dumps({"tags": ["t"] * 6_000}).encode(), pages))
    with pytest.raises(LimitError, match="more than 10000"):
        remote.tags("app")


# Pushing


def test_an_image_is_pushed_and_pulled_back(registry: FakeRegistry, remote: Remote) -> None:
    built = image([{"a": b"1" * 1_000_000}], compression="none")
    blobs = [(built.manifest.config, built.config.raw)]
    blobs += [(layer.descriptor, layer.blob) for layer in built.layers]
    for _ in range(2):
        for descriptor, content in blobs:
            remote.push_blob("team/app", descriptor, io.BytesIO(content))
    assert sum(request.method == "PUT" for request in registry.requests) == len(blobs)
    registry.hook(
        lambda request: (
            Answer(201, headers={"Warning": '299 - "quarantined"'})
            if request.method == "PUT" and registry._manifest(request, "team/app", request.path.split("/")[-1])
            else None
        )
    )
    pushed = remote.push_manifest("team/app", "1", built.manifest.raw, built.manifest.media_type)
    assert (pushed.digest, pushed.warnings) == (built.digest, ('299 - "quarantined"',))
    found = choose_image(remote.repository("team/app"), remote.manifest("team/app", built.digest), AMD64)
    assert found.config == built.config


def test_a_push_that_is_refused_says_why(registry: FakeRegistry, remote: Remote) -> None:
    descriptor = Descriptor(media_type="application/x", digest=Digest.of(b"x"), size=1)
    for method, expected in (("POST", "upload to app"), ("PUT", f"blob {descriptor.digest}")):
        registry.unhook()
        registry.hook(lambda request, method=method: Answer(403) if request.method == method else None)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        with pytest.raises(RemoteError, match=f"{expected}: answered 403"):
            remote.push_blob("app", descriptor, io.BytesIO(b"x"))
    with pytest.raises(RemoteError, match="manifest 1: answered 403"):
        remote.push_manifest("app", "1", b"{}", MediaType.OCI_MANIFEST)


def test_r9_an_upload_is_not_sent_to_another_host(registry: FakeRegistry, remote: Remote) -> None:
    registry.hook(
        lambda request: Answer(202, headers={"Location": "http://10.0.0.1/x"}) if request.method == "POST" else None
    )
    descriptor = Descriptor(media_type="application/x", digest=Digest.of(b"x"), size=1)
    with pytest.raises(SpecError, match="another host is not followed"):
        remote.push_blob("app", descriptor, io.BytesIO(b"x"))


def test_names_are_checked_before_anything_is_sent(registry: FakeRegistry, remote: Remote) -> None:
    for call in (
        lambda: remote.manifest("../x", "1"),
        lambda: remote.manifest("app", "a/b"),
        lambda: remote.tags("App"),
        lambda: remote.repository("a//b"),
    ):
        with pytest.raises(SpecError):
            call()
    assert registry.requests == []


def test_credentials_do_not_show() -> None:
    assert "hush" not in repr(Access(credentials=Credentials(name="n", secret="hush")))
