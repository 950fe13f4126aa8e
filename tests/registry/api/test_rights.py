"""R5: to create, to move and to delete are rights apart on every tag and manifest; immutable tags (CVE-2026-31801)."""

from __future__ import annotations

import json
import threading
from collections import Counter

import pytest

from ocispec.descriptor import Descriptor
from ocispec.digest import Digest
from ocispec.manifest import Index, Manifest, parse_manifest
from policy.model import State
from registry.access import Role
from tests.registry.api.test_lists import artifact, sign
from tests.support.images import BuiltImage, image, index
from tests.support.registry import Answer, LiveRegistry

FIRST, SECOND = image([{"n": b"1"}]), image([{"n": b"2"}])
INDEX = index([FIRST, SECOND])
ARTIFACT = artifact(FIRST.descriptor, "application/x-sbom")
TAGS = ("latest", "1.0", f"sha256-{FIRST.digest.hex}", "x")


def robot(live: LiveRegistry, repository: str, rights: str) -> str:
    """The name of an account with these rights in this repository."""
    name = f"{repository}-{rights}".replace("/", "-").replace(",", "-")
    live.account(name, Role.PUSHER, f"{repository}:{rights}")
    return name


def put(live: LiveRegistry, repository: str, tag: object, what: BuiltImage | Manifest | Index, account: str) -> Answer:
    """Push a manifest alone."""
    manifest = what.manifest if isinstance(what, BuiltImage) else what
    return live.put_manifest(repository, tag, manifest.raw, manifest.media_type, account=account)


def filled(live: LiveRegistry, repository: str) -> None:
    """Put all blobs and the first image there, under every tag."""
    for content in SECOND.blobs.values():
        live.push_blob(repository, content)
    for tag in TAGS:
        live.push(repository, FIRST, tag)


def refusal(answer: Answer) -> str:
    """The message of a 403."""
    error = json.loads(answer.body)["errors"][0]
    assert (answer.status, error["code"]) == (403, "DENIED"), answer
    return str(error["message"])


def tagged(live: LiveRegistry, repository: str, tag: str) -> str:
    """What a tag points to."""
    return live.request("HEAD", f"/v2/{repository}/manifests/{tag}").headers["docker-content-digest"]


@pytest.mark.parametrize("tag", TAGS)
def test_r5_who_may_create_may_not_move_or_delete(live: LiveRegistry, repository: str, tag: str) -> None:
    filled(live, repository)
    creator = robot(live, repository, "pull,create")
    assert put(live, repository, f"new-{tag}", SECOND, creator).status == 201
    assert put(live, repository, tag, FIRST, creator).status == 201  # as it is: nothing is moved
    assert f"may not update {repository}:{tag}" in refusal(put(live, repository, tag, SECOND, creator))
    assert "may not delete" in refusal(live.request("DELETE", f"/v2/{repository}/manifests/{tag}", account=creator))
    by_digest = f"/v2/{repository}/manifests/{FIRST.digest}"
    assert "may not delete" in refusal(live.request("DELETE", by_digest, account=creator))
    several = f"/v2/{repository}/manifests/{SECOND.digest}?tag=fresh&tag={tag}"
    answer = live.request(
        "PUT", several, account=creator, body=SECOND.manifest.raw, Content_Type=SECOND.manifest.media_type
    )
    assert f"may not update {repository}:{tag}" in refusal(answer)
    assert live.request("HEAD", f"/v2/{repository}/manifests/fresh").status == 404
    assert tagged(live, repository, tag) == str(FIRST.digest)


@pytest.mark.parametrize("tag", TAGS)
def test_r5_who_may_move_may_not_create_or_delete(live: LiveRegistry, repository: str, tag: str) -> None:
    filled(live, repository)
    mover = robot(live, repository, "pull,update")
    assert f"may not create {repository}@{SECOND.digest}" in refusal(put(live, repository, tag, SECOND, mover))
    assert put(live, repository, "other", SECOND, "pusher").status == 201
    assert f"may not create {repository}:new" in refusal(put(live, repository, "new", SECOND, mover))
    assert put(live, repository, tag, SECOND, mover).status == 201
    assert tagged(live, repository, tag) == str(SECOND.digest)
    assert put(live, repository, FIRST.digest, FIRST, mover).status == 201  # is there, and changes nothing
    assert "may not delete" in refusal(live.request("DELETE", f"/v2/{repository}/manifests/{tag}", account=mover))
    uploads = f"/v2/{repository}/blobs/uploads/"
    assert "may not create" in refusal(live.request("POST", uploads, account=mover))


def test_r5_who_may_delete_may_not_push(live: LiveRegistry, repository: str) -> None:
    filled(live, repository)
    deleter = robot(live, repository, "delete")
    for tag in ("latest", "new", str(FIRST.digest)):
        assert "may not create" in refusal(put(live, repository, tag, FIRST, deleter))
    for path in ("manifests/latest", f"manifests/{FIRST.digest}", f"blobs/{FIRST.config.digest}"):
        assert live.request("GET", f"/v2/{repository}/{path}", account=deleter).status == 404
        assert live.request("DELETE", f"/v2/{repository}/{path}", account=deleter).status == 202


