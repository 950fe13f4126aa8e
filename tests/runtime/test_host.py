"""What a host believes, and that nobody takes it back: enrolment, newer statements, memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from ocispec.access import Credentials
from ocispec.digest import Digest
from ocispec.errors import RemoteError
from policy import dsse
from policy.errors import TrustError
from policy.refusal import Refused
from policy.seal import seal
from policy.statements import PolicyFloor
from runtime.errors import HostError, StoreError
from runtime.host import Host, RegistryAccount
from runtime.ownfiles import replace_file
from runtime.store import Store
from tests.support.cleared import ClearedRegistry
from tests.support.fakeregistry import Answer
from tests.support.trust import DAY, NOW, keyring, list_date, payload_of, revocation_list


@pytest.fixture
def registry() -> Iterator[ClearedRegistry]:
    with ClearedRegistry() as running:
        yield running


@pytest.fixture
def host(registry: ClearedRegistry, tmp_path: Path) -> Host:
    enrolled = registry.enrol(tmp_path / "store")
    assert enrolled.sync(NOW).fine
    return enrolled


def _codes(refused: tuple[Refused, ...]) -> list[str]:
    return [each.code for each in refused]


# Enrolment


def test_a_host_is_enrolled_once_and_again_with_the_same(registry: ClearedRegistry, tmp_path: Path) -> None:
    with pytest.raises(HostError, match="not enrolled"):
        Host.open(Store.open(tmp_path / "store"))
    registry.enrol(tmp_path / "store")
    host = registry.enrol(tmp_path / "store")
    assert Host.open(host.store).trust(NOW).root.version == 1
    assert [account.registry for account in host.accounts()] == [registry.fake.host]


def test_another_trust_does_not_take_over_an_enrolled_host(registry: ClearedRegistry, host: Host) -> None:
    account = RegistryAccount(registry=registry.fake.host)
    stranger = keyring(registry=registry.fake.host)
    for version in (1, 2):
        root = replace(stranger.root, version=version)
        with pytest.raises(TrustError) as caught:
            Host.enrol(host.store, stranger.signed_root(root), account, NOW)
        assert caught.value.code in {"same-number-other-content", "too-few-roots"}
    assert host.trust(NOW).digest == registry.ring.trust.digest


def test_a_registry_that_trust_does_not_list_is_refused(registry: ClearedRegistry, tmp_path: Path) -> None:
    account = RegistryAccount(registry="evil.example")
    with pytest.raises(TrustError, match=r"trust\.json lists") as caught:
        Host.enrol(Store.open(tmp_path / "store"), registry.ring.envelope, account, NOW)
    assert caught.value.code == "unknown-registry"
    with pytest.raises(HostError, match="not enrolled"):
        Host.open(Store.open(tmp_path / "store"))


def test_an_account_is_kept_to_ourselves(registry: ClearedRegistry, host: Host) -> None:
    path = host.store.host / "registries" / registry.fake.host
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o622)
    with pytest.raises(StoreError, match="nobody else who may write"):
        host.accounts()


def test_a_certificate_authority_goes_with_the_account(registry: ClearedRegistry, host: Host) -> None:
    account = RegistryAccount(registry=registry.fake.host, credentials=None, ca="-----BEGIN CERTIFICATE-----\n")
    Host.enrol(host.store, registry.ring.envelope, account, NOW)
    assert host.accounts() == (account,)
    with pytest.raises(Exception, match="CA file"):
        host.remote(registry.fake.host)


def test_only_registries_that_are_known_are_asked(host: Host) -> None:
    with pytest.raises(HostError, match="not enrolled with it"):
        host.remote("other.example")


# What is newer


def test_a_newer_list_trust_and_floor_are_taken(registry: ClearedRegistry, host: Host) -> None:
    registry.revoke(revocation_list(8))
    root = replace(registry.ring.root, version=2)
    registry.serve_trust(registry.ring.signed_root(root))
    floor = PolicyFloor(name="default", version=2, issued=NOW - DAY)
    sealed = seal(floor, registry.ring.alice, registry.ring.bob)
    registry.fake.documents["/api/v1/floors"] = json.dumps({"floors": [json.loads(sealed)]}).encode()
    synced = host.sync(NOW)
    assert synced.fine
    assert synced.news == ("trust.json of version 2", "revocation list 8", "floor of policy default: version 2")
    view = host.view(NOW)
    assert view.trust.root.version == 2
    assert view.revocations is not None
    assert view.revocations.list.statement.number == 8
    assert view.state.floor("default") == 2
    assert host.sync(NOW).news == ()


def test_a_host_before_its_first_list_has_none(registry: ClearedRegistry, tmp_path: Path) -> None:
    del registry.fake.documents["/api/v1/revocations"]
    host = registry.enrol(tmp_path / "fresh")
    assert host.sync(NOW).fine
    assert host.view(NOW).revocations is None


def test_a_later_date_of_the_same_list_is_taken_and_an_earlier_one_is_not(
    registry: ClearedRegistry, host: Host
) -> None:
    registry.revoke(revocation_list(), date=NOW - timedelta(minutes=10))
    host.sync(NOW)
    registry.revoke(revocation_list(), date=NOW - timedelta(hours=20))
    assert host.sync(NOW).fine
    view = host.view(NOW)
    assert view.revocations is not None
    assert view.revocations.date.statement.issued == NOW - timedelta(minutes=10)


def test_s12_a_hostile_registry_cannot_take_the_list_back_or_change_it(registry: ClearedRegistry, host: Host) -> None:
    ring = registry.ring
    before = host.view(NOW)
    offers = {
        "an older list": (revocation_list(6), (ring.alice, ring.bob), "number-went-back"),
        "a number that bricks": (revocation_list(2**53 - 1), (ring.alice, ring.bob), "number-jump"),
        "other content, other number, its own key": (revocation_list(8), (ring.registry,), "wrong-role"),
        "one officer's": (revocation_list(8), (ring.alice,), "too-few-signers"),
        "other content under the number": (
            revocation_list(7, keys=("sha256:" + "0" * 64,)),
            (ring.alice, ring.bob),
            "same-number-other-content",
        ),
    }
    for name, (revocations, keys, code) in offers.items():
        listed = seal(revocations, *keys)
        registry.serve_list(listed, seal(list_date(listed, revocations.number), ring.registry))
        assert _codes(host.sync(NOW).refused) == [code], name
        after = host.view(NOW)
        assert (after.revocations, after.state) == (before.revocations, before.state), name
    registry.revoke(revocation_list(8))
    assert host.sync(NOW).news == ("revocation list 8",), "the control: the next number, signed by two officers"


def test_s12_a_number_of_2_63_is_not_even_read(registry: ClearedRegistry, host: Host) -> None:
    listed = seal(revocation_list(8), registry.ring.alice, registry.ring.bob)
    date = payload_of(registry.seal(list_date(listed, 8)))
    bricked = date.replace(b'"number":8', b'"number":9223372036854775808')
    registry.serve_list(listed, dsse.sign(bricked, [registry.ring.registry]))
    assert _codes(host.sync(NOW).refused) == ["malformed"]
    registry.serve_list(listed, dsse.sign(date, [registry.ring.registry]))
    assert host.sync(NOW).fine, "the control: the same date with the right number"


def test_s12_a_withheld_list_runs_out(registry: ClearedRegistry, host: Host) -> None:
    assert host.view(NOW + 7 * DAY).revocations is not None, "the control: a day, and seven of grace"
    with pytest.raises(TrustError) as caught:
        host.view(NOW + 9 * DAY)
    assert caught.value.code == "revocation-list-expired"


def test_a_registry_cannot_date_a_list_for_longer_than_a_week(registry: ClearedRegistry, host: Host) -> None:
    listed = seal(revocation_list(8), registry.ring.alice, registry.ring.bob)
    date = replace(list_date(listed, 8), expires=NOW + 30 * DAY)
    registry.serve_list(listed, seal(date, registry.ring.registry))
    assert _codes(host.sync(NOW).refused) == ["lifetime-too-long"]


def test_a_trust_that_its_old_roots_did_not_sign_is_refused(registry: ClearedRegistry, host: Host) -> None:
    stranger = keyring(registry=registry.fake.host)
    registry.serve_trust(stranger.signed_root(replace(stranger.root, version=2)))
    assert _codes(host.sync(NOW).refused) == ["too-few-roots"]
    assert host.trust(NOW).digest == registry.ring.trust.digest


def test_a_floor_that_officers_did_not_set_is_refused(registry: ClearedRegistry, host: Host) -> None:
    sealed = registry.seal(PolicyFloor(name="default", version=900, issued=NOW - DAY))
    registry.fake.documents["/api/v1/floors"] = json.dumps({"floors": [json.loads(sealed)]}).encode()
    assert _codes(host.sync(NOW).refused) == ["wrong-role"]
    assert host.state().floor("default") == 0


@pytest.mark.parametrize("document", [b"[]", b"{", b'{"list":1,"date":2}', b'{"list":{},"date":{}}'])
def test_a_registry_that_talks_nonsense_changes_nothing(registry: ClearedRegistry, host: Host, document: bytes) -> None:
    before = host.view(NOW)
    registry.fake.documents["/api/v1/revocations"] = document
    synced = host.sync(NOW)
    assert _codes(synced.refused) == ["malformed"]
    assert host.view(NOW) == before


def test_a_registry_that_is_silent_is_named_and_nothing_is_lost(registry: ClearedRegistry, host: Host) -> None:
    registry.fake.hook(lambda request: Answer(503))
    synced = host.sync(NOW, access=registry.access)
    assert not synced.fine
    assert "503" in synced.silent[0]
    assert host.view(NOW).revocations is not None


# Memory


def test_a_memory_that_is_lost_or_damaged_is_not_an_empty_one(registry: ClearedRegistry, host: Host) -> None:
    path = host.store.host / "state"
    raw = path.read_bytes()
    for content in (b"{}", raw[:-2], b""):
        replace_file(path, content)
        with pytest.raises(TrustError) as caught:
            host.view(NOW)
        assert caught.value.code == "host-state"
    path.unlink()
    with pytest.raises(TrustError, match="it is missing, and this host is enrolled"):
        host.view(NOW)


def test_a_trust_file_that_was_put_back_is_noticed(registry: ClearedRegistry, host: Host) -> None:
    registry.serve_trust(registry.ring.signed_root(replace(registry.ring.root, version=2)))
    host.sync(NOW)
    replace_file(host.store.host / "trust.json", registry.ring.envelope)
    with pytest.raises(TrustError) as caught:
        host.view(NOW)
    assert caught.value.code == "number-went-back"


def test_nothing_is_remembered_of_what_was_refused(host: Host) -> None:
    before = host.state()
    refused = Refused(code="x", subject="y", detail="z")
    assert host.remember(lambda state: refused) is refused
    assert host.state() == before


# Asking now and then


def test_registries_are_asked_when_it_is_time(registry: ClearedRegistry, host: Host) -> None:
    asked = len(registry.fake.requests)
    assert host.sync_if_due(NOW + timedelta(seconds=9), 10) is None
    assert len(registry.fake.requests) == asked
    synced = host.sync_if_due(NOW + timedelta(seconds=10), 10)
    assert synced is not None
    assert host.synced() == NOW + timedelta(seconds=10)
    assert host.sync_if_due(NOW + timedelta(seconds=11), 10) is None
    assert host.sync_if_due(NOW, 10) is not None, "a clock that went back is no reason never to ask again"


def test_one_process_asks_at_a_time(registry: ClearedRegistry, host: Host) -> None:
    inside: list[object] = []
    registry.fake.hook(lambda request: inside.append(host.sync_if_due(NOW + DAY, 1)))
    assert host.sync_if_due(NOW + DAY, 1) is not None
    assert set(inside) == {None}


def test_what_the_registry_asks_for_is_given(registry: ClearedRegistry, host: Host) -> None:
    account = RegistryAccount(
        registry=registry.fake.host, credentials=Credentials(name="host-1", secret="wrong"), plain_http=True
    )
    Host.enrol(host.store, registry.ring.envelope, account, NOW)
    synced = host.sync(NOW, access=registry.access)
    assert "401" in synced.silent[0]
    with host.remote(registry.fake.host) as remote, pytest.raises(RemoteError, match="401"):
        remote.manifest("app", Digest.of(b""))
