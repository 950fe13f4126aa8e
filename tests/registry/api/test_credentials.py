"""What accounts are known by, through the API: secrets renewed, people invited, passwords changed, keys withdrawn."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from http.client import HTTPConnection
from typing import Any

import pytest

from registry.audit import Record, read
from tests.support.identity import basic, decoded, utc_now
from tests.support.registry import Answer, LiveRegistry, web_registry

GOOD = "brown fox over 13 lazy dogs"
BETTER = "quick 27 jars of wax, boxed"
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveRegistry]:
    """A registry whose logins may fail often, on each kind of database (see conftest.py)."""
    settings: dict[str, Any] = {"logins": {"failures_per_account": 100, "failures_per_address": 1000}}
    if getattr(request, "param", "sqlite") == "postgresql":
        settings["catalogue"] = request.getfixturevalue("server").database()
    with web_registry(tmp_path_factory.mktemp("registry"), **settings) as running:
        yield running
    log = (running.folder / "web.log").read_text()
    assert "Traceback" not in log, log
    for secret in (GOOD, BETTER, *running.secrets.values()):
        assert secret not in log


@pytest.fixture
def name() -> str:
    """An account that nothing else uses."""
    return f"account-{next(_numbers)}"


def ask(live: LiveRegistry, method: str, path: str, body: object = None, *, by: str | None = "admin") -> Answer:
    raw = json.dumps(body).encode() if body is not None else None
    return live.request(method, f"/api/v1/{path}", account=by, body=raw)


def made(live: LiveRegistry, name: str, **members: object) -> dict[str, object]:
    answer = ask(live, "POST", "accounts", {"name": name, "role": "pusher", **members})
    assert answer.status == 201, answer
    assert answer.headers["cache-control"] == "no-store"
    found: dict[str, object] = json.loads(answer.body)
    return found


def status(live: LiveRegistry, header: str, path: str = "/v2/") -> int:
    """What a request with this Authorization header is answered."""
    return live.request("GET", path, account=None, Authorization=header).status


def until(live: LiveRegistry, header: str, wanted: int) -> None:
    """Wait for a change to be seen, which takes a second at most."""
    deadline = time.monotonic() + 5
    while status(live, header) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def token(live: LiveRegistry, header: str, *scopes: str) -> str:
    query = "&".join(f"scope={scope}" for scope in scopes)
    answer = live.request("GET", f"/token?{query}", account=None, Authorization=header)
    assert answer.status == 200, answer
    return "Bearer " + str(json.loads(answer.body)["token"])


def records(live: LiveRegistry, subject: str) -> list[Record]:
    catalogue = live.catalogue()
    with catalogue.read() as conn:
        found = [record for record in read(conn, after=0, limit=100_000) if record.subject == subject]
    catalogue.close()
    return found


# ---- people ------------------------------------------------------------------------------------------------------


def test_a_person_is_invited_and_sets_a_password(live: LiveRegistry, name: str) -> None:
    invited = made(live, name, kind="person", role="officer")
    assert "secret" not in invited
    invitation = str(invited["invitation"])
    assert status(live, basic(name, invitation)) == 401
    assert ask(live, "POST", "password", {"name": name, "invitation": invitation, "new": GOOD}, by=None).status == 204
    assert status(live, basic(name, GOOD)) == 200
    # It counts once.
    again = ask(live, "POST", "password", {"name": name, "invitation": invitation, "new": BETTER}, by=None)
    assert again.status == 401
    assert status(live, basic(name, GOOD)) == 200
    shown = records(live, name)
    assert [(record.principal, record.before, record.after) for record in shown] == [
        ("admin", "", "person, officer: *"),
        (name, f"invited until {invited['invitedUntil']}", "new password, by invitation"),
    ]
    assert all(record.source == "127.0.0.1" for record in shown)


def test_of_many_with_one_invitation_one_sets_a_password(live: LiveRegistry, name: str) -> None:
    invitation = made(live, name, kind="person")["invitation"]
    passwords = [f"{GOOD} number {number}" for number in range(6)]

    def take(new: str) -> int:
        body = {"name": name, "invitation": invitation, "new": new}
        return ask(live, "POST", "password", body, by=None).status

    with ThreadPoolExecutor(len(passwords)) as pool:
        statuses = list(pool.map(take, passwords))
    assert statuses.count(204) == 1
    assert set(statuses) <= {204, 401, 429, 503}
    right = [status(live, basic(name, each)) for each in passwords]
    assert right == [200 if each == 204 else 401 for each in statuses]


def test_a_password_is_changed_by_its_owner_alone(live: LiveRegistry, name: str) -> None:
    invitation = made(live, name, kind="person")["invitation"]
    ask(live, "POST", "password", {"name": name, "invitation": invitation, "new": GOOD}, by=None)
    bearer = token(live, basic(name, GOOD), "repository:a/b:pull")
    assert status(live, bearer) == 200
    for wrong in ({"password": BETTER}, {"invitation": invitation}, {"password": GOOD, "invitation": invitation}, {}):
        answer = ask(live, "POST", "password", {"name": name, "new": BETTER, **wrong}, by=None)
        assert answer.status in {400, 401}, answer
    assert ask(live, "POST", "password", {"name": name, "password": GOOD, "new": BETTER}, by=None).status == 204
    assert status(live, basic(name, BETTER)) == 200
    until(live, basic(name, GOOD), 401)
    until(live, bearer, 401)


@pytest.mark.parametrize("weak", ["short", "password password", "aaaaaaaaaaaaaaaaaaaa", "x" * 300])
def test_a_weak_password_is_refused_and_the_invitation_stays(live: LiveRegistry, name: str, weak: str) -> None:
    invitation = made(live, name, kind="person")["invitation"]
    answer = ask(live, "POST", "password", {"name": name, "invitation": invitation, "new": weak}, by=None)
    assert (answer.status, json.loads(answer.body)["errors"][0]["code"]) == (400, "ACCOUNT_INVALID")
    assert weak.encode() not in answer.body
    assert ask(live, "POST", "password", {"name": name, "invitation": invitation, "new": GOOD}, by=None).status == 204


def test_a_robot_sets_no_password(live: LiveRegistry, name: str) -> None:
    secret = made(live, name)["secret"]
    for key in ("password", "invitation"):
        assert ask(live, "POST", "password", {"name": name, key: secret, "new": GOOD}, by=None).status == 401


def test_a_new_invitation_ends_the_password(live: LiveRegistry, name: str) -> None:
    first = made(live, name, kind="person")["invitation"]
    ask(live, "POST", "password", {"name": name, "invitation": first, "new": GOOD}, by=None)
    assert status(live, basic(name, GOOD)) == 200
    answer = ask(live, "POST", f"accounts/{name}/invitation", {})
    assert answer.status == 201
    until(live, basic(name, GOOD), 401)
    last = records(live, name)[-1]
    assert (last.before, last.after[:14]) == ("password", "invited until ")
    second = json.loads(answer.body)["invitation"]
    assert ask(live, "POST", "password", {"name": name, "invitation": second, "new": BETTER}, by=None).status == 204
    assert status(live, basic(name, BETTER)) == 200
    assert ask(live, "POST", "accounts/pusher/invitation", {}).status == 400
    assert ask(live, "POST", "accounts/nobody/invitation", {}).status == 404
    assert ask(live, "POST", f"accounts/{name}/invitation", {}, by="officer").status == 403


def test_nobody_learns_which_accounts_there_are(live: LiveRegistry, name: str) -> None:
    made(live, name, kind="person")
    answers = {
        ask(live, "POST", "password", {"name": who, "invitation": "x" * 43, "new": GOOD}, by=None).body
        for who in (name, "nobody", "pusher", "NOT a name", "x" * 10_000)
    }
    assert len(answers) == 1


# ---- robots ------------------------------------------------------------------------------------------------------


def test_a_new_secret_ends_the_old_one_at_once(live: LiveRegistry, name: str) -> None:
    old = basic(name, str(made(live, name)["secret"]))
    assert status(live, old) == 200
    bearer = token(live, old, "repository:a/b:pull")
    answer = ask(live, "POST", f"accounts/{name}/secret", {})
    assert answer.status == 201
    new = json.loads(answer.body)
    assert status(live, basic(name, new["secret"])) == 200
    until(live, old, 401)
    until(live, bearer, 401)
    assert new["oldSecretUntil"] is None


def test_an_old_secret_counts_for_as_long_as_was_asked_for(live: LiveRegistry, name: str) -> None:
    old = basic(name, str(made(live, name)["secret"]))
    answer = ask(live, "POST", f"accounts/{name}/secret", {"overlap": 3})
    new = basic(name, json.loads(answer.body)["secret"])
    assert (status(live, old), status(live, new)) == (200, 200)
    until(live, old, 401)
    assert status(live, new) == 200
    # A token that was given for the old secret ends with it.
    assert json.loads(answer.body)["oldSecretUntil"] is not None
    [_, change] = records(live, name)
    assert change.before == "secret"
    assert change.after.startswith("new secret, the old one until 2")


def test_a_token_for_an_old_secret_ends_with_it(live: LiveRegistry, name: str) -> None:
    old = basic(name, str(made(live, name)["secret"]))
    ask(live, "POST", f"accounts/{name}/secret", {"overlap": 100})
    _, claims = decoded(token(live, old, "repository:a/b:pull").removeprefix("Bearer "))
    assert int(str(claims["exp"])) - int(str(claims["iat"])) <= 100


def test_a_robot_renews_its_own_secret_and_nobody_elses(live: LiveRegistry, name: str) -> None:
    live.secrets[name] = str(made(live, name)["secret"])
    assert ask(live, "POST", "accounts/pusher/secret", {}, by=name).status == 403
    narrow = token(live, basic(name, live.secrets[name]), "repository:a/b:pull")
    path = f"/api/v1/accounts/{name}/secret"
    assert live.request("POST", path, account=None, body=b"{}", Authorization=narrow).status == 401
    answer = ask(live, "POST", f"accounts/{name}/secret", {"overlap": 60}, by=name)
    assert answer.status == 201
    # What ends soon does not become what does not: neither the old secret nor a token.
    assert ask(live, "POST", f"accounts/{name}/secret", {}, by=name).status == 403
    live.secrets[name] = json.loads(answer.body)["secret"]
    wide = token(live, basic(name, live.secrets[name]), "registry:api:*")
    assert live.request("POST", path, account=None, body=b"{}", Authorization=wide).status == 403
    assert ask(live, "POST", f"accounts/{name}/secret", {}, by=name).status == 201


@pytest.mark.parametrize(
    "body", [{"overlap": -1}, {"overlap": 604_801}, {"overlap": "1"}, {"other": 1}, {"overlap": 1.5}]
)
def test_an_overlap_that_cannot_be_is_refused(live: LiveRegistry, body: object) -> None:
    assert ask(live, "POST", "accounts/pusher/secret", body).status == 400
    assert live.request("GET", "/v2/").status == 200


def test_an_account_is_changed_and_the_change_recorded(live: LiveRegistry, name: str) -> None:
    live.secrets[name] = str(made(live, name, grants=["team/*"])["secret"])
    bearer = token(live, basic(name, live.secrets[name]), "repository:team/x:pull,push")
    ends = (utc_now() + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M:%SZ")
    change = {"grants": ["team/*:pull"], "expires": ends, "certificates": ["dns:a.test", "uri:spiffe://a/b"]}
    answer = ask(live, "PATCH", f"accounts/{name}", change)
    assert answer.status == 200
    shown = json.loads(answer.body)
    assert (shown["grants"], shown["expires"]) == (["team/*:pull"], ends)
    assert shown["certificates"] == ["dns:a.test", "uri:spiffe://a/b"]
    until(live, bearer, 401)
    refused = live.request("POST", "/v2/team/x/blobs/uploads/", account=name)
    assert refused.status == 403
    assert json.loads(ask(live, "PATCH", f"accounts/{name}", {"expires": None}).body)["expires"] is None
    assert json.loads(ask(live, "PATCH", f"accounts/{name}", {"certificates": []}).body)["certificates"] == []
    told = [(record.before, record.after) for record in records(live, name)]
    assert told[1] == (
        "pusher: team/*",
        f"pusher: team/*:pull until {ends} by certificates dns:a.test uri:spiffe://a/b",
    )
    assert told[2][1] == "pusher: team/*:pull by certificates dns:a.test uri:spiffe://a/b"
    assert told[3][1] == "pusher: team/*:pull"


@pytest.mark.parametrize(
    "change",
    [
        *({}, {"role": "admin"}, {"name": "x"}, {"secret": "x"}, {"grants": ["A"]}, {"grants": ["a:fly"]}),
        *({"expires": "x"}, {"certificates": ["host.test"]}, {"certificates": ["dns:a.test"] * 17}),
        {"certificates": [f"dns:{'x' * 300}"]},
    ],
)
def test_a_change_that_cannot_be_is_refused(live: LiveRegistry, change: object) -> None:
    before = ask(live, "GET", "accounts").body
    assert ask(live, "PATCH", "accounts/pusher", change).status == 400
    assert ask(live, "GET", "accounts").body == before


def test_a_certificate_speaks_for_one_account(live: LiveRegistry, name: str) -> None:
    made(live, name, certificates=[f"dns:{name}.test"])
    answer = ask(live, "PATCH", "accounts/pusher", {"certificates": [f"dns:{name}.test"]})
    assert answer.status == 400
    assert b"speaks for an account already" in answer.body
    assert ask(live, "DELETE", f"accounts/{name}").status == 204
    assert ask(live, "PATCH", "accounts/pusher", {"certificates": [f"dns:{name}.test"]}).status == 200


def test_two_admins_cannot_remove_each_other_at_once(live: LiveRegistry) -> None:
    for _ in range(5):
        for name in ("first", "second"):
            live.secrets[name] = str(made(live, name, role="admin")["secret"])
        assert ask(live, "DELETE", "accounts/admin", by="first").status == 204
        with ThreadPoolExecutor(2) as pool:
            ways = (("first", "second"), ("second", "first"))
            asked = [pool.submit(ask, live, "DELETE", f"accounts/{whom}", by=by) for by, whom in ways]
            statuses = sorted(each.result().status for each in asked)
        assert statuses in ([204, 401], [204, 403])
        [left] = [by for by in ("first", "second") if ask(live, "GET", "accounts", by=by).status == 200]
        live.secrets["admin"] = str(json.loads(_admin(live, left).body)["secret"])
        assert ask(live, "DELETE", f"accounts/{left}").status == 204


def _admin(live: LiveRegistry, by: str) -> Answer:
    return ask(live, "POST", "accounts", {"name": "admin", "role": "admin"}, by=by)


def test_the_last_admin_gets_no_end(live: LiveRegistry) -> None:
    ends = (utc_now() + timedelta(days=9)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ask(live, "PATCH", "accounts/admin", {"expires": ends}).status == 403
    assert ask(live, "DELETE", "accounts/admin").status == 403
    assert ask(live, "PATCH", "accounts/nobody", {"expires": ends}).status == 404


# ---- token keys --------------------------------------------------------------------------------------------------


def test_withdrawn_keys_end_every_token_within_a_second(live: LiveRegistry) -> None:
    header = basic("pusher", live.secrets["pusher"])
    bearer = token(live, header, "repository:a/b:pull")
    assert status(live, bearer) == 200
    keys = json.loads(ask(live, "GET", "token-keys", by="auditor").body)["keys"]
    assert decoded(bearer.removeprefix("Bearer "))[0]["kid"] in {key["id"] for key in keys}
    assert ask(live, "DELETE", "token-keys", by="auditor").status == 403
    assert ask(live, "DELETE", "token-keys").status == 204
    until(live, bearer, 401)
    assert status(live, header) == 200
    assert status(live, token(live, header, "repository:a/b:pull")) == 200
    assert [record.after for record in records(live, "token keys")] == ["withdrawn"]


# ---- failures ----------------------------------------------------------------------------------------------------


def test_refused_logins_are_counted_in_the_audit(tmp_path_factory: pytest.TempPathFactory) -> None:
    with web_registry(tmp_path_factory.mktemp("registry"), logins={"failures_per_account": 50}) as live:
        for _ in range(7):
            assert status(live, basic("pusher", "wrong")) == 401
        live.stop()
        [record] = [each for each in records(live, "login") if each.principal == "pusher"]
    assert (record.event, record.source) == ("login", "127.0.0.1")
    assert record.after == "7 refused: unknown account or wrong secret"


def test_r7_who_fails_too_often_is_not_even_looked_at(tmp_path_factory: pytest.TempPathFactory) -> None:
    with web_registry(tmp_path_factory.mktemp("registry"), logins={"failures_per_account": 3}) as live:
        answers = [live.request("GET", "/v2/", account=None, Authorization=basic("alice", f"{n}")) for n in range(6)]
        assert [answer.status for answer in answers] == [401] * 3 + [429] * 3
        assert int(answers[-1].headers["retry-after"]) >= 1
        body = json.dumps({"name": "alice", "invitation": "x", "new": GOOD}).encode()
        assert live.request("POST", "/api/v1/password", account=None, body=body).status == 429
        assert live.request("GET", "/v2/").status == 200


def test_anonymous_where_the_settings_say_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with web_registry(tmp_path_factory.mktemp("registry"), tokens={"anonymous": ["public/*"]}) as live:
        asked = "/token?scope=repository:public/a:pull,push&scope=repository:team/a:pull&scope=registry:api:*"
        answer = json.loads(live.request("GET", asked, account=None).body)
        assert answer["scope"] == "repository:public/a:pull"
        bearer = f"Bearer {answer['token']}"
        assert status(live, bearer) == 200
        assert status(live, bearer, "/v2/public/a/tags/list") == 404  # it may look there
        assert status(live, bearer, "/v2/team/a/tags/list") == 404
        assert status(live, bearer, "/api/v1/accounts") == 403
        assert status(live, bearer, "/v2/_catalog") == 401
        refused = live.request("POST", "/v2/public/a/blobs/uploads/", account=None, Authorization=bearer)
        assert refused.status in {401, 403}
        assert status(live, basic("pusher", "wrong"), "/token") == 401
        assert live.request("GET", "/v2/", account=None).status == 401


def test_without_that_setting_nobody_gets_a_token_for_nothing(live: LiveRegistry) -> None:
    connection = HTTPConnection("127.0.0.1", live.port, timeout=30)
    connection.request("GET", "/token?scope=repository:public/a:pull")
    answer = connection.getresponse()
    assert (answer.status, answer.headers["WWW-Authenticate"].split()[0]) == (401, "Basic")
    connection.close()