def test_r5_who_may_only_create_reads_nothing(live: LiveRegistry, repository: str) -> None:
    creator = robot(live, repository, "create")
    for content in FIRST.blobs.values():
        live.push_blob(repository, content, account=creator)
    assert put(live, repository, "latest", FIRST, creator).status == 201
    for path in ("manifests/latest", f"manifests/{FIRST.digest}", f"blobs/{FIRST.config.digest}", "tags/list"):
        assert live.request("GET", f"/v2/{repository}/{path}", account=creator).status == 404
        assert live.request("GET", f"/v2/{repository}/{path}").status == 200
    assert live.request("GET", f"/v2/{repository}/referrers/{FIRST.digest}", account=creator).status == 404
    assert json.loads(live.request("GET", "/v2/_catalog", account=creator).body)["repositories"] == []
    assert json.loads(live.request("GET", "/api/v1/images", account=creator).body)["images"] == []


def test_r5_indexes_and_artifacts_are_no_way_round(live: LiveRegistry, repository: str) -> None:
    filled(live, repository)
    assert put(live, repository, "second", SECOND, "pusher").status == 201
    for content in (b"{}", b"sbom"):
        live.push_blob(repository, content)
    creator = robot(live, repository, "create")
    for what in (INDEX.index, parse_artifact()):
        assert "may not update" in refusal(put(live, repository, "latest", what, creator))
        assert put(live, repository, f"new-{what.digest.hex[:8]}", what, creator).status == 201
    assert tagged(live, repository, "latest") == str(FIRST.digest)


def parse_artifact() -> Manifest:
    """The artifact, parsed."""
    parsed = parse_manifest(ARTIFACT, None)
    assert isinstance(parsed, Manifest)
    return parsed


