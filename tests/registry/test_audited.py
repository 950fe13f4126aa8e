"""Each request that changes something is one record or several: who, from where, what, before and after.

A route that changes anything (it is no GET) and has no row here fails. What stands in UNRECORDED changes nothing of
configuration, access, policy or state, and each says why.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import pytest
from sqlalchemy import delete, insert

from ocispec.digest import Digest
from policy.errors import TrustError
from policy.model import Signed
from policy.statements import Statement
from registry.audit import Event, Record, verify
from registry.authenticate import hash_secret
from registry.catalogue import schema
from registry.first import BOOTSTRAP
from tests.registry.rights import RIGHTS
from tests.registry.routes import ROUTES
from tests.registry.test_idor import expected, routes
from tests.registry.world import ABOUT_SERVED, FOREIGN, FRESH, NAME, OWN, SERVED, SPARE, WAITING, Call, World

UNRECORDED: Final[Mapping[str, str]] = {
    "uploads.begin_upload POST": "bytes of a session are nobody's content before a manifest names them",
    "uploads.append_upload PATCH": "the same",
    "uploads.finish_upload PUT": "a blob is content of an image once a manifest names it, and that is recorded",
    "uploads.cancel_upload DELETE": "the same",
    "token.post_token POST": "a token gives no more than its account has; a login that fails is counted",
    "running.put_running PUT": "what a host says that it runs takes nothing away, and gives nothing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What a record must say, as regular expressions over the whole text."""

    event: Event
    subject: str
    before: str = ""
    after: str = ""

    def fits(self, record: Record) -> bool:
        return (
            record.event == self.event
            and re.fullmatch(self.subject, record.subject) is not None
            and re.fullmatch(self.before, record.before) is not None
            and re.fullmatch(self.after, record.after) is not None
        )


_DIGEST: Final = "sha256:[0-9a-f]{64}"

TOLD: Final[Mapping[str, tuple[Told, ...]]] = {
    "blobs.delete_blob DELETE": (Told(event=Event.DELETE, subject=f"{OWN}@{Digest.of(SPARE)}", before="blob"),),
    "manifests.put_manifest PUT": (
        Told(event=Event.PUSH, subject=f"{OWN}@{FRESH.digest}", after="image"),
        Told(event=Event.TAG, subject=f"{OWN}:new", after=str(FRESH.digest)),
    ),
    "manifests.put_manifest PUT, a tag that is there": (
        Told(event=Event.TAG, subject=f"{OWN}:1", before=str(SERVED.digest), after=str(WAITING.digest)),
    ),
    "manifests.put_manifest PUT, tags by query": (
        Told(event=Event.TAG, subject=f"{OWN}:1", before=str(SERVED.digest), after=str(WAITING.digest)),
    ),
    "manifests.put_manifest PUT, an artifact": (
        Told(
            event=Event.TAG,
            subject=f"{OWN}:sha256-{SERVED.digest.hex}",
            after=str(Digest.of(ABOUT_SERVED)),
        ),
    ),
    "manifests.delete_manifest DELETE": (
        Told(event=Event.TAG, subject=f"{OWN}:2", before=str(WAITING.digest)),
        Told(event=Event.DELETE, subject=f"{OWN}@{WAITING.digest}", before="manifest"),
    ),
    "manifests.delete_manifest DELETE, a tag": (Told(event=Event.TAG, subject=f"{OWN}:1", before=str(SERVED.digest)),),
    "accounts.post_account POST": (Told(event=Event.ACCOUNT, subject="new", after=r"host: \*.*"),),
    "accounts.patch_account PATCH": (
        Told(event=Event.ACCOUNT, subject="stranger", before=r"pusher: foreign/\*", after=r"pusher: foreign/\*:pull"),
    ),
    "accounts.delete_account DELETE": (
        Told(event=Event.ACCOUNT, subject="stranger", before=r"pusher: foreign/\*", after="removed"),
    ),
    "credentials.post_secret POST": (
        Told(event=Event.ACCOUNT, subject="everywhere", before=".+", after="new secret, .*"),
    ),
    "credentials.post_invitation POST": (Told(event=Event.ACCOUNT, subject="person", before=".+", after=".*invit.*"),),
    "credentials.delete_token_keys DELETE": (
        Told(event=Event.TOKEN_KEY, subject="token keys", before=r"\S{43}.*", after="withdrawn"),
    ),
    "collections.post_collection POST": (
        Told(event=Event.COLLECT, subject="collection .+", after="dry run asked for"),
    ),
    "rules.put_one PUT": (
        Told(event=Event.RULE, subject=f"immutable {OWN}", after=r'\{"except":\[\],"tags":\["none"\]\}'),
    ),
    "rules.delete_one DELETE": (
        Told(event=Event.RULE, subject=f"quota {OWN}", before=r'\{"tags":100\}', after="removed"),
    ),
    "statements.post_statement POST": (
        Told(event=Event.STATEMENT, subject=f"Waiver {_DIGEST}", after="signed by alice: a test"),
    ),
    "trust.post_trust POST": (
        Told(
            event=Event.TRUST,
            subject=r"trust\.json 2",
            before=f"version 1, {_DIGEST}",
            after=f"version 2, {_DIGEST}",
        ),
    ),
    "advisories.post_advisories POST": (
        Told(event=Event.ADVISORIES, subject="kev kev", after=rf"{_DIGEST} of \d+ bytes"),
    ),
    "accounts.post_bootstrap POST": (Told(event=Event.ACCOUNT, subject="root", after=r"admin: \*.*"),),
    "credentials.post_password POST": (
        Told(event=Event.ACCOUNT, subject="person", before=".+", after="new password, by the one before"),
    ),
}
"""What the request of each route that changes something is recorded as."""

