"""R6: every route of the application, asked by every kind of account for its own, another tenant's, and what is not.

What is expected stands in `rights.py`; a route that is not there fails. A request that is refused changes nothing in
any table, and tells whoever may not know of something no more than of what does not exist (CVE-2022-31667,
CVE-2022-31670, CVE-2024-22278).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from policy import dsse, wire
from policy.statements import Waiver
from registry.app import BLUEPRINTS
from tests.registry.rights import ALIKE, GROUPS, OPEN, RIGHTS
from tests.registry.routes import ROUTES
from tests.registry.world import FOREIGN, KNOWN, NAME, NOBODY, ONLY, OTHER, OWN, Call, World

OF_REFUSALS = frozenset({"audit", "generations", "jobs"})
"""Tables in which refusals leave something."""

OF_READS = OF_REFUSALS | {"pulls"}
"""Tables that requests change which only ask: the audit does, and a reader of it has its end signed."""


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(tmp_path_factory.mktemp("world"))
    yield made
    made.close()


@pytest.fixture
def world(filled: World) -> Iterator[World]:
    yield filled
    filled.reset()


@cache
def expected(row: str, place: str) -> dict[str, int]:
    """The status that each known account is answered."""
    found: dict[str, int] = {}
    rest = 0
    for part in RIGHTS[row][place].split("|"):
        status, *names = part.split()
        for name in names:
            if name == "*":
                rest = int(status)
            for actor in GROUPS.get(name, name).split():
                assert actor not in found, f"{row}, {place}: {actor} is there twice"
                found[actor] = int(status)
    return {actor: found.get(actor, rest) for actor in KNOWN}


def routes() -> set[str]:
    """Endpoint and method of all that the application answers. HEAD goes with GET, and OPTIONS is Flask's own."""
    app = Flask("registry", static_folder=None)
    for blueprint in BLUEPRINTS:
        app.register_blueprint(blueprint)
    return {
        f"{rule.endpoint} {method}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def words(answer: TestResponse) -> tuple[int, str]:
    """Status and text of an answer, without the names and digests that were asked for."""
    text = answer.get_data(as_text=True)
    for name in (OWN, "own/none", OTHER, FOREIGN, "foreign/none"):
        text = text.replace(name, "REPOSITORY")
    text = re.sub(r"sha256:[0-9a-f]{64}", "DIGEST", text)
    text = re.sub(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", "SESSION", text)
    return answer.status_code, re.sub(r"manifest \S+:", "manifest ASKED:", text)


def test_each_route_has_a_row_and_each_row_a_route() -> None:
    rows = {row.partition(",")[0] for row in RIGHTS}
    assert routes() - rows == set(), "say in tests/registry/rights.py who gets what there, and in routes.py how to ask"
    assert rows - routes() == set()
    assert {row: set(places) for row, places in RIGHTS.items()} == {row: set(asked) for row, asked in ROUTES.items()}


@pytest.mark.parametrize("row", RIGHTS)
def test_r6_everybody_gets_what_is_theirs_and_no_more(world: World, row: str) -> None:
    wrong: list[str] = []
    for place, sample in ROUTES[row].items():
        for actor, status in expected(row, place).items():
            call = sample(world, actor)
            world.flush()  # a read that was let through before is noted a second later
            left = OF_REFUSALS if status >= 400 else OF_READS
            before = world.tables(*left)
            answer = world.ask(actor, call)
            changed = [name for name, rows in world.tables(*left).items() if rows != before[name]]
            if answer.status_code != status:
                wrong.append(f"{place}: {actor} got {answer.status_code}, expected {status}")
            if changed and (status >= 400 or call.method == "GET") and not row.startswith("token."):
                wrong.append(f"{place}: {actor} got {answer.status_code}, and changed {', '.join(changed)}")
            if changed:
                world.reset()
    assert wrong == []


@pytest.mark.parametrize("row", RIGHTS)
def test_r6_nobody_is_answered_without_credentials_that_count(world: World, row: str) -> None:
    for place, sample in ROUTES[row].items():
        for actor in NOBODY[:1] if place != next(iter(ROUTES[row])) else NOBODY:
            call = sample(world, "everywhere")
            world.flush()
            before = world.tables(*OF_REFUSALS)
            answer = world.ask(actor, call)
            assert answer.status_code == OPEN.get(row, 401), f"{place}: {actor}"
            assert world.tables(*OF_REFUSALS) == before, f"{place}: {actor}"


@pytest.mark.parametrize("row", [row for row in RIGHTS if row.endswith(" GET")])
def test_r6_head_is_answered_as_get_is(world: World, row: str) -> None:
    for place, sample in ROUTES[row].items():
        for actor in ("pusher", "creator", "host", "admin", "stranger", "pull-token", "other-token"):
            call = sample(world, actor)
            head = Call(method="HEAD", path=call.path)
            assert world.ask(actor, head).status_code == expected(row, place)[actor], f"{place}: {actor}"


@pytest.mark.parametrize(
    ("row", "unknown", "hidden"), [(row, *pair) for row in RIGHTS for pair in ALIKE if set(pair) <= RIGHTS[row].keys()]
)
def test_r6_what_somebody_may_not_know_of_is_as_if_it_were_not_there(
    world: World, row: str, unknown: str, hidden: str
) -> None:
    places = ROUTES[row]
    for actor in KNOWN:
        if actor in {"admin", "stranger"} and hidden in {"foreign", "twin"}:
            continue  # who may know of it
        statuses = {expected(row, unknown)[actor], expected(row, hidden)[actor]}
        if len(statuses) == 1 and min(statuses) > 401:
            there, not_there = (world.ask(actor, places[place](world, actor)) for place in (unknown, hidden))
            assert words(there) == words(not_there), actor


def test_r6_options_tell_nobody_anything(world: World) -> None:
    for path in ("/v2/", f"/v2/{OWN}/tags/list", "/api/v1/accounts"):
        assert world.ask("anonymous", Call(method="OPTIONS", path=path)).status_code == 401
    for path in ("/v2/nothing", "/api/v2/accounts", "/metrics", "/static/x"):
        assert world.ask("anonymous", Call(method="GET", path=path)).status_code == 401
        assert world.ask("admin", Call(method="GET", path=path)).status_code == 404


# ---- what lists say --------------------------------------------------------------------------------------------------


def test_r6_no_list_names_what_is_out_of_scope(world: World) -> None:
    for actor in KNOWN:
        for path in (
            "/v2/_catalog",
            "/v2/_catalog?last=foreign",
            "/api/v1/images",
            "/api/v1/images?repository=" + FOREIGN,
        ):
            text = world.ask(actor, Call(method="GET", path=path)).get_data(as_text=True)
            if actor == "stranger":
                assert OWN not in text
            elif actor != "admin":
                assert "foreign" not in text.replace("last=foreign", ""), (actor, path)
                assert str(ONLY.digest) not in text


def test_r6_waivers_of_other_tenants_are_not_shown(world: World) -> None:
    (call,) = (sample(world, "pusher") for sample in ROUTES["statements.get_statements GET"].values())
    for actor in ("pusher", "puller", "scanner", "officer", "auditor", "person", "stranger"):
        found = world.ask(actor, call).get_json()["statements"]
        statements = [wire.decode(dsse.parse(json.dumps(each).encode(), what="x").payload, what="x") for each in found]
        scopes = {each.scope for each in statements if isinstance(each, Waiver)}
        assert scopes == {f"{NAME}/{FOREIGN if actor == 'stranger' else OWN}"}, actor
    everything = world.ask("chief", call).get_json()["statements"]
    assert len(everything) == 2


def test_r6_a_token_has_no_access_that_its_account_has_not(world: World) -> None:
    scopes = "&".join(f"scope=repository:{name}:pull,push,delete" for name in (OWN, FOREIGN))
    for actor, (own, foreign) in {
        "pusher": ("pull,push,delete", ""),
        "puller": ("pull", ""),
        "creator": ("push", ""),
        "host": ("pull", ""),
        "admin": ("", ""),
        "stranger": ("", "pull,push,delete"),
    }.items():
        answer = world.ask(actor, Call(method="GET", path=f"/token?service={NAME}&{scopes}"))
        granted = dict(
            scope.removeprefix("repository:").rpartition(":")[::2] for scope in answer.get_json()["scope"].split()
        )
        actions = {name: set(filter(None, granted.get(name, "").split(","))) for name in (OWN, FOREIGN)}
        assert actions == {OWN: set(filter(None, own.split(","))), FOREIGN: set(filter(None, foreign.split(",")))}, (
            actor
        )


def test_r6_a_token_ends_with_its_account(world: World) -> None:
    call = Call(method="GET", path=f"/v2/{OWN}/manifests/1")
    assert world.ask("pull-token", call).status_code == 200
    assert world.ask("admin", Call(method="DELETE", path="/api/v1/accounts/pusher")).status_code == 204
    for actor in ("token", "pull-token", "pusher"):
        assert world.ask(actor, call).status_code == 401
