"""podman's files: the right keys, and nothing but what they sign."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest
import yaml

from policy.errors import PolicyError
from policy.export import podman
from policy.keys import PublicKey
from policy.private_key import PrivateKey
from policy.statements import Role
from policy.trust import Trust
from tests.support.trust import DAY, NOW, REGISTRY, keyring, trusted

RING = keyring()


def with_keys(*keys: PrivateKey, begin_in_days: int = -1) -> Trust:
    entries = tuple(trusted(key, Role.REGISTRY, REGISTRY, begin=NOW + begin_in_days * DAY) for key in keys)
    return Trust.parse(RING.signed_root(replace(RING.root, keys=(*RING.root.keys, *entries))), NOW)


def requirement(trust: Trust) -> dict[str, object]:
    document = json.loads(podman(trust, REGISTRY, NOW)[0].text)
    assert document["default"] == [{"type": "reject"}]
    assert list(document["transports"]) == ["docker"]
    (found,) = document["transports"]["docker"][REGISTRY]
    assert isinstance(found, dict)
    return found


def test_one_key_stands_in_the_form_that_older_podmans_read() -> None:
    found = requirement(RING.trust)
    assert found["type"] == "sigstoreSigned"
    assert found["signedIdentity"] == {"type": "matchRepoDigestOrExact"}
    data = found["keyData"]
    assert isinstance(data, str)
    assert PublicKey.from_pem(base64.b64decode(data)) == RING.registry.public


def test_several_keys_are_all_listed_while_one_replaces_another() -> None:
    second = PrivateKey.generate()
    data = requirement(with_keys(second))["keyDatas"]
    assert isinstance(data, list)
    found = {PublicKey.from_pem(base64.b64decode(pem)).id for pem in data}
    assert found == {RING.registry.public.id, second.public.id}


def test_keys_that_are_revoked_or_not_yet_valid_are_left_out() -> None:
    second = PrivateKey.generate()
    assert "keyData" in requirement(with_keys(second, begin_in_days=1))
    assert "keyData" in requirement(with_keys(second).revoking([second.public.id]))


def test_the_registry_file_switches_attachments_on_for_that_host_and_port_only() -> None:
    file = podman(RING.trust, REGISTRY, NOW)[1]
    assert file.name == "registries.d/registry.example_5000.yaml"
    assert yaml.safe_load(file.text) == {"docker": {REGISTRY: {"use-sigstore-attachments": True}}}


def test_a_registry_without_a_key_gets_no_files() -> None:
    with pytest.raises(PolicyError, match="other"):
        podman(RING.trust, "other.example", NOW)
    with pytest.raises(PolicyError, match="no valid key"):
        podman(RING.trust.revoking([RING.registry.public.id]), REGISTRY, NOW)