PLACES: Final = {
    "accounts.delete_account DELETE": "known",
    "accounts.patch_account PATCH": "known",
    "credentials.post_secret POST": "anothers",
    "credentials.post_invitation POST": "known",
    "rules.delete_one DELETE": "known",
}
"""Which sample of a route it is, where it is not its first."""

OWN_WAY: Final = frozenset({"accounts.post_bootstrap POST", "credentials.post_password POST"})
"""Routes that know somebody by what is in the request; each has a test of its own below."""


def changing() -> list[str]:
    """The rows of all routes that may change something."""
    return [row for row in RIGHTS if not row.partition(",")[0].endswith(" GET")]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.close()


@pytest.fixture
def world(filled: World) -> World:
    filled.reset()
    return filled


def _newest(world: World) -> int:
    return max((record.seq for record in world.records()), default=0)


def _believe_nobody(_envelope: bytes) -> Signed[Statement]:
    raise TrustError("unknown-key", "checkpoint", "no key is trusted here")


def _check(records: list[Record], told: tuple[Told, ...], who: str) -> None:
    assert len(records) == len(told), records
    for record, each in zip(records, told, strict=True):
        assert each.fits(record), (record, each)
        assert (record.principal, record.source) == (who, "192.0.2.1")


def test_each_route_that_changes_something_is_here() -> None:
    known = {row.partition(",")[0] for row in (*TOLD, *UNRECORDED)}
    assert {route for route in routes() if not route.endswith(" GET")} == known
    assert {row for row in changing() if row.partition(",")[0] not in UNRECORDED} == set(TOLD)


@pytest.mark.parametrize("row", sorted(set(TOLD) - OWN_WAY))
def test_a_change_is_recorded_with_who_from_where_before_and_after(world: World, row: str) -> None:
    place = PLACES.get(row, next(iter(ROUTES[row])))
    who = next(actor for actor, status in expected(row, place).items() if status < 300)
    call = ROUTES[row][place](world, who)
    last = _newest(world)
    assert world.ask(who, call).status_code < 300
    _check(world.records(last), TOLD[row], who)
    assert verify(world.records(), [], verify_envelope=_believe_nobody, registry=NAME).sound


@pytest.mark.parametrize("row", sorted(set(TOLD) - OWN_WAY))
def test_what_was_refused_is_counted_and_is_no_change(world: World, row: str) -> None:
    place = PLACES.get(row, next(iter(ROUTES[row])))
    who = next(actor for actor, status in expected(row, place).items() if status == 403)
    call = ROUTES[row][place](world, who)
    last = _newest(world)
    for _ in range(3):
        assert world.ask(who, call).status_code == 403
    (record,) = world.records(last)
    assert (record.event, record.principal, record.source) == ("refused", who, "192.0.2.1")
    assert record.subject == f"{call.method} {call.path.partition('?')[0]}"
    assert record.after.startswith("3 refused: ")


@pytest.mark.parametrize("row", sorted(UNRECORDED))
def test_what_is_not_recorded_says_why(world: World, row: str) -> None:
    place = next(iter(ROUTES[row]))
    who = next(actor for actor, status in expected(row, place).items() if status < 300)
    call = ROUTES[row][place](world, who)
    last = _newest(world)
    assert world.ask(who, call).status_code < 300
    assert [record for record in world.records(last) if record.event != "token-key"] == []
    assert UNRECORDED[row]


