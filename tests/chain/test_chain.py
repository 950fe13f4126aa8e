"""The chain, from a push to a revocation that stops what runs, each step by the command that its user has."""

from __future__ import annotations

import json
import time

import pytest

from ocispec.digest import Digest
from tests.chain.stage import Chain, app_image, base_image

pytestmark = pytest.mark.root


def test_from_push_to_revocation(chain: Chain) -> None:
    desk = chain.desk
    below = base_image("not approved by other tests")
    base = chain.push(below, "chain/base")
    built = app_image(below)
    app = chain.push(built, "chain/app")
    try:
        _quarantined(chain, app)
        chain.approve_base(base)
        chain.approve_top(app)
        chain.cleared(app)
        pulled = json.loads(desk.fine("pull", app, "--json"))
        assert pulled["image"] == f"{chain.address}/chain/app@{built.digest}"
        assert pulled["level"] == "application"
        desk.fine("verify", app)
        _runs(chain, app)
        _rehashed(chain, built.diff_ids[1])
        _revoked(chain, app, built.digest)
    finally:
        desk.pratique("rm", "--force", "chain-web")


def _quarantined(chain: Chain, app: str) -> None:
    refused = chain.desk.pratique("pull", app, "--quiet")
    assert refused.code == 3, refused
    assert "no-approved-parent" in refused.err, refused
    assert refused.err.startswith("refused: "), refused
    explained = chain.desk.pratique("explain", app, "--account", "dev")
    assert "no-approved-parent" in explained.out


def _runs(chain: Chain, app: str) -> None:
    desk = chain.desk
    named = ("--name", "chain-web", "--hostname", "web-1", "--memory", "32m")
    assert desk.fine("run", "--detach", *named, app) == "chain-web\n"
    seen = ""
    deadline = time.monotonic() + 10
    while "root " not in seen and time.monotonic() < deadline:
        seen = desk.fine("logs", "chain-web")
    assert seen.splitlines() == ["pid 1", "host web-1", "capabilities 0000000000000000", "root read-only"]
    (shown,) = (each for each in json.loads(desk.fine("ps", "--json")) if each["name"] == "chain-web")
    assert (shown["status"], shown["level"], shown["memory"]) == ("running", "application", 32 << 20)


def _rehashed(chain: Chain, diff_id: Digest) -> None:
    desk = chain.desk
    assert json.loads(desk.fine("host", "set", "--depth", "always", "--json")) == {"depth": "always"}
    assert json.loads(desk.fine("host", "show", "--json"))["depth_of_starts"] == "always"
    desk.fine("host", "set", "--depth", "sealed")
    assert json.loads(desk.fine("host", "rehash", "--all", "--json"))["damaged"] == []
    # A layer that is missing is one that nothing new starts from; what runs has it open.
    layer = desk.store / "layers" / f"{diff_id.hex}.tar"
    layer.rename(layer.with_suffix(".gone"))
    found = desk.pratique("host", "rehash", "--json")
    layer.with_suffix(".gone").rename(layer)
    assert found.code == 3, found
    (damaged,) = json.loads(found.out)["damaged"]
    assert (damaged["digest"], damaged["containers"]) == (str(diff_id), ["chain-web"])
    assert "0 damaged" in desk.fine("host", "rehash")


def _revoked(chain: Chain, app: str, digest: object) -> None:
    desk = chain.desk
    revoke = ("revoke", "--registry", chain.address, "--digest", app, "--reason", "found hostile")
    desk.fine(*revoke, *chain.keys("alice", "bob"), "--account", "alice")
    desk.fine("host", "sync")
    refused = desk.pratique("run", "--name", "chain-again", app)
    assert refused.code == 125
    assert "revoked" in refused.err, refused
    assert str(digest) in refused.err, refused
    deadline = time.monotonic() + 20
    while desk.fine("ps", "--json") != "[]\n":
        assert time.monotonic() < deadline, desk.fine("ps", "--all")
        time.sleep(0.1)
    (ended,) = json.loads(desk.fine("ps", "--all", "--json"))
    assert ended["stopped_by"]["code"] == "revoked-digest", ended
    assert chain.desk.pratique("pull", app, "--quiet").code == 3
    verify = ("audit", "verify", chain.address, "--trust", "trust.json", "--account", "carol")
    desk.fine(*verify)
