"""The clearance is bound to what it clears: each start that must fail, beside one that differs only in the cause."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.digest import Digest
from policy.private_key import PrivateKey
from policy.refusal import Refused
from policy.seal import seal
from policy.statements import ConfigFacts, ImageApproval, PolicyFloor, ResolvedUser
from runtime.admission import Cleared, Proven, admit, verify
from runtime.model import Bind, ContainerId
from runtime.ownfiles import replace_file
from runtime.wish import Wish
from tests.support.cleared import app_image, base_image
from tests.support.fakeregistry import Answer
from tests.support.ready import AMD64, WISH, Ready, ready
from tests.support.tools import need, need_root
from tests.support.trust import DAY, NOW, revocation_list

pytestmark = pytest.mark.root


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Ready]:
    need_root()
    with ready(tmp_path / "store") as made:
        yield made


def _open_files(scene: Ready) -> list[str]:
    """What this process has open of the store."""
    found: list[str] = []
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # other threads close theirs meanwhile
            found.append(str(path.readlink()))
    return [name for name in found if name.startswith(str(scene.host.store.path))]


def test_a_cleared_image_starts_with_the_bytes_that_were_proven(scene: Ready) -> None:
    cleared = admit(scene.app.reference, WISH, host=scene.host, now=NOW, platform=AMD64)
    assert isinstance(cleared, Cleared), cleared
    with cleared:
        root = cleared.request.root
        with os.fdopen(os.dup(root.index_fd), "rb") as file:
            assert Digest.of(file.read()) == scene.app.facts.root_index
        for fd, layer in zip(root.layer_fds, scene.app.built.layers, strict=True):
            with os.fdopen(os.dup(fd), "rb") as file:
                assert file.read() == layer.tar
        assert cleared.request.process.argv == ("/bin/true",)
        assert cleared.request.shown.level == "application"
        assert cleared.request.memory == 64 * 1024**2
        assert len(_open_files(scene)) == 3
    assert _open_files(scene) == []


def test_a_refusal_leaves_nothing_open(scene: Ready) -> None:
    scene.host.store.layer(scene.app.built.diff_ids[1]).unlink()
    assert isinstance(scene.start(), Refused)
    assert _open_files(scene) == []


def test_an_image_is_verified_without_being_started(scene: Ready) -> None:
    proven = verify(scene.app.pinned, host=scene.host, now=NOW, platform=AMD64)
    assert isinstance(proven, Proven), proven
    assert proven.record == scene.record
    assert proven.notes == ()
    scene.keep_with(approvals=())
    refused = verify(scene.app.pinned, host=scene.host, now=NOW, platform=AMD64)
    assert isinstance(refused, Refused)
    assert refused.code == "approvals-missing"


# What is bound: (what is changed, the code of the refusal)


def _other_image(scene: Ready) -> None:
    other = scene.registry.clear(app_image(base_image(), "other"), tag=None)
    scene.keep(other.envelope)


def _unknown_key(scene: Ready) -> None:
    scene.keep(seal(scene.app.clearance, PrivateKey.generate()))


def _officer_key(scene: Ready) -> None:
    scene.keep(seal(scene.app.clearance, scene.registry.ring.alice))


def _approval_by(scene: Ready, *keys: PrivateKey, level: str = "application") -> bytes:
    approval = ImageApproval(
        level=level,
        manifest=scene.app.facts.manifest,
        config=scene.app.facts.config,
        config_facts=scene.app.facts.config_facts,
        diff_ids=scene.app.built.diff_ids,
        root_index=scene.app.facts.root_index,
        reader=scene.app.facts.reader,
        format=scene.app.facts.format,
        platform=scene.app.facts.platform,
        issued=NOW - timedelta(hours=2),
        expires=NOW + 30 * DAY,
    )
    return seal(approval, *keys)


def _base_of_one_officer(scene: Ready) -> None:
    registry, clearance = scene.registry, scene.app.clearance
    base = registry.approve(registry.facts(base_image()), "base", registry.ring.alice)
    app = registry.approve(scene.app.facts, "application")
    scene.keep(registry.seal(replace(clearance, approvals=(base.envelope, app.envelope))))


def _revoke(scene: Ready, **what: object) -> None:
    scene.registry.revoke(revocation_list(8, **what))  # type: ignore[arg-type]  # values of several types
    assert scene.host.sync(scene.registry.now).fine


def _floor(scene: Ready) -> None:
    ring = scene.registry.ring
    sealed = seal(PolicyFloor(name="default", version=4, issued=NOW), ring.alice, ring.bob)
    scene.registry.fake.documents["/api/v1/floors"] = json.dumps({"floors": [json.loads(sealed)]}).encode()
    assert scene.host.sync(NOW).fine


def _eight_days_later(scene: Ready) -> None:
    scene.registry.now = NOW + 8 * DAY
    scene.registry.revoke(revocation_list(8))
    assert scene.host.sync(scene.registry.now).fine


def _clock_back(scene: Ready) -> None:
    scene.registry.now = NOW - timedelta(hours=2)


Change = Callable[[Ready], object]

CASES: dict[str, tuple[Change, str]] = {
    "another digest": (_other_image, "other-digest"),
    "another repository": (lambda scene: scene.keep_with(repository="team/other"), "other-repository"),
    "another registry": (lambda scene: scene.keep_with(registry="other.example"), "wrong-registry"),
    "another config": (lambda scene: scene.keep_with(config=Digest.of(b"x")), "other-config"),
    "S11 another entrypoint": (
        lambda scene: scene.keep_with(config_facts=ConfigFacts(entrypoint=("/evil",))),
        "other-config-facts",
    ),
    "another user": (lambda scene: scene.keep_with(user=ResolvedUser(uid=0, gid=0)), "other-user"),
    "another platform": (lambda scene: scene.keep_with(platform="linux/s390x"), "other-platform"),
    "other layers": (lambda scene: scene.keep_with(diff_ids=scene.app.built.diff_ids[:1]), "other-layers"),
    "layers in another order": (
        lambda scene: scene.keep_with(diff_ids=scene.app.built.diff_ids[::-1]),
        "other-layers",
    ),
    "another chain": (lambda scene: scene.keep_with(chain_id=Digest.of(b"x")), "other-chain"),
    "another root index": (lambda scene: scene.keep_with(root_index=Digest.of(b"x")), "other-root-index"),
    "a format that nobody here writes": (lambda scene: scene.keep_with(format=99), "unknown-format"),
    "expired": (_eight_days_later, "expired"),
    "expired by its own word": (lambda scene: scene.keep_with(expires=NOW - timedelta(seconds=1)), "expired"),
    "for a year": (lambda scene: scene.keep_with(expires=NOW + 365 * DAY), "lifetime-too-long"),
    "not yet issued": (
        lambda scene: scene.keep_with(issued=NOW + timedelta(hours=1), expires=NOW + DAY),
        "issued-in-future",
    ),
    "by an unknown key": (_unknown_key, "unknown-key"),
    "by an officer's key": (_officer_key, "wrong-role"),
    "without approvals": (lambda scene: scene.keep_with(approvals=()), "approvals-missing"),
    "S12 an approval by the registry's own key": (
        lambda scene: scene.keep_with(approvals=(_approval_by(scene, scene.registry.ring.registry),)),
        "approval-wrong-role",
    ),
    "an approval by a team for a level that is not its own": (
        lambda scene: scene.keep_with(approvals=(_approval_by(scene, scene.registry.ring.team, level="base"),)),
        "approval-wrong-level",
    ),
    "an approval by nobody we know": (
        lambda scene: scene.keep_with(approvals=(_approval_by(scene, PrivateKey.generate()),)),
        "approval-unknown-key",
    ),
    "S8 a base that one officer approved where two must": (_base_of_one_officer, "parent-not-approved"),
    "S8 on no approved base": (
        lambda scene: scene.keep_with(approvals=(_approval_by(scene, scene.registry.ring.team),)),
        "no-approved-parent",
    ),
    "under a policy that nobody signed": (
        lambda scene: scene.keep_with(policy=scene.registry.seal(scene.registry.policy.statement)),
        "policy-wrong-role",
    ),
    "under another policy than it names": (
        lambda scene: scene.keep_with(policy_digest=Digest.of(b"x")),
        "policy-mismatch",
    ),
    "under a policy below the floor": (_floor, "policy-below-floor"),
    "denied": (lambda scene: scene.keep_with(state="denied"), "state-not-startable"),
    "a manifest that is revoked": (lambda scene: _revoke(scene, digests=(scene.app.built.digest,)), "revoked-digest"),
    "a layer that is revoked": (lambda scene: _revoke(scene, layers=scene.app.built.diff_ids[:1]), "revoked-layer"),
    "a component that is revoked": (
        lambda scene: _revoke(scene, components=("pkg:deb/debian/openssl@3.5.0-1",)),
        "revoked-component",
    ),
    "a team's key that is revoked": (
        lambda scene: _revoke(scene, keys=(scene.registry.ring.team.public.id,)),
        "approval-key-revoked",
    ),
    "a clock that was set back": (_clock_back, "clock-set-back"),
    "a damaged clearance": (lambda scene: scene.keep(b"{}"), "malformed"),
}


@pytest.mark.parametrize("name", CASES)
def test_a_start_is_refused_for_the_one_thing_that_is_wrong(scene: Ready, name: str) -> None:
    change, code = CASES[name]
    scene.must_start()
    change(scene)
    refused = scene.start()
    assert isinstance(refused, Refused), refused
    assert refused.code == code, refused
    assert refused.subject
    assert refused.detail


# What the policy does not let a start ask for


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        (replace(WISH, network="host"), "network-not-allowed"),
        (replace(WISH, memory=2 * 1024**3), "memory-over-cap"),
        (replace(WISH, capabilities=("CAP_SYS_ADMIN",)), "capability-not-allowed"),
        (replace(WISH, user="0"), "user-override"),
        (replace(WISH, arguments=("sh",)), "command-override"),
        (replace(WISH, env=("LD_PRELOAD=/srv/evil.so",)), "command-override"),
        (replace(WISH, mounts=(Bind(source="/etc", target="/host"),)), "mount-not-allowed"),
        (replace(WISH, mounts=(Bind(source="/srv/a", target="/a", read_only=False),)), "writable-mount-not-allowed"),
    ],
)
def test_a_request_beyond_the_start_policy_is_refused(scene: Ready, wish: Wish, code: str) -> None:
    scene.must_start()
    refused = scene.start(wish=wish)
    assert isinstance(refused, Refused)
    assert refused.code == code


def test_a_request_within_the_start_policy_is_granted(scene: Ready) -> None:
    wish = replace(
        WISH,
        env=("COLOUR=red",),
        capabilities=("CAP_CHOWN",),
        memory=2**27,
        writable=True,
        mounts=(Bind(source="/srv/a", target="/a"),),
    )
    assert isinstance(scene.start(wish=wish), Proven)


def test_several_refusals_are_all_named(scene: Ready) -> None:
    refused = scene.start(wish=replace(WISH, network="host", user="0", arguments=("sh",)))
    assert isinstance(refused, Refused)
    assert {refused.code, *refused.detail.rpartition(": ")[2].split(", ")} == {
        "command-override",
        "network-not-allowed",
        "user-override",
    }


# Offline


def test_what_was_never_pulled_is_not_started(scene: Ready) -> None:
    for reference in (
        replace(scene.app.reference, tag="2.0"),
        replace(scene.app.reference, repository="team/other"),
        replace(scene.app.pinned, digest=Digest.of(b"x")),
    ):
        refused = scene.start(reference)
        assert isinstance(refused, Refused)
        assert refused.code == "not-pulled"


def test_a_host_goes_on_in_the_grace_and_says_so(scene: Ready) -> None:
    late = NOW + 3 * DAY
    proven = scene.start(now=late)
    assert isinstance(proven, Proven), proven
    assert any("revocation list" in note for note in proven.notes)
    refused = scene.start(now=NOW + 9 * DAY)
    assert isinstance(refused, Refused)
    assert refused.code == "revocation-list-expired"


START = """
import sys
from pathlib import Path
from ocispec.platform import Platform
from ocispec.reference import Reference
from policy.refusal import Refused
from runtime.admission import admit
from runtime.host import Host
from runtime.model import ContainerId
from runtime.store import Store
from runtime.wish import Wish
from tests.support.trust import NOW

