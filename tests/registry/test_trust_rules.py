"""The rules of states, tags and artifacts, as clients see them: real images, judge and signer, over HTTP.

docs/trust.md has the table of all rules and the test of each; here are those that no other file tries.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from ocispec.descriptor import MediaType
from ocispec.digest import Digest
from policy.cosign import ATTESTATION, attestation_tag, signature_tag
from policy.model import State
from policy.statements import Clearance, RevocationList, TagStatement
from registry.access import Role
from registry.api.referrers import PAGE
from registry.audit import read
from registry.catalogue import schema
from registry.catalogue.blobs import remove_blob
from registry.push import MAX_ANNOTATIONS
from tests.registry.desk import EMPTY, OCI, SBOM, Desk, artifact, described
from tests.support import judging
from tests.support.bench import Bench
from tests.support.images import BuiltImage, image, index
from tests.support.trust import REGISTRY

TEAM = "team/app"
PEOPLE = ("pusher", "scanner", "officer", "auditor")


@contextmanager
def opened(folder: Path, database: str = "", *, push_wait_ms: int = 0) -> Iterator[Desk]:
    """A desk with trust.json, policy and list."""
    bench = Bench(folder, database)
    bench.publish()
    bench.settle()
    made = Desk(bench, push_wait_ms=push_wait_ms)
    try:
        yield made
    finally:
        made.close()
        bench.close()


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    """On SQLite."""
    with opened(tmp_path) as made:
        yield made


@pytest.fixture
def each_desk(tmp_path: Path, database: str) -> Iterator[Desk]:
    """On each kind of database."""
    with opened(tmp_path, database) as made:
        yield made


def built(content: bytes = b"#!") -> BuiltImage:
    """An image that needs two officers' approval for `base`, and has none."""
    return image([{"bin/": b"", "bin/sh": content}])


def cleared(desk: Desk, made: BuiltImage, tag: str | None = None, *, repository: str = TEAM) -> BuiltImage:
    """Push and approve an image, and have it judged."""
    desk.push(repository, made, tag)
    desk.bench.approve(repository, made, "base", desk.bench.ring.alice, desk.bench.ring.bob)
    desk.bench.settle()
    assert desk.state("officer", repository, made.digest) == "cleared"
    return made


def attached(desk: Desk, raw: bytes, reference: object = None, *, repository: str = TEAM) -> Digest:
    """Push an artifact made by `artifact`."""
    desk.push_blobs(repository, EMPTY, SBOM)
    answer = desk.put(repository, reference or Digest.of(raw), raw)
    assert answer.status_code == 201, answer.get_data()
    return Digest.of(raw)


def statement_of(desk: Desk, envelope: object) -> TagStatement:
    """A tag's statement, proven by trust.json."""
    raw = json.dumps(envelope).encode()
    return desk.bench.ring.trust.verify(raw, TagStatement, desk.bench.now).statement


# ---- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(State))
def test_what_a_state_lets_hosts_have_and_what_they_are_told(each_desk: Desk, state: State) -> None:
    """Manifest by tag and digest, config, layer, referrers, an artifact: all or nothing of it."""
    desk = each_desk
    made = cleared(desk, built(), "1")
    sbom = attached(desk, artifact(made.descriptor))
    images = schema.images
    with desk.bench.catalogue.write() as conn:
        changed = update(images).where(images.c.digest == made.digest)
        conn.execute(changed.values(state=str(state), reason="of-the-test", message="says the test"))
    answers = [
        desk.get("host", TEAM, "1"),
        desk.get("host", TEAM, made.digest),
        desk.get("host", TEAM, sbom),
        desk.get("host", TEAM, attestation_tag(made.digest)),
        desk.blob("host", TEAM, made.config.digest),
        desk.blob("host", TEAM, made.layers[0].descriptor.digest),
        desk.blob("host", TEAM, Digest.of(SBOM)),
        desk.referrers("host", TEAM, made.digest),
    ]
    heads = [desk.get("host", TEAM, reference, "HEAD").status_code for reference in ("1", made.digest, sbom)]
    if state in {State.CLEARED, State.WARNING, State.GRACE}:
        assert {answer.status_code for answer in answers} == {200} == set(heads)
    else:
        assert set(heads) == {403}
        for answer in answers:
            assert answer.status_code == 403
            error = answer.get_json()["errors"][0]
            assert (error["code"], error["detail"]["state"]) == ("DENIED", str(state))
            assert f"{state}: of-the-test: says the test" in error["message"]
    for actor in PEOPLE:
        assert desk.get(actor, TEAM, made.digest).status_code == 200
    for actor in ("admin", "stranger"):
        assert desk.get(actor, TEAM, made.digest).status_code == 404
        assert desk.blob(actor, TEAM, made.config.digest).status_code == 404


