"""The collector on a whole registry: asked for, done by a child of the judge, and told of."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from ocispec.digest import Digest
from registry.catalogue import schema
from registry.store.files import FilesStore
from tests.pratique.calling import call, good
from tests.registry.collect.site import Thing
from tests.support.live import WholeRegistry, whole_registry

NEEDED, LOOSE, OTHER = Thing(b"needed"), Thing(b"loose"), Thing(b"of a tag that goes")


@pytest.fixture(scope="module")
def live() -> Iterator[WholeRegistry]:
    """A registry whose collector has no grace, and runs when it is asked."""
    with whole_registry(collect={"interval": 0, "grace": 0}) as made:
        yield made


def collect(live: WholeRegistry, *, dry: bool = False) -> dict[str, Any]:
    """Have a run done, and return it with all that it took away."""
    status, made = live.api("POST", "/api/v1/collections", account="admin", body=json.dumps({"dryRun": dry}).encode())
    assert status == 202
    assert isinstance(made, dict)
    deadline = time.monotonic() + 60
    while True:
        status, found = live.api("GET", f"/api/v1/collections/{made['id']}?limit=1000", account="auditor")
        assert status == 200
        assert isinstance(found, dict)
        if found["state"] in {"done", "failed"}:
            return found
        assert time.monotonic() < deadline, live.log()
        time.sleep(0.1)


def things(found: dict[str, Any]) -> list[tuple[str, str, int]]:
    """What went, by reason and name."""
    return sorted((each["reason"], each["subject"], each["bytes"]) for each in found["things"])


def put(live: WholeRegistry, repository: str, tag: str, thing: Thing) -> None:
    """Push a thing."""
    live.push_blob(repository, thing.content)
    manifest = thing.manifest
    answer = live.put_manifest(repository, tag, manifest.raw, manifest.media_type)
    assert answer.status == 201, answer


def stored(live: WholeRegistry) -> set[Digest]:
    """The blobs on the disk."""
    return set(FilesStore(live.settings.store_folder).digests())


def next_second() -> None:
    """Nothing of this second is old."""
    time.sleep(1.1)


def test_a_dry_run_names_what_a_real_one_frees_and_changes_nothing(live: WholeRegistry) -> None:
    put(live, "team/a", "keep", NEEDED)
    put(live, "team/a", "old", OTHER)
    live.push_blob("team/b", LOOSE.content)
    rule = {"kind": "retention", "pattern": "team/a", "value": {"tags": ["old"], "pushed": "1s", "untagged": "1s"}}
    status, _ = live.api("PUT", "/api/v1/rules", account="admin", body=json.dumps(rule).encode())
    assert status == 201
    time.sleep(2.1)

    before = stored(live)
    told = collect(live, dry=True)
    assert told["state"] == "done"
    assert told["dryRun"]
    assert stored(live) == before
    assert live.request("GET", "/v2/team/a/manifests/old").status == 200
    assert ("retention", "team/a:old", 0) in things(told)
    assert ("in-no-repository", str(LOOSE.blob), len(LOOSE.content)) in things(told)

    done = collect(live)
    assert things(done) == things(told)
    assert done["report"]["freedBytes"] == told["report"]["freedBytes"] == len(LOOSE.content)
    assert LOOSE.blob not in stored(live)
    assert live.request("GET", "/v2/team/a/manifests/old").status == 404
    assert live.request("GET", "/v2/team/a/manifests/keep").status == 200

    # What the tag let go of stays for the grace, and goes by the next runs: its manifest, then the blob.
    for _ in range(2):
        time.sleep(2.1)
        collect(live)
    assert stored(live) >= {NEEDED.blob}
    assert OTHER.blob not in stored(live)


def test_what_a_host_runs_stays(live: WholeRegistry) -> None:
    put(live, "team/run", "old", NEEDED)
    put(live, "team/run", "older", OTHER)
    rule = {"kind": "retention", "pattern": "team/run", "value": {"pushed": "1s", "untagged": "1s"}}
    live.api("PUT", "/api/v1/rules", account="admin", body=json.dumps(rule).encode())
    said = {"images": [{"repository": "team/run", "digest": str(NEEDED.manifest.digest)}]}
    assert live.api("PUT", "/api/v1/running", account="host", body=json.dumps(said).encode())[0] == 204
    assert live.api("PUT", "/api/v1/running", account="pusher", body=json.dumps(said).encode())[0] == 403
    status, seen = live.api("GET", f"/api/v1/running?digest={NEEDED.manifest.digest}", account="officer")
    assert status == 200
    assert isinstance(seen, dict)
    assert [(each["host"], each["repository"]) for each in seen["running"]] == [("host", "team/run")]
    time.sleep(2.1)
    done = collect(live)
    assert live.request("GET", "/v2/team/run/manifests/old").status == 200
    assert live.request("GET", "/v2/team/run/manifests/older").status == 404
    assert ("retention", "team/run:older", 0) in things(done)


def test_who_may_ask_and_look(live: WholeRegistry) -> None:
    body = b'{"dryRun": true}'
    for account in ("pusher", "host", "officer", "auditor", "scanner"):
        assert live.api("POST", "/api/v1/collections", account=account, body=body)[0] == 403
    for account in ("pusher", "host", "scanner"):
        assert live.api("GET", "/api/v1/collections", account=account)[0] == 403
    assert live.api("GET", "/api/v1/collections/none", account="admin")[0] == 404
    for wrong in (b'{"dryRun": 1}', b'{"dry": true}', b"[]"):
        assert live.api("POST", "/api/v1/collections", account="admin", body=wrong)[0] == 400


def test_runs_are_in_the_audit_with_who_asked(live: WholeRegistry) -> None:
    found = collect(live, dry=True)
    status, answer = live.api("GET", "/api/v1/audit?limit=1000", account="auditor")
    assert status == 200
    assert isinstance(answer, dict)
    mine = [each for each in answer["records"] if each["subject"] == f"collection {found['id']}"]
    assert [each["principal"] for each in mine] == ["admin", "admin"]
    assert mine[0]["source"] == "127.0.0.1"
    assert mine[1]["before"] == "running"
    assert "dry run" in mine[1]["after"]


def test_pages_of_what_went(live: WholeRegistry) -> None:
    for number in range(5):
        live.push_blob("team/pages", b"page %d" % number)
    next_second()
    found = collect(live)
    expected = [each["subject"] for each in found["things"]]
    seen: list[str] = []
    after: int | None = 0
    while after is not None:
        path = f"/api/v1/collections/{found['id']}?after={after}&limit=3"
        _, page = live.api("GET", path, account="admin")
        assert isinstance(page, dict)
        assert len(page["things"]) <= 3
        seen += [each["subject"] for each in page["things"]]
        after = page["next"]
    assert seen == expected
    assert len(seen) >= 10


def test_the_command(live: WholeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRATIQUE_CONFIG", str(tmp_path))
    login = ("login", live.address, "--account", "admin", "--plain-http")
    good(*login, stdin=live.secrets["admin"] + "\n")
    digest = live.push_blob("team/cli", b"loose by command")
    next_second()
    told = good("collect", live.address, "--dry-run", "--wait")
    assert f"in-no-repository {digest}" in told.out
    assert "would be freed" in told.out
    assert digest in stored(live)
    asked = good("collect", live.address, "--json").json
    deadline = time.monotonic() + 60
    while (found := good("collect", "show", live.address, asked["id"], "--json").json)["state"] != "done":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ["in-no-repository", str(digest)] in [[each["reason"], each["subject"]] for each in found["things"]]
    assert digest not in stored(live)
    assert asked["id"] in good("collect", "show", live.address).out
    assert call("collect", live.address, "x").code == 2
    assert call("collect", "show", live.address, "--wait").code == 2
    assert call("collect", "show", live.address, "none").code == 1


def test_a_pull_is_noted(live: WholeRegistry) -> None:
    put(live, "team/pulled", "v1", NEEDED)
    assert live.request("GET", "/v2/team/pulled/manifests/v1").status == 200
    deadline = time.monotonic() + 30
    while True:
        catalogue = live.catalogue()
        with catalogue.read() as conn:
            at = schema.pulls.c
            found = conn.scalar(select(at.digest).where(at.repository == "team/pulled"))
        catalogue.close()
        if found is not None:
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert found == NEEDED.manifest.digest
