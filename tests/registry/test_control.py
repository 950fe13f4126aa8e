"""/api/v1 on a running registry: who may do what, what is refused and how, and what is recorded of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ocispec.digest import Digest
from policy.seal import seal
from policy.statements import Withdrawal
from registry.access import Role
from registry.audit import Record, verify
from tests.support import judging
from tests.support.images import image
from tests.support.live import WholeRegistry, now, whole_registry

ROLES = tuple(str(role) for role in Role if role is not Role.REGISTRY)


@pytest.fixture(scope="module")
def live() -> Iterator[WholeRegistry]:
    with whole_registry() as made:
        made.publish()
        yield made


def _object(answer: object) -> dict[str, object]:
    assert isinstance(answer, dict), answer
    return answer


def _error(answer: object) -> dict[str, object]:
    errors = _object(answer)["errors"]
    assert isinstance(errors, list)
    return _object(errors[0])


# ---- accounts ----------------------------------------------------------------------------------------------------


def test_r7_bootstrap_token_counts_once(live: WholeRegistry) -> None:
    body = json.dumps({"token": live.token, "name": "second"}).encode()
    status, _ = live.api("POST", "/api/v1/bootstrap", account=None, body=body)
    assert status == 401
    body = json.dumps({"token": "x" * 43, "name": "second"}).encode()
    assert live.api("POST", "/api/v1/bootstrap", account=None, body=body)[0] == 401


def test_accounts_are_made_shown_without_secrets_and_removed(live: WholeRegistry) -> None:
    wanted = json.dumps({"name": "ci", "role": "pusher", "repositories": ["team/*"]}).encode()
    status, made = live.api("POST", "/api/v1/accounts", account="admin", body=wanted)
    assert status == 201
    live.secrets["ci"] = str(_object(made)["secret"])
    assert live.request("GET", "/v2/", account="ci").status == 200
    assert live.api("POST", "/api/v1/accounts", account="admin", body=wanted)[0] == 400
    listed = json.dumps(live.api("GET", "/api/v1/accounts", account="admin")[1])
    assert '"ci"' in listed
    assert "secret" not in listed
    assert live.api("DELETE", "/api/v1/accounts/ci", account="admin")[0] == 204
    assert live.api("DELETE", "/api/v1/accounts/ci", account="admin")[0] == 404
    assert live.api("DELETE", "/api/v1/accounts/admin", account="admin")[0] == 403


@pytest.mark.parametrize(
    "members",
    [
        {"name": "x"},
        {"name": "x", "role": "registry"},
        {"name": "x", "role": "root"},
        {"name": "X!", "role": "host"},
        [],
    ],
)
def test_account_that_is_none_is_refused(live: WholeRegistry, members: object) -> None:
    status, answer = live.api("POST", "/api/v1/accounts", account="admin", body=json.dumps(members).encode())
    assert status == 400, answer


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/accounts", {"admin"}),
        ("POST", "/api/v1/accounts", {"admin"}),
        ("DELETE", "/api/v1/accounts/nobody", {"admin"}),
        ("GET", "/api/v1/audit", {"auditor"}),
        ("POST", "/api/v1/trust", {"officer", "admin"}),
        ("POST", "/api/v1/statements", {"officer", "pusher"}),
        ("POST", "/api/v1/advisories?kind=none", {"scanner", "admin"}),
        ("GET", "/api/v1/advisories", {"scanner", "officer", "auditor", "admin"}),
        ("GET", f"/api/v1/evidence/{Digest.of(b'')}", {"scanner", "officer", "auditor"}),
        ("GET", f"/api/v1/reports/{Digest.of(b'')}", {"scanner", "officer", "auditor", "pusher"}),
        ("GET", "/api/v1/policy", set(ROLES)),
        ("GET", "/api/v1/trust", set(ROLES)),
        ("GET", "/api/v1/key", set(ROLES)),
        ("GET", "/api/v1/revocations", set(ROLES)),
        ("GET", "/api/v1/images", set(ROLES)),
    ],
)
def test_r6_each_role_does_its_own_and_no_more(live: WholeRegistry, method: str, path: str, allowed: set[str]) -> None:
    may = {
        role
        for role in ROLES
        if live.api(method, path, account=role, body=b"{}" if method == "POST" else None)[0] != 403
    }
    assert may == allowed
    assert live.request(method, path, account=None).status == 401


# ---- statements ----------------------------------------------------------------------------------------------------


def test_pusher_hands_in_approvals_and_nothing_else(live: WholeRegistry) -> None:
    revocations = judging.published_list(live.ring, 50, now=now())
    status, answer = live.api("POST", "/api/v1/statements", account="pusher", body=revocations)
    assert status == 403
    assert "RevocationList" in str(_error(answer)["message"])


def test_statement_that_is_not_believed_is_refused_and_recorded(live: WholeRegistry) -> None:
    forged = seal(Withdrawal(statement=Digest.of(b"x"), reason="no", issued=now()), live.ring.team)
    status, answer = live.api("POST", "/api/v1/statements", body=forged)
    assert (status, _error(answer)["code"]) == (422, "STATEMENT_REFUSED")
    assert _object(_error(answer)["detail"])["code"] == "wrong-role"
    records = _audit(live)
    assert any(record.event == "refused" and "signs no Withdrawal" in record.after for record in records)
    assert live.api("POST", "/api/v1/statements", body=b"no envelope")[0] == 422


def test_s6_older_policy_list_and_trust_are_refused(live: WholeRegistry) -> None:
    for what, envelope in (
        ("statements", judging.published_policy(live.ring, 5, now=now())),
        ("statements", judging.published_list(live.ring, 5, now=now())),
        ("trust", live.ring.signed_root(replace(live.ring.root, version=5))),
    ):
        live.post(what, envelope)
    for what, envelope in (
        ("statements", judging.published_policy(live.ring, 4, now=now())),
        ("statements", judging.published_list(live.ring, 4, now=now())),
        ("trust", live.ring.signed_root(replace(live.ring.root, version=4))),
    ):
        status, answer = live.api("POST", f"/api/v1/{what}", body=envelope)
        assert (status, _object(_error(answer)["detail"])["code"]) == (422, "number-went-back")
    status, answer = live.api("POST", "/api/v1/statements", body=judging.published_list(live.ring, 5000, now=now()))
    assert _object(_error(answer)["detail"])["code"] == "number-jump"


def test_same_statement_again_changes_nothing(live: WholeRegistry) -> None:
    envelope = judging.waive("components", f"{live.address}/never/there", live.ring.alice, now=now())
    assert live.post("statements", envelope)["new"] is True
    assert live.post("statements", envelope)["new"] is False


def test_policy_in_force_is_served(live: WholeRegistry) -> None:
    envelope = live.request("GET", "/api/v1/policy", account="host").body
    digest = Digest.of(judging.policy_document(json.loads(envelope) and _policy_version(live)))
    assert live.request("GET", f"/api/v1/policy/{digest}", account="host").body == envelope
    assert live.request("GET", f"/api/v1/policy/{Digest.of(b'')}", account="host").status == 404


def _policy_version(live: WholeRegistry) -> int:
    statement = judging.wire_statement(live.request("GET", "/api/v1/policy", account="host").body)
    return int(getattr(statement, "version", 0))


# ---- images --------------------------------------------------------------------------------------------------------


def test_what_each_role_learns_of_a_quarantined_image(live: WholeRegistry) -> None:
    built = image([{"a": b"what each role learns"}])
    live.push("team/learn", built, "1")
    row = live.until("team/learn", "1", "denied")
    assert _object(row["explain"])["refusals"]
    path = f"/api/v1/images/{built.digest}/team/learn"
    for role in ("pusher", "officer", "scanner", "auditor", "host", "admin"):
        status, answer = live.api("GET", path, account=role)
        assert status == 200
        assert _object(answer)["state"] == "denied"
    summary = _object(live.api("GET", path)[1])["summary"]
    assert summary is not None
    decision = live.request("GET", f"/api/v1/decisions/{built.digest}/team/learn", account="officer")
    evidence = json.loads(decision.body)["evidence"]
    assert live.request("GET", f"/api/v1/evidence/{evidence}", account="auditor").status == 200
    assert live.request("GET", f"/api/v1/reports/{built.digest}", account="pusher").status == 200
    tag = _object(live.api("GET", "/api/v1/tags/1/team/learn", account="host")[1])
    assert (tag["pushed"], tag["served"]) == (None, None)
    assert _object(live.api("GET", "/api/v1/tags/1/team/learn")[1])["pushed"] == str(built.digest)


def test_who_may_not_know_of_a_repository_is_told_that_it_is_not_there(live: WholeRegistry) -> None:
    built = image([{"a": b"hidden"}])
    live.push("secret/app", built, "1")
    live.account("other", Role.PUSHER, "other/*")
    live.account("stranger", Role.HOST, "other/*")
    for account in ("other", "stranger"):
        for path in (
            f"/api/v1/images/{built.digest}/secret/app",
            f"/api/v1/decisions/{built.digest}/secret/app",
            "/api/v1/status/secret/app?reference=1",
            "/api/v1/tags/1/secret/app",
        ):
            assert live.request("GET", path, account=account).status == 404, (account, path)
        listed = json.dumps(live.api("GET", "/api/v1/images", account=account)[1])
        assert "secret/app" not in listed
    assert live.request("GET", f"/api/v1/reports/{built.digest}", account="other").status == 404


def test_images_are_listed_by_pages(live: WholeRegistry) -> None:
    for number in range(3):
        live.push("paged/app", image([{"a": b"%d" % number}]), str(number))
    found, page = [], ""
    while True:
        answer = _object(live.api("GET", f"/api/v1/images?repository=paged/app&n=2&page={page}")[1])
        images = answer["images"]
        assert isinstance(images, list)
        found += [_object(each)["digest"] for each in images]
        if answer["next"] is None:
            break
        page = str(answer["next"])
    assert len(set(found)) == len(found) == 3
    assert live.api("GET", "/api/v1/images?state=good")[0] == 400
    assert _object(live.api("GET", "/api/v1/images?state=revoked&repository=paged/app")[1])["images"] == []


# ---- audit ---------------------------------------------------------------------------------------------------------


def _audit(live: WholeRegistry) -> list[Record]:
    records: list[Record] = []
    while True:
        last = records[-1].seq if records else 0
        answer = _object(live.api("GET", f"/api/v1/audit?after={last}&limit=200", account="auditor")[1])
        page = answer["records"]
        assert isinstance(page, list)
        if not page:
            return records
        records += [Record.from_json(_object(each), what="record") for each in page]  # type: ignore[arg-type]  # JSON


def test_audit_of_a_live_registry_verifies(live: WholeRegistry) -> None:
    built = image([{"a": b"audited"}])
    live.push("team/audited", built, "1")
    live.until("team/audited", "1", "denied")
    assert live.request("GET", "/v2/team/audited/manifests/1", account="pusher").status == 200
    forged = seal(Withdrawal(statement=Digest.of(b"y"), reason="no", issued=now()), live.ring.team)
    assert live.api("POST", "/api/v1/statements", body=forged)[0] == 422
    records = _audit(live)
    checkpoints = _object(live.api("GET", "/api/v1/audit?limit=1000", account="auditor")[1])["checkpoints"]
    assert isinstance(checkpoints, list)
    signed = [json.dumps(envelope).encode() for envelope in checkpoints]
    report = verify(records, signed, verify_envelope=live.ring.trust.verifier(now()), registry=live.address)
    assert report.sound
    assert 0 < report.covered <= report.records
    events = {record.event for record in records}
    assert {"start", "account", "trust", "policy", "statement", "push", "tag", "state", "read", "refused"} <= events
    pushed = next(record for record in records if record.event == "push" and "team/audited" in record.subject)
    assert (pushed.principal, pushed.source) == ("pusher", "127.0.0.1")
    assert not verify(
        [*records[:3], replace(records[3], principal="somebody else"), *records[4:]],
        [],
        verify_envelope=live.ring.trust.verifier(now()),
        registry=live.address,
    ).sound
