"""Manifests over HTTP: push, pull by tag and digest, what is refused, deletes, and who is served what."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from sqlalchemy import select, update

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from policy.model import State
from registry.access import Role
from registry.app import utc_now
from registry.catalogue.database import insert_new
from registry.catalogue.schema import audit, contents, manifests, tags
from tests.support.images import BuiltImage, image, index
from tests.support.registry import Answer, LiveRegistry

OCI = str(MediaType.OCI_MANIFEST)
OCI_INDEX = str(MediaType.OCI_INDEX)


def code(answer: Answer) -> str:
    """The code of the first error."""
    return str(json.loads(answer.body)["errors"][0]["code"])


def manifest_of(built: BuiltImage, **changes: object) -> bytes:
    """The image's manifest with members changed (None: left out)."""
    members = json.loads(built.manifest.raw) | changes
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def push_blobs(live: LiveRegistry, repository: str, built: BuiltImage) -> None:
    """Push the image's blobs alone."""
    for content in built.blobs.values():
        live.push_blob(repository, content)


@pytest.mark.parametrize("flavour", ["oci", "docker"])
def test_an_image_is_pulled_by_tag_and_by_digest(live: LiveRegistry, repository: str, flavour: str) -> None:
    built = image(flavour=flavour)
    pushed = live.push(repository, built, "v1")
    assert pushed.headers["docker-content-digest"] == str(built.digest)
    for reference in ("v1", str(built.digest)):
        path = f"/v2/{repository}/manifests/{reference}"
        got = live.request("GET", path)
        assert (got.status, got.body) == (200, built.manifest.raw)
        assert got.headers["content-type"] == built.manifest.media_type
        assert got.headers["docker-content-digest"] == str(built.digest)
        head = live.request("HEAD", path)
        assert (head.status, head.headers["content-length"]) == (200, str(len(built.manifest.raw)))


def test_a_push_is_answered_with_state_reason_and_the_command_that_explains_it(
    live: LiveRegistry, repository: str
) -> None:
    warning = live.push(repository, image(), "v1").headers["warning"]
    assert warning.startswith('299 - "quarantined: not-judged: ')
    assert warning.endswith(f'pratique explain {live.address}/{repository}:v1"')


