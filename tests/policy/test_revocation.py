"""The revocation list and its date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from policy.errors import TrustError
from policy.revocation import MAX_LIST_LIFETIME, CurrentList, check_fresh, matches, verify_list
from policy.seal import seal
from policy.statements import ListDate
from tests.support.trust import DAY, NOW, current_list, digest, keyring, list_date, revocation_list

RING = keyring()
LISTED = seal(revocation_list(), RING.alice, RING.bob)
DATE = list_date(LISTED, 7, issued=NOW)


def verify(date: ListDate = DATE, *, listed: bytes = LISTED, now: datetime = NOW) -> CurrentList:
    return verify_list(listed, seal(date, RING.registry), RING.trust, now)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(TrustError) as refused:
        call()
    return refused.value.code


def test_a_list_counts_for_its_day_and_then_for_the_grace() -> None:
    current = verify()
    assert current.list.statement == revocation_list()
    assert current.ends == NOW + 8 * DAY
    assert not current.stale(NOW + DAY - timedelta(seconds=1))
    assert current.stale(NOW + DAY)
    check_fresh(current, NOW + 8 * DAY - timedelta(seconds=1))
    assert code(lambda: check_fresh(current, NOW + 8 * DAY)) == "revocation-list-expired"


def test_a_list_read_in_the_grace_counts_and_after_it_no_longer() -> None:
    assert verify(now=NOW + 8 * DAY - timedelta(seconds=1)).stale(NOW + 2 * DAY)
    assert code(lambda: verify(now=NOW + 8 * DAY)) == "revocation-list-expired"


def test_a_fresh_host_starts_nothing_before_its_first_list() -> None:
    assert code(lambda: check_fresh(None, NOW)) == "no-revocation-list"


def test_a_list_that_the_registry_signed_itself_is_refused_s12() -> None:
    assert code(lambda: verify(listed=seal(revocation_list(), RING.registry))) == "wrong-role"


def test_a_list_that_one_officer_signed_is_refused() -> None:
    assert code(lambda: verify(listed=seal(revocation_list(), RING.alice))) == "too-few-signers"


@pytest.mark.parametrize("date", [replace(DATE, list=digest("other list")), replace(DATE, number=8)])
def test_a_date_of_another_list_is_refused(date: ListDate) -> None:
    assert code(lambda: verify(date)) == "list-date-mismatch"


def test_an_officer_does_not_date_and_a_stranger_neither() -> None:
    assert code(lambda: verify_list(LISTED, seal(DATE, RING.alice), RING.trust, NOW)) == "wrong-role"
    assert code(lambda: verify_list(LISTED, seal(DATE, keyring().registry), RING.trust, NOW)) == "unknown-key"


def test_a_registry_key_that_the_list_revokes_cannot_date_it() -> None:
    listed = seal(revocation_list(keys=(RING.registry.public.id,)), RING.alice, RING.bob)
    assert code(lambda: verify(list_date(listed, 7), listed=listed)) == "key-revoked"


def test_officers_may_revoke_one_of_their_own_in_the_list_that_this_one_signed() -> None:
    listed = seal(revocation_list(keys=(RING.alice.public.id,)), RING.alice, RING.bob)
    assert verify(list_date(listed, 7), listed=listed).list.statement.keys == (RING.alice.public.id,)


def test_a_stolen_registry_key_cannot_keep_a_list_for_ever_s12() -> None:
    longest = replace(DATE, expires=NOW + MAX_LIST_LIFETIME)
    assert verify(longest).ends == NOW + 14 * DAY
    assert code(lambda: verify(replace(DATE, expires=NOW + MAX_LIST_LIFETIME + timedelta(seconds=1)))) == (
        "lifetime-too-long"
    )


ALL = revocation_list(
    digests=(digest("manifest"),),
    layers=(digest("layer"),),
    components=("pkg:deb/debian/xz-utils@5.6.*", "pkg:pypi/evil@**"),
    keys=("sha256:" + "0" * 64,),
)


def test_what_is_not_listed_matches_nothing() -> None:
    found = matches(
        ALL,
        digests=[digest("layer")],
        layers=[digest("manifest")],
        components=["pkg:deb/debian/xz-utils@5.4.1"],
        keys=["sha256:" + "1" * 64],
    )
    assert found is None
    assert matches(revocation_list(), digests=[digest("manifest")], components=["pkg:pypi/evil@1"]) is None


def test_each_kind_of_entry_has_its_code_and_names_the_object() -> None:
    layer = matches(ALL, layers=[digest("fine"), digest("layer")])
    manifest = matches(ALL, digests=[digest("manifest")], layers=[digest("layer")])
    key = matches(ALL, keys=["sha256:" + "0" * 64])
    component = matches(ALL, components=["pkg:pypi/fine@1", "pkg:pypi/evil@1"])
    assert layer is not None
    assert manifest is not None
    assert key is not None
    assert component is not None
    assert (layer.code, layer.subject) == ("revoked-layer", str(digest("layer")))
    assert (manifest.code, manifest.subject) == ("revoked-digest", str(digest("manifest")))
    assert key.code == "revoked-key"
    assert (component.code, component.subject) == ("revoked-component", "pkg:pypi/evil@1")
    assert str(component) == "revoked-component: pkg:pypi/evil@1: on revocation list 7: found hostile"


@pytest.mark.parametrize(
    "purl", ["pkg:deb/debian/xz-utils@5.6.0-1", "pkg:deb/debian/xz-utils@5.6.0-1?arch=amd64&distro=debian-13"]
)
def test_a_component_is_met_with_and_without_its_qualifiers(purl: str) -> None:
    assert matches(ALL, components=[purl]) is not None


def test_the_builder_of_this_folder_makes_a_list_that_counts() -> None:
    assert check_fresh(current_list(RING), NOW).list.statement.number == 7
