"""Whether what runs may go on."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from policy.clearance import Verified
from runtime.admission import Proven
from runtime.watch import Watcher, stop_terms
from tests.support.cleared import POLICY
from tests.support.fakeregistry import Answer
from tests.support.ready import Ready, ready
from tests.support.tools import need_root
from tests.support.trust import DAY, NOW, revocation_list

pytestmark = pytest.mark.root


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Ready]:
    need_root()
    with ready(tmp_path / "store") as made:
        yield made


def _watch(scene: Ready, *, sync_every: float = 0) -> Watcher:
    proven = scene.start()
    assert isinstance(proven, Proven), proven
    return Watcher(host=scene.host, watched=proven.watched(), clock=scene.registry.clock, sync_every=sync_every)


def test_what_may_start_may_go_on(scene: Ready) -> None:
    watch = _watch(scene)
    assert [watch() for _ in range(3)] == [None] * 3


def test_a_revocation_stops_it_when_the_next_list_comes(scene: Ready) -> None:
    watch = _watch(scene, sync_every=10)
    assert watch() is None
    scene.registry.revoke(revocation_list(8, layers=scene.app.built.diff_ids[:1]))
    scene.registry.now = NOW + timedelta(seconds=9)
    assert watch() is None, "nobody asked yet"
    scene.registry.now = NOW + timedelta(seconds=10)
    reason = watch()
    assert reason is not None
    assert reason.code == "revoked-layer"
    assert "found hostile" in reason.message


@pytest.mark.parametrize("what", ["key", "component"])
def test_a_key_or_a_component_that_is_revoked_stops_it(scene: Ready, what: str) -> None:
    watch = _watch(scene)
    if what == "key":
        scene.registry.revoke(revocation_list(8, keys=(scene.registry.ring.team.public.id,)))
    else:
        scene.registry.revoke(revocation_list(8, components=("pkg:deb/debian/openssl@3.5.0-1",)))
    reason = watch()
    assert reason is not None
    assert reason.code in {"approval-key-revoked", "revoked-component"}


def test_another_process_that_synced_is_noticed(scene: Ready) -> None:
    watch = _watch(scene, sync_every=1_000_000)
    assert watch() is None
    scene.registry.revoke(revocation_list(8, digests=(scene.app.built.digest,)))
    scene.host.sync(NOW)
    reason = watch()
    assert reason is not None
    assert reason.code == "revoked-digest"


def test_it_goes_on_while_the_registry_is_silent_and_stops_when_the_grace_ends(scene: Ready) -> None:
    watch = _watch(scene)
    scene.registry.fake.hook(lambda request: Answer(503))
    for days, stops in ((1, False), (6, False), (9, True)):
        scene.registry.now = NOW + days * DAY
        assert (watch() is not None) is stops, days


def test_a_clearance_that_runs_out_stops_it_and_one_that_is_renewed_does_not(scene: Ready) -> None:
    watch = _watch(scene)
    scene.registry.now = NOW + 4 * DAY
    scene.registry.revoke(revocation_list(8))
    scene.registry.clear(scene.app.built)
    assert watch() is None
    assert watch() is None, "it has fetched the newer clearance by now"
    scene.registry.now = NOW + 8 * DAY
    scene.registry.revoke(revocation_list(9))
    scene.registry.detach("team/app")
    assert watch() is None
    scene.registry.now = NOW + 12 * DAY
    scene.registry.revoke(revocation_list(10))
    reason = watch()
    assert reason is not None
    assert reason.code == "expired"


def test_what_runs_goes_on_under_a_newer_policy(scene: Ready) -> None:
    watch = _watch(scene)
    scene.registry.now = NOW + 4 * DAY
    scene.registry.revoke(revocation_list(8))
    scene.registry.policy = scene.registry._sign_policy(POLICY.replace(b"version: 3", b"version: 4"))
    scene.registry.clear(scene.app.built)
    assert watch() is None, "half of its life is over: it fetches the newer clearance"
    assert watch() is None, "and is judged by the policy in it"
    newest = scene.start()
    assert isinstance(newest, Proven)
    assert newest.policy.version == 4


def test_a_newer_policy_that_allows_less_stops_what_runs(scene: Ready) -> None:
    watch = _watch(scene)
    scene.registry.now = NOW + 4 * DAY
    scene.registry.revoke(revocation_list(8))
    document = POLICY.replace(b"version: 3", b"version: 4").replace(
        b"[base, application]\n  platforms", b"[base]\n  platforms"
    )
    scene.registry.policy = scene.registry._sign_policy(document)
    scene.registry.clear(scene.app.built)
    assert watch() is None
    reason = watch()
    assert reason is not None
    assert reason.code == "level-not-startable"


def test_it_stops_if_its_clearance_is_gone_or_its_host_has_forgotten(scene: Ready) -> None:
    watch = _watch(scene)
    assert watch() is None
    folder = scene.host.store.path / "images" / scene.record.key
    (folder / "clearance").rename(folder / "hidden")
    reason = watch()
    assert reason is not None
    assert reason.code == "no-clearance"
    (folder / "hidden").rename(folder / "clearance")
    scene.registry.now += timedelta(seconds=5)
    assert watch() is None
    (scene.host.store.host / "state").unlink()
    reason = watch()
    assert reason is not None
    assert reason.code == "host-state"


def test_the_policy_says_what_happens_and_after_which_time(tmp_path: Path) -> None:
    need_root()
    document = POLICY.replace(b"revoked: {action: kill}", b"revoked: {action: stop, after: 10m}")
    document = document.replace(b"expired: {action: stop}", b"expired: {action: warn}")
    with ready(tmp_path / "store") as scene:
        scene.registry.policy = scene.registry._sign_policy(document)
        scene.keep(scene.registry.clear(scene.app.built).envelope)
        watch = _watch(scene)
        scene.registry.revoke(revocation_list(8, digests=(scene.app.built.digest,)))
        for minutes, stops in ((0, False), (9, False), (10, True)):
            scene.registry.now = NOW + timedelta(minutes=minutes)
            assert (watch() is not None) is stops, minutes
        scene.registry.now = NOW + 30 * DAY
        answer = stop_terms(watch.watched, host=scene.host, now=scene.registry.now)
        assert not isinstance(answer, Verified)
        assert (answer[0].code, answer[1].action) == ("revocation-list-expired", "warn")


def test_asking_is_cheap_while_nothing_changes(scene: Ready) -> None:
    watch = _watch(scene, sync_every=1_000_000)
    assert watch() is None
    scene.keep(b"nonsense")
    assert watch() is not None
    scene.keep(scene.app.envelope)
    scene.registry.now += timedelta(seconds=5)
    assert watch() is None
    until = watch._until
    scene.registry.now += timedelta(seconds=30)
    assert watch() is None
    assert watch._until == until, "it did not look again"