def test_an_index_needs_its_children(live: LiveRegistry, repository: str) -> None:
    built = index([image(), image(platform="linux/arm64")])
    answer = live.put_manifest(repository, "multi", built.index.raw, OCI_INDEX)
    assert (answer.status, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    for child in built.images:
        live.push(repository, child, child.digest)
    assert live.put_manifest(repository, "multi", built.index.raw, OCI_INDEX).status == 201
    got = live.request("GET", f"/v2/{repository}/manifests/multi")
    assert (got.body, got.headers["content-type"]) == (built.index.raw, OCI_INDEX)


def test_an_index_describes_its_children_as_they_are(live: LiveRegistry, repository: str) -> None:
    child = image()
    live.push(repository, child, child.digest)
    members = json.loads(index([child]).index.raw)
    for name, value in (("size", 1), ("mediaType", OCI_INDEX)):
        changed = json.loads(json.dumps(members))
        changed["manifests"][0][name] = value
        answer = live.put_manifest(repository, "multi", json.dumps(changed).encode(), OCI_INDEX)
        assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID")


def test_a_manifest_needs_its_blobs_of_the_size_that_it_says(live: LiveRegistry, repository: str) -> None:
    built = image()
    answer = live.put_manifest(repository, "v1", built.manifest.raw, OCI)
    assert (answer.status, code(answer)) == (400, "MANIFEST_BLOB_UNKNOWN")
    push_blobs(live, repository, built)
    layers = json.loads(built.manifest.raw)["layers"]
    layers[0]["size"] += 1
    answer = live.put_manifest(repository, "v1", manifest_of(built, layers=layers), OCI)
    assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID")
    assert live.request("GET", f"/v2/{repository}/manifests/v1").status == 404


def test_a_manifest_under_another_digest_is_refused(live: LiveRegistry, repository: str) -> None:
    built = image()
    push_blobs(live, repository, built)
    answer = live.put_manifest(repository, Digest.of(b"another"), built.manifest.raw, OCI)
    assert (answer.status, code(answer)) == (400, "DIGEST_INVALID")


def test_a_manifest_by_its_sha512(live: LiveRegistry, repository: str) -> None:
    built = image()
    push_blobs(live, repository, built)
    digest = Digest.of(built.manifest.raw, "sha512")
    assert live.put_manifest(repository, digest, built.manifest.raw, OCI).status == 201
    got = live.request("GET", f"/v2/{repository}/manifests/{digest}")
    assert (got.body, got.headers["docker-content-digest"]) == (built.manifest.raw, str(digest))


def test_a_push_by_digest_sets_the_tags_of_its_query(live: LiveRegistry, repository: str) -> None:
    built = image()
    push_blobs(live, repository, built)
    for algorithm in ("sha256", "sha512"):
        digest = Digest.of(built.manifest.raw, algorithm)
        tags = [f"{algorithm}-{number}" for number in range(40)]
        query = "&".join(f"tag={tag}" for tag in [*tags, tags[0]])
        answer = live.put_manifest(repository, f"{digest}?{query}", built.manifest.raw, OCI)
        assert (answer.status, answer.headers["oci-tag"]) == (201, ", ".join(tags))
        for tag in tags:
            got = live.request("GET", f"/v2/{repository}/manifests/{tag}")
            assert (got.body, got.headers["docker-content-digest"]) == (built.manifest.raw, str(digest))


def test_a_push_by_digest_without_tags_sets_none(live: LiveRegistry, repository: str) -> None:
    answer = live.push(repository, image(), image().digest)
    assert "oci-tag" not in answer.headers
    assert json.loads(live.request("GET", f"/v2/{repository}/tags/list").body)["tags"] == []


@pytest.mark.parametrize(
    ("query", "status", "wanted"),
    [
        ("tag=good&tag=-bad", 400, "MANIFEST_INVALID"),
        ("tag=good&tag=", 400, "MANIFEST_INVALID"),
        (f"tag=good&tag=sha256-{'a' * 64}.sig", 403, "DENIED"),
        ("tag=good&" + "&".join(f"tag=t{number}" for number in range(64)), 414, "UNSUPPORTED"),
        ("&".join(f"tag={'t' * 120}{number}" for number in range(40)), 414, "UNSUPPORTED"),
    ],
)
def test_either_all_tags_of_a_push_are_set_or_none(
    live: LiveRegistry, repository: str, query: str, status: int, wanted: str
) -> None:
    built = image()
    push_blobs(live, repository, built)
    answer = live.put_manifest(repository, f"{built.digest}?{query}", built.manifest.raw, OCI)
    assert (answer.status, code(answer)) == (status, wanted)
    for reference in ("good", "t0", built.digest):
        assert live.request("GET", f"/v2/{repository}/manifests/{reference}").status == 404


def test_r5_each_tag_of_a_push_needs_its_own_right(live: LiveRegistry, repository: str) -> None:
    first, second = image([{"x": "1"}]), image([{"x": "2"}])
    account = f"{repository.replace('/', '-')}-creator"
    live.account(account, Role.PUSHER, f"{repository}:pull,create")
    live.push(repository, first, "v1")
    live.push(repository, second, second.digest)
    path = f"{second.digest}?tag=new&tag=v1"
    answer = live.put_manifest(repository, path, second.manifest.raw, OCI, account=account)
    assert (answer.status, code(answer)) == (403, "DENIED")
    assert live.request("GET", f"/v2/{repository}/manifests/v1").body == first.manifest.raw
    assert live.request("GET", f"/v2/{repository}/manifests/new").status == 404
    path = f"{second.digest}?tag=new"
    assert live.put_manifest(repository, path, second.manifest.raw, OCI, account=account).status == 201


def test_tags_in_the_query_of_a_push_by_tag_are_refused(live: LiveRegistry, repository: str) -> None:
    built = image()
    push_blobs(live, repository, built)
    answer = live.put_manifest(repository, "v1?tag=v2", built.manifest.raw, OCI)
    assert (answer.status, code(answer)) == (400, "UNSUPPORTED")
    assert live.request("GET", f"/v2/{repository}/manifests/v1").status == 404


@pytest.mark.parametrize(
    "media_type", [str(MediaType.DOCKER_SCHEMA1), str(MediaType.DOCKER_SCHEMA1_SIGNED), "application/json", OCI]
)
def test_schema_1_is_refused_with_a_clear_error(live: LiveRegistry, repository: str, media_type: str) -> None:
    raw = json.dumps(
        {
            "schemaVersion": 1,
            "name": repository,
            "tag": "v1",
            "architecture": "amd64",
            "fsLayers": [{"blobSum": str(Digest.of(b"layer"))}],
            "history": [{"v1Compatibility": "{}"}],
            "signatures": [],
        }
    ).encode()
    answer = live.put_manifest(repository, "v1", raw, media_type)
    assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID")
    message = json.loads(answer.body)["errors"][0]["message"]
    assert message.endswith("Docker schema 1 is not accepted, expected schema 2 or an OCI manifest")


AMBIGUOUS: dict[str, Callable[[BuiltImage], tuple[bytes, str]]] = {
    "manifests beside layers": lambda built: (manifest_of(built, manifests=[]), OCI),
    "layers in an index": lambda built: (manifest_of(built, mediaType=OCI_INDEX, manifests=[]), OCI_INDEX),
    "body says index, header manifest": lambda built: (manifest_of(built, mediaType=OCI_INDEX), OCI),
    "header says index, body manifest": lambda built: (built.manifest.raw, OCI_INDEX),
    "fsLayers beside layers": lambda built: (manifest_of(built, fsLayers=[]), OCI),
    "schema 1": lambda built: (manifest_of(built, schemaVersion=1), OCI),
    "no schema version": lambda built: (manifest_of(built, schemaVersion=None), OCI),
    "no config": lambda built: (manifest_of(built, config=None), OCI),
    "unknown type": lambda built: (manifest_of(built, mediaType=None), "application/json"),
}


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_r1_an_ambiguous_document_is_refused(live: LiveRegistry, repository: str, name: str) -> None:
    built = image()
    push_blobs(live, repository, built)
    raw, media_type = AMBIGUOUS[name](built)
    answer = live.put_manifest(repository, "v1", raw, media_type)
    assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID")
    assert live.request("GET", f"/v2/{repository}/manifests/v1").status == 404
    assert live.request("GET", f"/v2/{repository}/manifests/{Digest.of(raw)}").status == 404


HOSTILE_JSON: dict[str, Callable[[bytes], bytes]] = {
    "duplicate member": lambda raw: raw.replace(b"{", b'{"config":{},', 1),
    "NaN": lambda raw: raw.replace(b"{", b'{"x":NaN,', 1),
    "integer beyond 2^53": lambda raw: raw.replace(b"{", b'{"x":9007199254740993,', 1),
    "deep nesting": lambda raw: raw.replace(b"{", b'{"x":' + b"[" * 5000 + b"]" * 5000 + b",", 1),
    "not UTF-8": lambda raw: raw.replace(b"{", b'{"x":"\xff",', 1),
    "lone surrogate": lambda raw: raw.replace(b"{", b'{"x":"\\ud800",', 1),
    "trailing data": lambda raw: raw + b"{}",
    "no object": lambda raw: b"[" + raw + b"]",
    "empty": lambda raw: b"",
}


@pytest.mark.parametrize("name", HOSTILE_JSON)
def test_r11_json_that_two_parsers_read_differently_is_refused(live: LiveRegistry, repository: str, name: str) -> None:
    built = image()
    push_blobs(live, repository, built)
    answer = live.put_manifest(repository, "v1", HOSTILE_JSON[name](built.manifest.raw), OCI)
    assert answer.status in {400, 413}
    assert code(answer) in {"MANIFEST_INVALID", "SIZE_INVALID"}
    assert live.request("GET", f"/v2/{repository}/manifests/v1").status == 404


def test_r10_a_manifest_larger_than_4_mib_is_refused(live: LiveRegistry, repository: str) -> None:
    raw = manifest_of(image(), annotations={"x": "y" * 4 * 2**20})
    answer = live.put_manifest(repository, "v1", raw, OCI)
    assert (answer.status, code(answer)) == (413, "SIZE_INVALID")


def test_r2_stored_bytes_that_changed_are_not_served(live: LiveRegistry, repository: str) -> None:
    built = image([{"only": repository}])
    live.push(repository, built)
    catalogue = live.catalogue()
    with catalogue.write() as conn:
        changed = built.manifest.raw + b" "
        conn.execute(update(contents).where(contents.c.digest == built.digest).values(content=changed))
    catalogue.close()
    for reference in ("latest", str(built.digest)):
        answer = live.request("GET", f"/v2/{repository}/manifests/{reference}")
        assert (answer.status, code(answer)) == (500, "CONTENT_CORRUPT")


def test_r1_an_ambiguous_document_in_the_database_is_not_served(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    raw = manifest_of(built, manifests=[])
    digest = Digest.of(raw)
    catalogue = live.catalogue()
    with catalogue.write() as conn:
        insert_new(conn, contents, digest=digest, content=raw)
        row = {"repository": repository, "digest": digest, "media_type": OCI, "size": len(raw), "kind": "image"}
        insert_new(conn, manifests, **row, artifact_type="", annotations="{}", pushed=utc_now(), pushed_by="x")
        conn.execute(update(tags).where(tags.c.repository == repository).values(pushed=digest))
    catalogue.close()
    for reference in ("latest", str(digest)):
        answer = live.request("GET", f"/v2/{repository}/manifests/{reference}")
        assert (answer.status, code(answer)) == (500, "CONTENT_CORRUPT")


HOSTILE_DIGESTS = [
    "sha256:../../../../etc/passwd",
    "sha256:..%2F..%2Fetc%2Fpasswd",
    "sha256:",
    "sha256:abcd",
    "sha256:" + "A" * 64,
    "SHA256:" + "a" * 64,
    "sha256:" + "a" * 63 + "%00",
    "sha256:" + "a" * 65,
    "sha512:" + "a" * 64,
    "md5:" + "a" * 32,
    "sha256:" + "a" * 63 + "/",
    "%2e%2e:aa",
]


@pytest.mark.parametrize("digest", HOSTILE_DIGESTS)
def test_r3_a_digest_is_checked_before_it_becomes_a_path(live: LiveRegistry, repository: str, digest: str) -> None:
    live.push(repository, image())
    for method, path in (
        ("GET", f"/v2/{repository}/blobs/{digest}"),
        ("DELETE", f"/v2/{repository}/blobs/{digest}"),
        ("GET", f"/v2/{repository}/manifests/{digest}"),
        ("DELETE", f"/v2/{repository}/manifests/{digest}"),
        ("GET", f"/v2/{repository}/referrers/{digest}"),
        ("POST", f"/v2/{repository}/blobs/uploads/?digest={digest}"),
        ("POST", f"/v2/{repository}/blobs/uploads/?mount={digest}&from={repository}"),
    ):
        answer = live.request(method, path, body=b"x" if method == "POST" else None)
        assert answer.status in {400, 404}, (method, path, answer)
        assert code(answer) in {"DIGEST_INVALID", "UNSUPPORTED", "NAME_INVALID", "MANIFEST_UNKNOWN"}


@pytest.mark.parametrize(
    "name", ["../x", "A/b", "a//b", "a/./b", "a/../b", "-a", "a" * 256, "a/", ".hidden", "a%2F..%2Fb", "a b", "ä"]
)
def test_r3_a_name_is_checked_before_it_becomes_a_key(live: LiveRegistry, name: str) -> None:
    path = f"/v2/{quote(name, safe='/%')}/blobs/uploads/"
    answer = live.request("POST", path)
    assert answer.status in {400, 404}, answer
    assert code(answer) in {"NAME_INVALID", "UNSUPPORTED"}


@pytest.mark.parametrize("subject", ["sha256:zz", "", "latest", "sha256:" + "A" * 64])
def test_r3_a_malformed_subject_is_refused(live: LiveRegistry, repository: str, subject: str) -> None:
    built = image()
    push_blobs(live, repository, built)
    raw = manifest_of(built, subject={"mediaType": OCI, "digest": subject, "size": 1})
    answer = live.put_manifest(repository, "v1", raw, OCI)
    assert (answer.status, code(answer)) == (400, "MANIFEST_INVALID")


@pytest.mark.parametrize("tag", ["-x", "a" * 129, "a%2Fb", "ü", "a b"])
def test_a_reference_that_can_be_no_tag(live: LiveRegistry, repository: str, tag: str) -> None:
    path = f"/v2/{repository}/manifests/{quote(tag, safe='%')}"
    assert live.request("GET", path).status == 404
    built = image()
    push_blobs(live, repository, built)
    answer = live.request("PUT", path, body=built.manifest.raw, Content_Type=OCI)
    assert answer.status in {400, 404}


@pytest.mark.parametrize("account", ["host", "scanner", "officer", "auditor", "admin"])
@pytest.mark.parametrize("tag", ["latest", "v1", "new"])
def test_r5_create_update_and_delete_are_rights_of_the_pusher_on_every_tag(
    live: LiveRegistry, repository: str, account: str, tag: str
) -> None:
    first, second = image([{"x": "1"}]), image([{"x": "2"}])
    live.push(repository, first, "latest")
    live.push(repository, first, "v1")
    live.push(repository, second, second.digest)
    put = live.put_manifest(repository, tag, second.manifest.raw, OCI, account=account)
    assert (put.status, code(put)) == (403, "DENIED")
    gone = live.request("DELETE", f"/v2/{repository}/manifests/{tag}", account=account)
    assert gone.status in {403, 404}
    for kept in ("latest", "v1"):
        assert live.request("GET", f"/v2/{repository}/manifests/{kept}").body == first.manifest.raw
    assert live.request("GET", f"/v2/{repository}/manifests/new").status == 404


def test_r7_without_an_account_nothing_is_answered(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built)
    for method, path in (
        ("GET", "/v2/"),
        ("GET", "/v2/_catalog"),
        ("GET", f"/v2/{repository}/manifests/latest"),
        ("HEAD", f"/v2/{repository}/manifests/latest"),
        ("GET", f"/v2/{repository}/blobs/{built.config.digest}"),
        ("POST", f"/v2/{repository}/blobs/uploads/"),
        ("GET", "/api/v1/policy"),
        ("GET", "/anything"),
    ):
        answer = live.request(method, path, account=None)
        assert answer.status == 401
        # Of several, this is the last: Docker would send Basic each time where it is offered beside a token.
        assert answer.headers["www-authenticate"].startswith("Bearer " if path.startswith("/v2/") else "Basic ")


def test_r7_no_default_credentials_work(live: LiveRegistry) -> None:
    for name, secret in (("admin", "admin"), ("admin", "Harbor12345"), ("admin", "password"), ("registry", "registry")):
        encoded = base64.b64encode(f"{name}:{secret}".encode()).decode()
        answer = live.request("GET", "/v2/", account=None, Authorization=f"Basic {encoded}")
        assert answer.status == 401


def test_a_host_is_served_what_is_cleared_and_told_why_not(live: LiveRegistry, repository: str) -> None:
    first, second = image([{"x": "1"}]), image([{"x": "2"}])
    path = f"/v2/{repository}/manifests"
    live.push(repository, first, "v1")
    refused = live.request("GET", f"{path}/v1", account="host")
    error = json.loads(refused.body)["errors"][0]
    assert (refused.status, error["code"]) == (403, "DENIED")
    assert "not-judged" in error["message"]
    assert error["detail"]["state"] == "quarantined"
    live.judge(repository, first.digest, State.CLEARED, serve="v1")
    assert live.request("GET", f"{path}/v1", account="host").body == first.manifest.raw
    # A denied image pushed to the tag: everybody else sees it, hosts are still served the cleared one.
    live.push(repository, second, "v1")
    live.judge(repository, second.digest, State.DENIED)
    assert live.request("GET", f"{path}/v1", account="host").body == first.manifest.raw
    assert live.request("GET", f"{path}/v1").body == second.manifest.raw
    assert live.request("GET", f"{path}/{second.digest}", account="host").status == 403
    assert live.request("GET", f"{path}/nothing", account="host").status == 404
    # Revoked: what was served a moment ago is served no more.
    live.judge(repository, first.digest, State.REVOKED)
    assert live.request("GET", f"{path}/v1", account="host").status == 403


@pytest.mark.parametrize(("account", "status"), [("scanner", 200), ("officer", 200), ("auditor", 200), ("admin", 404)])
def test_other_roles_see_all_or_nothing(live: LiveRegistry, repository: str, account: str, status: int) -> None:
    live.push(repository, image())
    assert live.request("GET", f"/v2/{repository}/manifests/latest", account=account).status == status


def test_a_pusher_of_other_repositories_learns_nothing(live: LiveRegistry, repository: str) -> None:
    if "stranger" not in live.secrets:
        live.account("stranger", Role.PUSHER, "stranger/*")
    live.push(repository, image())
    there = live.request("GET", f"/v2/{repository}/manifests/latest", account="stranger")
    absent = live.request("GET", f"/v2/{repository}/manifests/absent", account="stranger")
    assert there.status == absent.status == 404
    assert there.body == absent.body.replace(b"absent", b"latest")
    assert live.request("POST", f"/v2/{repository}/blobs/uploads/", account="stranger").status == 403


def test_a_deleted_tag_is_gone_and_its_manifest_stays(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built, "v1")
    assert live.request("DELETE", f"/v2/{repository}/manifests/v1").status == 202
    assert live.request("GET", f"/v2/{repository}/manifests/v1").status == 404
    assert live.request("GET", f"/v2/{repository}/manifests/{built.digest}").status == 200
    assert live.request("DELETE", f"/v2/{repository}/manifests/v1").status == 404


def test_a_deleted_manifest_takes_its_tags_with_it(live: LiveRegistry, repository: str) -> None:
    built = image()
    for tag in ("v1", "v2"):
        live.push(repository, built, tag)
    path = f"/v2/{repository}/manifests"
    assert live.request("DELETE", f"{path}/{built.digest}").status == 202
    for reference in ("v1", "v2", str(built.digest)):
        assert live.request("GET", f"{path}/{reference}").status == 404
    assert live.request("DELETE", f"{path}/{built.digest}").status == 404
    # Its blobs are free now, and it can be pushed again.
    assert live.request("DELETE", f"/v2/{repository}/blobs/{built.config.digest}").status == 202
    live.push(repository, built, "v1")


def test_a_deleted_manifest_is_served_no_more_and_the_tag_stays_with_what_was_pushed(
    live: LiveRegistry, repository: str
) -> None:
    first, second = image([{"x": "1"}]), image([{"x": "2"}])
    path = f"/v2/{repository}/manifests"
    live.push(repository, first, "v1")
    live.judge(repository, first.digest, State.CLEARED, serve="v1")
    live.push(repository, second, "v1")
    assert live.request("DELETE", f"{path}/{first.digest}").status == 202
    assert live.request("GET", f"{path}/v1").body == second.manifest.raw
    refused = live.request("GET", f"{path}/v1", account="host")
    assert (refused.status, "serves nothing yet" in refused.body.decode()) == (403, True)


def test_a_child_of_an_index_is_not_deleted(live: LiveRegistry, repository: str) -> None:
    built = index([image()])
    live.push(repository, built.images[0], built.images[0].digest)
    live.put_manifest(repository, "multi", built.index.raw, OCI_INDEX)
    path = f"/v2/{repository}/manifests"
    assert live.request("DELETE", f"{path}/{built.images[0].digest}").status == 409
    assert live.request("DELETE", f"{path}/{built.digest}").status == 202
    assert live.request("DELETE", f"{path}/{built.images[0].digest}").status == 202


def test_every_change_is_an_audit_record(live: LiveRegistry, repository: str) -> None:
    built = image()
    live.push(repository, built, "v1")
    live.request("DELETE", f"/v2/{repository}/manifests/{built.digest}")
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        rows = conn.execute(
            select(audit.c.event, audit.c.principal, audit.c.source, audit.c.subject, audit.c.before, audit.c.after)
            .where(audit.c.subject.startswith(repository), audit.c.event != "read")
            .order_by(audit.c.seq)
        ).all()
    catalogue.close()
    by_digest, by_tag, digest = f"{repository}@{built.digest}", f"{repository}:v1", str(built.digest)
    assert [tuple(row) for row in rows] == [
        ("push", "pusher", "127.0.0.1", by_digest, "", "image"),
        ("tag", "pusher", "127.0.0.1", by_tag, "", digest),
        ("tag", "pusher", "127.0.0.1", by_tag, digest, ""),
        ("delete", "pusher", "127.0.0.1", by_digest, "manifest", ""),
    ]