def test_the_same_again_is_no_change(world: World) -> None:
    call = ROUTES["manifests.put_manifest PUT"]["own"](world, "pusher")
    assert world.ask("pusher", call).status_code == 201
    last = _newest(world)
    assert world.ask("pusher", call).status_code == 201
    assert world.records(last) == []


def test_a_rule_that_changes_is_told_with_what_it_was(world: World) -> None:
    for tags, before in ((100, ""), (200, '{"tags":100}')):
        body = b'{"kind": "quota", "pattern": "own/*", "value": {"tags": %d}}' % tags
        last = _newest(world)
        assert world.ask("admin", Call(method="PUT", path="/api/v1/rules", body=body)).status_code in {200, 201}
        (record,) = world.records(last)
        assert (record.subject, record.before, record.after) == ("quota own/*", before, f'{{"tags":{tags}}}')


def test_a_secret_is_in_no_record(world: World) -> None:
    secret = ""
    for row, who in (("accounts.post_account POST", "admin"), ("credentials.post_secret POST", "admin")):
        place = PLACES.get(row, next(iter(ROUTES[row])))
        answer = world.ask(who, ROUTES[row][place](world, who))
        secret = answer.get_json()["secret"]
        assert len(secret) >= 40
        assert all(secret not in repr(record) for record in world.records())


def test_a_person_who_sets_a_password_is_recorded(world: World) -> None:
    row = "credentials.post_password POST"
    last = _newest(world)
    body = b'{"name": "person", "password": "person\'s password", "new": "quite another password"}'
    assert world.ask("anonymous", Call(method="POST", path="/api/v1/password", body=body)).status_code == 204
    _check(world.records(last), TOLD[row], "person")


def test_the_first_admin_is_recorded(world: World) -> None:
    with world.catalogue.write() as conn:
        conn.execute(delete(schema.accounts).where(schema.accounts.c.role == "admin"))
        conn.execute(insert(schema.meta).values(name=BOOTSTRAP, value=hash_secret("one-time")))
    last = _newest(world)
    for token, status in (("other", 401), ("one-time", 201), ("one-time", 401)):
        body = b'{"name": "root", "token": "%s"}' % token.encode()
        answer = world.ask("anonymous", Call(method="POST", path="/api/v1/bootstrap", body=body))
        assert answer.status_code == status
    made, refused = world.records(last)
    _check([made], TOLD["accounts.post_bootstrap POST"], "bootstrap")
    assert (refused.event, refused.source, refused.after) == (
        "login",
        "192.0.2.1",
        "2 refused: bootstrap: no such token",
    )


# ---- reads -----------------------------------------------------------------------------------------------------------


def test_reads_of_content_are_recorded_and_those_that_are_refused_are_counted(world: World) -> None:
    blob = SERVED.config.digest
    for who, path, status, told in (
        ("pusher", "manifests/1", 200, [("read", f"{OWN}:1", str(SERVED.digest))]),
        ("host", f"manifests/{SERVED.digest}", 200, [("read", f"{OWN}:{SERVED.digest}", str(SERVED.digest))]),
        ("host", f"blobs/{blob}", 200, [("read", f"{OWN}@{blob}", "blob")]),
        ("host", "manifests/2", 403, [("refused", f"GET /v2/{OWN}/manifests/2", None)]),
        ("creator", "manifests/1", 404, []),
    ):
        last = _newest(world)
        assert world.ask(who, Call(method="GET", path=f"/v2/{OWN}/{path}")).status_code == status
        found = world.records(last)
        assert [(record.event, record.subject) for record in found] == [each[:2] for each in told]
        for record, (_, _, after) in zip(found, told, strict=True):
            assert (record.principal, record.source) == (who, "192.0.2.1")
            assert after is None or record.after == after


def test_a_flood_of_refusals_is_a_few_records(world: World) -> None:
    """Whoever may do nothing cannot fill the audit; what is counted together is said to be."""
    last = _newest(world)
    for number in range(200):
        path = f"/v2/{FOREIGN}-{number}/blobs/uploads/"
        assert world.ask("pusher", Call(method="POST", path=path)).status_code == 403
    found = world.records(last)
    assert len(found) == 51
    assert found[-1].after == "150 more refused, of other accounts or from other addresses"