def test_a_refusal_has_the_first_reason_and_the_tree(desk: Desk) -> None:
    made = built()
    desk.push(TEAM, made, "1")
    desk.bench.settle()
    for reference in ("1", made.digest):
        error = desk.get("host", TEAM, reference).get_json()["errors"][0]
        assert "is denied: no-approved-parent: " in error["message"]
        tree = error["detail"]["decision"]
        assert tree["state"] == "denied"
        assert tree["refusals"][0]["reason"] == error["detail"]["reason"] == "no-approved-parent"


def test_what_ends_by_itself_is_refused_from_then_on(desk: Desk) -> None:
    """The approval has ended, and with it the clearance that rested on it."""
    cleared(desk, built(), "1")
    assert desk.get("host", TEAM, "1").status_code == 200
    desk.bench.pass_time(timedelta(days=31))
    desk.bench.settle()
    assert desk.get("host", TEAM, "1").status_code == 403


# ---- tags ------------------------------------------------------------------------------------------------------------


def test_a_tag_has_two_values_and_each_role_sees_its_own(each_desk: Desk) -> None:
    desk = each_desk
    first, second = cleared(desk, built(), "1"), built(b"second")
    desk.push(TEAM, second, "1")
    desk.bench.settle()
    for actor in PEOPLE:
        assert desk.get(actor, TEAM, "1").headers["Docker-Content-Digest"] == str(second.digest)
        told = desk.tag(actor, TEAM, "1")
        assert (told["pushed"], told["served"]) == (str(second.digest), str(first.digest))
        assert told["reason"].startswith("what was pushed is denied: no-approved-parent: ")
    for method in ("GET", "HEAD"):
        answer = desk.get("host", TEAM, "1", method)
        assert (answer.status_code, answer.headers["Docker-Content-Digest"]) == (200, str(first.digest))
    told = desk.tag("host", TEAM, "1")
    assert (told["pushed"], told["served"], told["reason"]) == (None, str(first.digest), "")
    assert desk.get("admin", TEAM, "1").status_code == 404
    status = desk.ask("host", "GET", f"/api/v1/status/{TEAM}?reference=1").get_json()
    assert status["digest"] == str(first.digest)
    assert str(second.digest) not in desk.ask("host", "GET", f"/v2/{TEAM}/tags/list").get_data(as_text=True)


def test_the_served_value_is_a_signed_numbered_dated_statement(each_desk: Desk) -> None:
    desk = each_desk
    first, second = cleared(desk, built(), "1"), built(b"second")
    before = statement_of(desk, desk.tag("host", TEAM, "1")["statement"])
    assert (before.registry, before.repository, before.tag) == (REGISTRY, TEAM, "1")
    assert (before.digest, before.number, before.issued) == (first.digest, 1, desk.bench.now)
    desk.push(TEAM, second, "1")
    desk.bench.settle()
    assert statement_of(desk, desk.tag("host", TEAM, "1")["statement"]) == before
    desk.bench.pass_time(timedelta(minutes=1))
    desk.bench.approve(TEAM, second, "base", desk.bench.ring.alice, desk.bench.ring.bob)
    desk.bench.settle()
    after = statement_of(desk, desk.tag("host", TEAM, "1")["statement"])
    assert (after.digest, after.number, after.issued) == (second.digest, 2, desk.bench.now)
    assert desk.get("host", TEAM, "1").headers["Docker-Content-Digest"] == str(second.digest)


def test_a_deleted_tag_that_is_made_anew_goes_on_counting(each_desk: Desk) -> None:
    desk = each_desk
    made = cleared(desk, built(), "1")
    assert desk.ask("pusher", "DELETE", f"/v2/{TEAM}/manifests/1").status_code == 202
    assert desk.get("host", TEAM, "1").status_code == 404
    other = cleared(desk, built(b"other"), "1")
    told = desk.tag("host", TEAM, "1")
    assert (told["served"], statement_of(desk, told["statement"]).number) == (str(other.digest), 2)
    assert desk.get("host", TEAM, made.digest).status_code == 200