for text in sys.argv[2:]:
    answer = admit(
        Reference.parse(text), Wish(name=ContainerId("app")), host=Host.open(Store.open(Path(sys.argv[1]))), now=NOW,
        platform=Platform.parse("linux/amd64"),
    )
    print(answer.code if isinstance(answer, Refused) else answer.request.shown.digest)
"""


def test_a_start_needs_no_network_and_asks_for_none(scene: Ready, tmp_path: Path) -> None:
    """In an empty network namespace, with strace showing no socket but a Unix one."""
    trace = tmp_path / "trace"
    missing = f"{scene.app.reference}x"
    command = [need("unshare"), "-n", need("strace"), "-f", "-e", "trace=%network", "-o", str(trace)]
    command += [sys.executable, "-c", START, str(scene.host.store.path), str(scene.app.reference), missing]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, cwd=Path.cwd())
    assert done.stdout.split() == [str(scene.app.built.digest), "not-pulled"], done.stderr
    calls = [line for line in trace.read_text().splitlines() if "connect(" in line or "socket(" in line]
    assert [line for line in calls if "AF_UNIX" not in line] == []


def test_a_registry_that_is_gone_stops_no_start(scene: Ready) -> None:
    scene.registry.fake.hook(lambda request: Answer(503))
    asked = len(scene.registry.fake.requests)
    scene.must_start()
    assert len(scene.registry.fake.requests) == asked


def test_two_starts_at_once_do_not_disturb_each_other(scene: Ready) -> None:
    with scene.host.store.shared():
        scene.must_start()
    names = [ContainerId("one"), ContainerId("two")]
    first = admit(scene.app.pinned, replace(WISH, name=names[0]), host=scene.host, now=NOW, platform=AMD64)
    second = admit(scene.app.pinned, replace(WISH, name=names[1]), host=scene.host, now=NOW, platform=AMD64)
    assert isinstance(first, Cleared)
    assert isinstance(second, Cleared)
    with first, second:
        assert not {first.request.root.index_fd} & {second.request.root.index_fd}


def test_a_store_that_cannot_be_read_is_a_refusal(scene: Ready) -> None:
    scene.must_start()
    record = scene.host.store.path / "images" / scene.record.key / "record"
    right = record.read_bytes()
    replace_file(record, b"nonsense")
    refused = scene.start()
    assert isinstance(refused, Refused)
    assert (refused.code, refused.subject) == ("store-unusable", str(scene.app.reference))
    assert "damaged" in refused.detail
    replace_file(record, right)
    (scene.host.store.host / "list").chmod(0o666)
    refused = scene.start()
    assert isinstance(refused, Refused)
    assert refused.code == "store-unusable"


def test_a_damaged_record_of_another_repository_stops_nobody(scene: Ready) -> None:
    other = scene.pull(scene.registry.clear(app_image(base_image(), "other"), "team/other"))
    replace_file(scene.host.store.path / "images" / other.key / "record", b"nonsense")
    scene.must_start()


def test_a_clearance_that_is_lost_is_a_refusal(scene: Ready) -> None:
    (scene.host.store.path / "images" / scene.record.key / "clearance").unlink()
    refused = scene.start()
    assert isinstance(refused, Refused)
    assert (refused.code, refused.subject) == ("no-clearance", scene.record.name)
    scene.host.store.index(scene.record.root_index).unlink()
    refused = scene.start()
    assert isinstance(refused, Refused)
    assert refused.code == "root-index-unusable"
