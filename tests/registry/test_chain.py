"""The whole chain on a running registry: pushed, quarantined, approved, cleared, pulled by a host, revoked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from policy.clearance import HostView, Subject, Verified, verify_clearance
from policy.hoststate import HostState
from policy.revocation import verify_list
from policy.trust import Trust
from tests.support.images import BuiltImage, image
from tests.support.live import WholeRegistry, now, whole_registry
from tests.support.packages import os_release
from tests.support.tools import need

BASE_FILES = {"etc/": b"", "bin/": b"", "bin/sh": b"#!", **os_release()}


@pytest.fixture(scope="module")
def live() -> Iterator[WholeRegistry]:
    with whole_registry() as made:
        made.publish()
        yield made


def _skopeo(live: WholeRegistry, *arguments: str) -> subprocess.CompletedProcess[str]:
    need("skopeo")
    return subprocess.run(["skopeo", *arguments], capture_output=True, text=True, check=False, timeout=60)


def _host_view(live: WholeRegistry) -> HostView:
    _, answer = live.api("GET", "/api/v1/revocations", account="host")
    assert isinstance(answer, dict)
    listed, date = (json.dumps(answer[name]).encode() for name in ("list", "date"))
    trust = Trust.parse(live.ring.envelope, now())
    current = verify_list(listed, date, trust, now())
    return HostView(trust=trust, revocations=current, state=HostState(), formats=frozenset({(1, 1)}))


def test_push_refusal_approval_clearance_pull_revocation(live: WholeRegistry, tmp_path: Path) -> None:
    base = image([BASE_FILES])
    app = image([{"srv/": b"", "srv/app": b"program"}], parent=base, entrypoint=["/srv/app"], env=["A=1"], user="1000")
    repository, host = "team/app", f"host:{live.secrets['host']}"
    layout = app.write_layout(tmp_path / "layout", "app")
    target = f"docker://{live.address}/{repository}:1"

    pushed = _skopeo(
        live,
        "copy",
        "--dest-tls-verify=false",
        f"--dest-creds=pusher:{live.secrets['pusher']}",
        f"oci:{layout}:app",
        target,
    )
    assert pushed.returncode == 0, pushed.stderr
    denied = live.until(repository, "1", "denied")
    assert denied["reason"] == "no-approved-parent", denied

    def pull(where: str) -> subprocess.CompletedProcess[str]:
        return _skopeo(live, "copy", "--src-tls-verify=false", f"--src-creds={host}", target, f"dir:{tmp_path / where}")

    refused = pull("refused")
    assert refused.returncode != 0
    assert live.request("GET", f"/v2/{repository}/manifests/{app.digest}", account="host").status == 403

    live.push(repository, base, "base")
    live.approve(repository, base, "base", live.ring.alice, live.ring.bob)
    live.approve(repository, app, "application", live.ring.team, account="pusher")
    live.until(repository, base.digest, "cleared")
    cleared = live.until(repository, app.digest, "cleared")
    assert (cleared["level"], cleared["parent"]) == ("application", str(base.digest))
    taken = pull("taken")
    assert taken.returncode == 0, taken.stderr
    verified = _verify(live, repository, app)
    assert isinstance(verified, Verified)
    assert verified.complete

    answer = live.revoke(2, digests=(base.digest,))
    assert answer["revoked"] == 2  # the base, and what stands on it
    assert pull("revoked").returncode != 0
    assert live.until(repository, app.digest, "revoked")["reason"] == "revoked"
    _, tag = live.api("GET", f"/api/v1/tags/1/{repository}", account="host")
    assert isinstance(tag, dict)
    assert tag["served"] is None
    assert "revoked" in str(tag["reason"])


def _verify(live: WholeRegistry, repository: str, app: BuiltImage) -> object:
    """Prove the clearance as a host does, from what a host may read."""
    listed = live.request("GET", f"/v2/{repository}/referrers/{app.digest}", account="host")
    found = [
        each for each in json.loads(listed.body)["manifests"] if each["artifactType"] == "application/vnd.in-toto+dsse"
    ]
    assert len(found) == 1, listed
    manifest = live.request("GET", f"/v2/{repository}/manifests/{found[0]['digest']}", account="host")
    blob = json.loads(manifest.body)["layers"][0]["digest"]
    envelope = live.request("GET", f"/v2/{repository}/blobs/{blob}", account="host").body
    facts = live.facts(repository, app)
    subject = Subject(
        registry=live.address,
        repository=repository,
        manifest=app.digest,
        config=app.config.digest,
        diff_ids=app.diff_ids,
        platform=str(app.config.platform),
        config_facts=facts.config_facts,
        root_index=facts.root_index,
    )
    return verify_clearance(envelope, subject=subject, host=_host_view(live), now=now())