def test_a_reference_by_digest_needs_no_statement(desk: Desk) -> None:
    made = cleared(desk, built())
    assert desk.get("host", TEAM, made.digest).status_code == 200
    tags = desk.ask("host", "GET", f"/v2/{TEAM}/tags/list").get_json()["tags"]
    assert tags == [attestation_tag(made.digest)]


def test_a_tag_on_a_cleared_image_serves_once_it_is_signed(desk: Desk) -> None:
    """A cleared digest, pushed to another tag: hosts wait for the statement, and are told so."""
    made = cleared(desk, built(), "1")
    desk.push(TEAM, made, "2")
    refused = desk.get("host", TEAM, "2")
    assert refused.status_code == 403
    assert refused.get_json()["errors"][0]["detail"]["state"] == "quarantined"
    desk.bench.settle()
    assert desk.get("host", TEAM, "2").status_code == 200


def test_an_index_is_served_with_its_cleared_children(each_desk: Desk) -> None:
    desk = each_desk
    amd = image([{"bin/": b"", "bin/sh": b"amd"}])
    arm = image([{"bin/": b"", "bin/sh": b"arm"}], platform="linux/arm64")
    both = index([amd, arm])
    desk.push(TEAM, both, "1")
    desk.bench.approve(TEAM, amd, "base", desk.bench.ring.alice, desk.bench.ring.bob)
    desk.bench.settle()
    assert desk.get("host", TEAM, "1").status_code == 403  # one child is not cleared
    assert desk.get("host", TEAM, both.digest).status_code == 403
    assert desk.get("host", TEAM, amd.digest).status_code == 200
    desk.bench.approve(TEAM, arm, "base", desk.bench.ring.alice, desk.bench.ring.bob)
    desk.bench.settle()
    for reference in ("1", both.digest, amd.digest, arm.digest):
        assert desk.get("host", TEAM, reference).status_code == 200
    desk.revoke(2, digests=(arm.digest,))
    desk.bench.settle()
    for reference, status in (("1", 403), (both.digest, 403), (arm.digest, 403), (amd.digest, 200)):
        assert desk.get("host", TEAM, reference).status_code == status


# ---- pushes ----------------------------------------------------------------------------------------------------------


def test_a_push_never_fails_for_policy(desk: Desk) -> None:
    made = cleared(desk, built(), "1")
    assert desk.push(TEAM, made, "1").headers["Warning"].startswith('299 - "cleared: ')  # looked at once more
    desk.bench.settle()
    desk.revoke(2, digests=(made.digest,))
    desk.bench.settle()
    assert desk.push(TEAM, made, "1").headers["Warning"].startswith('299 - "revoked: revoked: ')
    other = built(b"other")
    assert desk.push(TEAM, other, "1").headers["Warning"].startswith('299 - "quarantined: not-judged: ')
    desk.bench.settle()
    warning = desk.push(TEAM, other, "1").headers["Warning"]
    assert warning.startswith('299 - "denied: no-approved-parent: ')
    assert warning.endswith(f'pratique explain {REGISTRY}/{TEAM}:1"')
    warning = desk.push(TEAM, other).headers["Warning"]
    assert warning.endswith(f'pratique explain {REGISTRY}/{TEAM}@{other.digest}"')