def test_r5_one_of_many_creators_makes_a_tag(live: LiveRegistry, repository: str) -> None:
    """Who comes second would move it, and may not."""
    images = [image([{"racer": b"%d" % number}]) for number in range(8)]
    creator = robot(live, repository, "create")
    for made in images:
        for content in made.blobs.values():
            live.push_blob(repository, content, account=creator)
    statuses: list[int] = []
    start = threading.Barrier(len(images))

    def race(made: BuiltImage) -> None:
        start.wait(30)
        statuses.append(put(live, repository, "latest", made, creator).status)

    threads = [threading.Thread(target=race, args=(made,)) for made in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Counter(statuses) == {201: 1, 403: len(images) - 1}


# ---- immutable tags --------------------------------------------------------------------------------------------------


def keep(live: LiveRegistry, repository: str, *tags: str, but: tuple[str, ...] = ()) -> None:
    """Set a rule by the API."""
    value = {"tags": list(tags), "except": list(but)}
    body = json.dumps({"kind": "immutable", "pattern": repository, "value": value}).encode()
    answer = live.request("PUT", "/api/v1/rules", account="admin", body=body)
    assert answer.status in {200, 201}, answer


def let_go(live: LiveRegistry, repository: str) -> None:
    """Remove it again."""
    path = f"/api/v1/rules?kind=immutable&pattern={repository}"
    assert live.request("DELETE", path, account="admin").status == 204


@pytest.mark.parametrize("account", ["pusher", "updater", "deleter"])
def test_an_immutable_tag_is_neither_moved_nor_deleted(live: LiveRegistry, repository: str, account: str) -> None:
    filled(live, repository)
    rights = {"updater": "pull,create,update", "deleter": "pull,delete"}
    name = robot(live, repository, rights[account]) if account in rights else account
    keep(live, repository, "*", but=("dev-*",))
    for tag in TAGS:
        for answer in (
            put(live, repository, tag, SECOND, name),
            live.request("DELETE", f"/v2/{repository}/manifests/{tag}", account=name),
        ):
            refusal(answer)
        assert tagged(live, repository, tag) == str(FIRST.digest)
    said = refusal(live.request("DELETE", f"/v2/{repository}/manifests/{TAGS[0]}", account="pusher"))
    assert f"rule immutable {repository} keeps it at {FIRST.digest}: it is neither moved nor deleted" in said
    refusal(live.request("DELETE", f"/v2/{repository}/manifests/{FIRST.digest}", account=name))
    assert put(live, repository, "dev-1", FIRST, "pusher").status == 201
    assert put(live, repository, "dev-1", SECOND, "pusher").status == 201
    assert put(live, repository, "new", SECOND, "pusher").status == 201
    refusal(put(live, repository, "new", FIRST, "pusher"))
    let_go(live, repository)
    assert put(live, repository, "latest", SECOND, "pusher").status == 201


def test_what_an_immutable_tag_serves_is_not_deleted_under_it(live: LiveRegistry, repository: str) -> None:
    """The rule came when the tag had been moved on to something that was not cleared."""
    live.push(repository, FIRST, "1")
    live.judge(repository, FIRST.digest, State.CLEARED, serve="1")
    live.push(repository, SECOND, "1")
    keep(live, repository, "1")
    refusal(live.request("DELETE", f"/v2/{repository}/manifests/{FIRST.digest}"))
    assert live.request("GET", f"/v2/{repository}/manifests/1", account="host").status == 200
    let_go(live, repository)
    assert live.request("DELETE", f"/v2/{repository}/manifests/{FIRST.digest}").status == 202


def test_immutable_tags_do_not_hinder_what_the_registry_says_of_images(live: LiveRegistry, repository: str) -> None:
    """Its own tags are none of anybody's; deleting an image takes them along."""
    live.push(repository, FIRST, "1")
    keep(live, repository, "sha256-*")
    subject = Descriptor(media_type=FIRST.manifest.media_type, digest=FIRST.digest, size=len(FIRST.manifest.raw))
    tag = f"sha256-{FIRST.digest.hex}.sig"
    for kind in ("application/x-one", "application/x-two"):
        sign(live, repository, artifact(subject, kind), tag)
    assert live.request("DELETE", f"/v2/{repository}/manifests/{FIRST.digest}").status == 202
    assert live.request("HEAD", f"/v2/{repository}/manifests/{tag}").status == 404


def test_r6_nobody_but_an_admin_lifts_a_rule(live: LiveRegistry, repository: str) -> None:
    """CVE-2024-22278: whoever keeps a repository could switch off what keeps it."""
    live.push(repository, FIRST, "1")
    keep(live, repository, "*")
    weaker = json.dumps({"kind": "immutable", "pattern": repository, "value": {"tags": ["none"]}}).encode()
    for role in Role:
        if role in {Role.ADMIN, Role.REGISTRY}:
            continue
        assert live.request("PUT", "/api/v1/rules", account=str(role), body=weaker).status == 403
        path = f"/api/v1/rules?kind=immutable&pattern={repository}"
        assert live.request("DELETE", path, account=str(role)).status == 403
        seen = live.request("GET", "/api/v1/rules", account=str(role)).status
        assert seen == (200 if role in {Role.OFFICER, Role.AUDITOR} else 403)
    refusal(put(live, repository, "1", SECOND, "pusher"))
    assert Digest.parse(tagged(live, repository, "1")) == FIRST.digest


def test_an_immutable_tag_is_not_moved_by_way_of_a_query_or_of_anything_else(
    live: LiveRegistry, repository: str
) -> None:
    """`?tag=` of a push by digest, an index or artifact under the tag, and the fallback tag of referrers."""
    filled(live, repository)
    fallback = f"sha256-{FIRST.digest.hex}"
    assert put(live, repository, "second", SECOND, "pusher").status == 201
    for content in (b"{}", b"sbom"):
        live.push_blob(repository, content)
    keep(live, repository, "latest", "1.*", "sha256-*")
    for tag in ("latest", "1.0", fallback):
        query = f"/v2/{repository}/manifests/{SECOND.digest}?tag=fresh&tag={tag}&tag=later"
        refusal(live.request("PUT", query, body=SECOND.manifest.raw, Content_Type=SECOND.manifest.media_type))
        for what in (SECOND, INDEX.index, parse_artifact()):
            refusal(put(live, repository, tag, what, "pusher"))
        refusal(live.request("DELETE", f"/v2/{repository}/manifests/{tag}"))
        assert tagged(live, repository, tag) == str(FIRST.digest)
    for name in ("fresh", "later"):  # either all tags of a push are set or none
        assert live.request("HEAD", f"/v2/{repository}/manifests/{name}").status == 404
    refusal(live.request("DELETE", f"/v2/{repository}/manifests/{FIRST.digest}"))
    same = f"/v2/{repository}/manifests/{FIRST.digest}?tag=latest&tag=1.1"
    answer = live.request("PUT", same, body=FIRST.manifest.raw, Content_Type=FIRST.manifest.media_type)
    assert answer.status == 201  # as it is, and a new one, which is made once
    refusal(put(live, repository, "1.1", SECOND, "pusher"))


def test_an_immutable_tag_is_made_once_by_many_at_a_time(live: LiveRegistry, repository: str) -> None:
    keep(live, repository, "*")
    images = [image([{"racer": b"%d" % number}]) for number in range(8)]
    for made in images:
        for content in made.blobs.values():
            live.push_blob(repository, content)
    statuses: list[int] = []
    start = threading.Barrier(len(images))

    def race(made: BuiltImage) -> None:
        start.wait(30)
        statuses.append(put(live, repository, "1", made, "pusher").status)

    threads = [threading.Thread(target=race, args=(made,)) for made in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert Counter(statuses) == {201: 1, 403: len(images) - 1}