@contextmanager
def judging_beside(bench: Bench) -> Iterator[None]:
    """A judge at work in a thread of its own."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            bench.worker.step(0.05)

    judge = threading.Thread(target=work)
    judge.start()
    try:
        yield
    finally:
        over.set()
        judge.join(60)


def test_a_push_waits_for_the_decision(tmp_path: Path, database: str) -> None:
    """As long as `judge.push_wait_ms`, and no longer than it takes."""
    with opened(tmp_path, database, push_wait_ms=60_000) as desk, judging_beside(desk.bench):
        bench = desk.bench
        assert desk.push(TEAM, built(), "1").headers["Warning"].startswith('299 - "denied: no-approved-parent: ')
        made = built(b"approved before it comes")
        bench.approve(TEAM, made, "base", bench.ring.alice, bench.ring.bob)
        assert "Warning" not in desk.push(TEAM, made, "2").headers
        assert desk.get("host", TEAM, "2").status_code == 200


def test_a_push_without_trust_policy_or_list_is_taken_and_stays_in_quarantine(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    desk = Desk(bench)
    assert desk.push(TEAM, built(), "1").headers["Warning"].startswith('299 - "quarantined: ')
    bench.settle()
    assert desk.state("pusher", TEAM, built().digest) == "quarantined"
    assert desk.get("host", TEAM, "1").status_code == 403
    desk.close()
    bench.close()


@pytest.mark.parametrize("message", ['a "quoted" \\ one', "a\r\nSet-Cookie: x=1", "\x00\x1b[31m", "größer", "x" * 5000])
def test_a_warning_is_one_header_whatever_an_image_says(desk: Desk, message: str) -> None:
    made = built()
    desk.push(TEAM, made, "1")
    desk.bench.settle()
    images = schema.images
    with desk.bench.catalogue.write() as conn:
        stored = message.replace("\x00", " ")  # which no database keeps
        conn.execute(update(images).where(images.c.digest == made.digest).values(message=stored))
    answer = desk.push(TEAM, made, "1")
    warning = answer.headers["Warning"]
    assert "Set-Cookie" not in answer.headers
    assert warning.isascii()
    assert warning.isprintable()
    assert warning.startswith('299 - "denied: no-approved-parent: ')
    assert warning.count('"') == 2
    assert len(warning) < 1000


def test_the_host_header_is_never_believed(desk: Desk) -> None:
    made = built()
    desk.push_blobs(TEAM, *made.blobs.values())
    path = f"/v2/{TEAM}/manifests/1"
    answer = desk.ask(
        "pusher", "PUT", path, made.manifest.raw, Content_Type=OCI, Host="evil.example", Forwarded="host=x"
    )
    assert f"pratique explain {REGISTRY}/{TEAM}:1" in answer.headers["Warning"]
    assert answer.headers["Location"] == f"/v2/{TEAM}/manifests/{made.digest}"
    refused = desk.ask("nobody", "GET", path, Host="evil.example", X_Forwarded_Host="evil.example")
    assert refused.status_code == 401
    assert f'realm="https://{REGISTRY}/token"' in refused.headers["WWW-Authenticate"].replace("http://", "https://")
    assert "evil" not in str(answer.headers) + str(refused.headers)
    desk.bench.approve(TEAM, made, "base", desk.bench.ring.alice, desk.bench.ring.bob)
    desk.bench.settle()
    envelope = desk.bench.clearance(TEAM, made.digest)
    assert envelope is not None
    assert desk.bench.ring.trust.verify(envelope, Clearance, desk.bench.now).statement.registry == REGISTRY


def test_a_change_is_recorded_before_the_answer(desk: Desk) -> None:
    """Not in a batch, as reads are: it is there when the client hears of it."""
    made = built()
    desk.push(TEAM, made, "1")
    with desk.bench.catalogue.read() as conn:
        found = {(record.event, record.subject) for record in read(conn, after=0, limit=1000)}
    assert {("push", f"{TEAM}@{made.digest}"), ("tag", f"{TEAM}:1")} <= found


# ---- artifacts -------------------------------------------------------------------------------------------------------


def test_an_artifact_goes_with_its_subject_from_state_to_state(each_desk: Desk) -> None:
    desk = each_desk
    made = built()
    desk.push(TEAM, made, "1")
    sbom = artifact(made.descriptor)
    signature = artifact(described(sbom), "application/x-signature")
    for raw in (sbom, signature):
        attached(desk, raw)

    def seen() -> set[int]:
        answers = {desk.get("host", TEAM, Digest.of(raw)).status_code for raw in (sbom, signature)}
        return answers | {desk.referrers("host", TEAM, made.digest).status_code}

    assert seen() == {403}
    desk.bench.settle()
    assert seen() == {403}  # denied
    desk.bench.approve(TEAM, made, "base", desk.bench.ring.alice, desk.bench.ring.bob)
    desk.bench.settle()
    assert seen() == {200}
    desk.revoke(2, digests=(made.digest,))
    assert seen() == {403}  # at once, before anybody judges
    desk.bench.settle()
    assert seen() == {403}
    assert {desk.get(actor, TEAM, Digest.of(sbom)).status_code for actor in PEOPLE} == {200}


def test_an_artifact_before_its_subject_is_nobodys_until_it_comes(each_desk: Desk) -> None:
    desk = each_desk
    made = built()
    sbom = attached(desk, artifact(made.descriptor))
    assert desk.get("host", TEAM, sbom).status_code == 403
    assert desk.referrers("host", TEAM, made.digest).get_json()["manifests"] == []
    cleared(desk, made)
    assert desk.get("host", TEAM, sbom).status_code == 200
    assert desk.ask("pusher", "DELETE", f"/v2/{TEAM}/manifests/{made.digest}").status_code == 202
    assert desk.get("host", TEAM, sbom).status_code == 403


def test_s7_a_subject_that_is_cleared_elsewhere_clears_nothing_here(desk: Desk) -> None:
    made = cleared(desk, built(), repository="team/other")
    sbom = attached(desk, artifact(made.descriptor))
    assert desk.get("host", TEAM, sbom).status_code == 403
    assert desk.blob("host", TEAM, Digest.of(SBOM)).status_code == 403
    assert desk.blob("host", TEAM, made.config.digest).status_code == 404


def test_s7_an_artifact_that_lists_a_denied_images_layers_clears_no_image(desk: Desk) -> None:
    """Bytes are data until a clearance says that they are an image."""
    made, hostile = cleared(desk, built()), built(b"hostile")
    desk.push(TEAM, hostile, "2")
    desk.bench.settle()
    layer = hostile.layers[0].descriptor
    assert desk.blob("host", TEAM, layer.digest).status_code == 403
    members = json.loads(artifact(made.descriptor))
    members["layers"] = [layer.to_json()]
    answer = desk.put(TEAM, Digest.of(json.dumps(members).encode()), json.dumps(members).encode())
    # It is data that whoever may push puts beside a cleared image; hosts may have it as that, and start nothing of it.
    assert answer.status_code == 201
    assert desk.blob("host", TEAM, layer.digest).status_code == 200
    assert desk.get("host", TEAM, hostile.digest).status_code == 403
    assert desk.get("host", TEAM, "2").status_code == 403


def test_artifacts_without_a_subject_are_hosts_if_the_policy_in_force_names_their_type(desk: Desk) -> None:
    named, other = artifact(None, "application/vnd.example.model"), artifact(None, "application/x-other")
    for raw, tag in ((named, "model"), (other, "other")):
        attached(desk, raw, tag)
    tagged = artifact(None, "application/x-other", note="tagged")
    attached(desk, tagged, "sha256-" + "0" * 64)  # speaks of an image that is not there
    for reference, status in (("model", 200), (Digest.of(named), 200), ("other", 403), (Digest.of(other), 403)):
        assert desk.get("host", TEAM, reference).status_code == status, reference
    assert desk.get("host", TEAM, Digest.of(tagged)).status_code == 403
    assert desk.ask("host", "GET", f"/v2/{TEAM}/tags/list").get_json()["tags"] == ["model"]


def test_r10_a_page_of_referrers_is_bounded_however_much_each_says(desk: Desk) -> None:
    """A host reads 4 MiB of a page, and 64 referrers; the registry's own come first (GHSA-rvrx-rrwh-r9p6)."""
    made = built()
    desk.push(TEAM, made, "1")
    desk.push_blobs(TEAM, EMPTY, SBOM)
    for number in range(PAGE + 5):
        note = f"{number:04}" + "x" * (MAX_ANNOTATIONS - 8)
        raw = artifact(made.descriptor, "application/x-note", note=note)
        assert desk.put(TEAM, Digest.of(raw), raw).status_code == 201
    cleared(desk, made, "1")
    page = desk.referrers("host", TEAM, made.digest)
    assert len(page.get_data()) < 4 * 1024 * 1024
    assert ATTESTATION in {each["artifactType"] for each in page.get_json()["manifests"][:4]}
    assert len(page.get_json()["manifests"]) == PAGE
    assert 'rel="next"' in page.headers["Link"]


# ---- what only the signer writes -------------------------------------------------------------------------------------


def test_s1_nobody_writes_or_removes_what_clients_believe_as_signatures(desk: Desk) -> None:
    made = cleared(desk, built(), "1")
    own = [desk.get("pusher", TEAM, tag) for tag in (attestation_tag(made.digest), signature_tag(made.digest))]
    clearance = next(
        each["digest"]
        for each in desk.referrers("pusher", TEAM, made.digest).get_json()["manifests"]
        if each["artifactType"] == ATTESTATION
    )
    desk.push_blobs(TEAM, EMPTY, SBOM)
    plain = artifact(None, "application/x-forged")
    listed = json.dumps({"schemaVersion": 2, "mediaType": str(MediaType.OCI_INDEX), "manifests": []}).encode()
    for suffix in ("sig", "att", "sbom", "cosign", "sig.att", "x"):
        tag = f"sha256-{made.digest.hex}.{suffix}"
        assert desk.put(TEAM, tag, plain).status_code == 403
        assert desk.put(TEAM, tag, listed, str(MediaType.OCI_INDEX)).status_code == 403
        assert desk.put(TEAM, tag, made.manifest.raw).status_code == 403
        query = f"{Digest.of(plain)}?tag=fine&tag={tag}"
        assert desk.put(TEAM, query, plain).status_code == 403
        assert desk.ask("pusher", "DELETE", f"/v2/{TEAM}/manifests/{tag}").status_code == 403
    # One of sha512 is longer than a tag can be.
    assert desk.put(TEAM, f"sha512-{made.digest.hex * 2}.sig", plain).status_code == 400
    assert desk.get("pusher", TEAM, "fine").status_code == 404
    by_config = json.loads(artifact(made.descriptor))
    del by_config["artifactType"]
    by_config["config"]["mediaType"] = ATTESTATION
    for raw in (artifact(made.descriptor, ATTESTATION), artifact(None, ATTESTATION), json.dumps(by_config).encode()):
        for reference in (Digest.of(raw), "any", f"sha256-{made.digest.hex}"):
            assert desk.put(TEAM, reference, raw).status_code == 403
    for gone in (own[0].headers["Docker-Content-Digest"], own[1].headers["Docker-Content-Digest"], clearance):
        assert desk.ask("pusher", "DELETE", f"/v2/{TEAM}/manifests/{gone}").status_code == 403
    for before, tag in zip(own, (attestation_tag(made.digest), signature_tag(made.digest)), strict=True):
        assert desk.get("host", TEAM, tag).get_data() == before.get_data()


@pytest.mark.parametrize("role", [role for role in Role if role not in {Role.PUSHER, Role.REGISTRY}])
def test_s1_no_other_role_pushes_at_all(tmp_path: Path, role: Role) -> None:
    bench = Bench(tmp_path)
    desk = Desk(bench)
    for reference in ("1", f"sha256-{'0' * 64}.sig"):
        assert desk.put(TEAM, reference, artifact(None), actor=str(role)).status_code == 403
    assert desk.ask(str(role), "POST", f"/v2/{TEAM}/blobs/uploads/").status_code == 403
    desk.close()
    bench.close()


# ---- the config is content too ---------------------------------------------------------------------------------------


def test_s11_approved_layers_under_another_entrypoint_or_environment_are_refused(desk: Desk) -> None:
    base = cleared(desk, built(), repository="base/os")
    for change in (
        {"entrypoint": ["/bin/sh", "-c", "evil"]},
        {"cmd": ["evil"]},
        {"env": ["LD_PRELOAD=/tmp/x.so"]},
        {"env": ["PATH=/tmp"]},
        {"user": "0"},
        {"volumes": ["/etc"]},
        {"stop_signal": "SIGKILL"},
    ):
        made = image([], parent=base, **change)
        desk.push(TEAM, made, "1")
        desk.bench.settle()
        answer = desk.get("host", TEAM, "1")
        assert answer.status_code == 403, change
        assert desk.state("officer", TEAM, made.digest) == "denied", change


# ---- what a registry is handed in ------------------------------------------------------------------------------------


def test_s6_older_lists_and_policies_are_refused_and_change_nothing(desk: Desk) -> None:
    made = cleared(desk, built(), "1")
    bench = desk.bench
    desk.revoke(3, digests=(made.digest,))
    bench.settle()
    older = judging.published_list(bench.ring, 2, now=bench.now)
    for envelope in (older, judging.published_list(bench.ring, 3, now=bench.now)):
        answer = desk.ask("officer", "POST", "/api/v1/statements", envelope)
        assert answer.status_code == 422
        code = answer.get_json()["errors"][0]["detail"]["code"]
        assert code in {"number-went-back", "same-number-other-content"}
    bench.settle()
    assert desk.get("host", TEAM, "1").status_code == 403
    served = json.dumps(desk.ask("host", "GET", "/api/v1/revocations").get_json()["list"]).encode()
    assert bench.ring.trust.verify(served, RevocationList, bench.now).statement.number == 3


def test_r2_bytes_that_changed_in_the_store_or_were_lost_are_not_served(desk: Desk) -> None:
    made = cleared(desk, built(), "1")
    with desk.bench.catalogue.write() as conn:
        assert not remove_blob(conn, "team/none", made.config.digest)
        contents = schema.contents
        conn.execute(update(contents).where(contents.c.digest == made.digest).values(content=b"{}"))
    answer = desk.get("host", TEAM, made.digest)
    assert answer.status_code == 500
    assert answer.get_json()["errors"][0]["code"] == "CONTENT_CORRUPT"
