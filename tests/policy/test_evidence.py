"""Gathering: what is believed, what is kept, and that equal facts make equal evidence."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from ocispec.digest import Digest
from policy import seal as sealing
from policy.codec import decode_evidence, encode_evidence
from policy.errors import PolicyError
from policy.evaluate import evaluate
from policy.evidence import MAX_CHANGES, Scan, gather
from policy.load import default_document, load
from policy.model import Evidence, ImageFacts, State
from policy.private_key import PrivateKey
from policy.statements import Statement, Withdrawal
from scanner.model import Inventory, OperatingSystem, Report
from tests.support.evidence import advisory, change, component, data, unknown
from tests.support.trust import (
    DAY,
    NOW,
    Keyring,
    image_approval,
    image_facts,
    keyring,
    layer_approval,
    payload_of,
    revocation_list,
    waiver,
)

RING = keyring()
APP, BASE = image_facts(), image_facts(layers=("base layer",), name="base")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """A StatementSource in memory."""

    statements: tuple[bytes, ...] = ()
    revocations: bytes | None = None

    def envelopes(self, image: ImageFacts) -> Iterable[bytes]:
        """See StatementSource."""
        return self.statements

    def revocation_list(self) -> bytes | None:
        """See StatementSource."""
        return self.revocations


def seal(statement: Statement, *keys: PrivateKey) -> bytes:
    """A signed statement."""
    return sealing.seal(statement, *keys)


LISTED = seal(revocation_list(), RING.alice, RING.bob)
BASE_BY_ALICE = seal(image_approval(BASE, "base"), RING.alice)
BASE_BY_BOB = seal(image_approval(BASE, "base"), RING.bob)
APP_BY_TEAM = seal(image_approval(APP), RING.team)


def report(**members: object) -> Report:
    """A scan that found two components, and nothing against them."""
    inventory = Inventory(
        operating_system=OperatingSystem(id="debian", version_id="13"),
        components=(component("openssl", "3.5.0", kind="deb", layer=0), component()),
        unknowns=(),
    )
    plain = Report(inventory=inventory, findings=(), unknowns=(), data=data(), scanner_version="1")
    return replace(plain, **members)  # type: ignore[arg-type]  # members by name


def collect(
    *statements: bytes,
    image: ImageFacts = APP,
    listed: bytes | None = LISTED,
    scan: Scan | None = None,
    now: datetime = NOW,
    ring: Keyring = RING,
) -> Evidence:
    """The evidence from these envelopes."""
    source = Folder(statements=statements, revocations=listed)
    return gather(image, statements=source, trust=ring.trust, scan=scan or Scan(report=report()), now=now)


def test_what_is_gathered_decides() -> None:
    found = collect(BASE_BY_ALICE, BASE_BY_BOB, APP_BY_TEAM)
    decision = evaluate(load(default_document()), found)
    assert (decision.state, decision.parent) == (State.CLEARED, BASE.manifest)
    # One statement in two envelopes is one, with both signers.
    assert [len(signed.signers) for signed in found.image_approvals if signed.statement.level == "base"] == [2]


def test_the_order_and_repetition_of_statements_change_nothing() -> None:
    one = collect(BASE_BY_ALICE, BASE_BY_BOB, APP_BY_TEAM)
    other = collect(APP_BY_TEAM, BASE_BY_BOB, BASE_BY_ALICE, BASE_BY_ALICE)
    assert encode_evidence(one) == encode_evidence(other)


def test_what_is_about_other_images_is_left_out() -> None:
    other = image_facts(layers=("other", "layers"), name="other")
    noise = (
        seal(image_approval(other), RING.team),
        seal(layer_approval(other.layers[1]), RING.team),
        seal(replace(waiver(), scope="elsewhere.example/**"), RING.alice),
    )
    assert encode_evidence(collect(BASE_BY_ALICE)) == encode_evidence(collect(BASE_BY_ALICE, *noise))


def test_layer_approvals_and_waivers_of_this_image_are_kept() -> None:
    found = collect(seal(layer_approval(APP.layers[1]), RING.team), seal(waiver(), RING.alice))
    assert len(found.layer_approvals) == len(found.waivers) == 1


def test_what_is_not_believed_is_listed_with_its_reason() -> None:
    stranger = PrivateKey.generate()
    expired = replace(image_approval(APP), issued=NOW - 2 * DAY, expires=NOW - DAY)
    found = collect(seal(image_approval(APP), stranger), seal(expired, RING.team), b"no envelope")
    assert found.image_approvals == ()
    assert sorted(rejected.code for rejected in found.rejected) == ["expired", "malformed", "unknown-key"]


def test_a_withdrawn_approval_is_listed_as_that_and_its_withdrawal_goes_along() -> None:
    withdrawal = seal(
        Withdrawal(statement=Digest.of(payload_of(APP_BY_TEAM)), reason="found wrong", issued=NOW), RING.alice
    )
    found = collect(APP_BY_TEAM, withdrawal)
    assert found.image_approvals == ()
    assert [rejected.code for rejected in found.rejected] == ["withdrawn"]
    assert len(found.withdrawals) == 1


def test_a_forged_revocation_list_is_no_list() -> None:
    forged = seal(revocation_list(), RING.registry)
    found = collect(listed=forged)
    assert found.revocations is None
    assert [rejected.code for rejected in found.rejected] == ["wrong-role"]
    assert collect(listed=None).revocations is None


def test_a_scan_that_failed_is_an_error_even_if_it_says_nothing() -> None:
    found = collect(scan=Scan(report=None))
    assert found.errors == ("there is no report",)
    assert (found.components, found.data, found.scanner_version) == ((), (), "")
    assert collect(scan=Scan(report=None, errors=("timed out",))).errors == ("timed out",)
    assert not evaluate(load(default_document()), found).allowed


def test_what_a_scan_found_is_ordered_and_told_once() -> None:
    one, other = unknown("a"), unknown("b")
    inventory = replace(report().inventory, unknowns=(other,))
    found = collect(scan=Scan(report=report(inventory=inventory, unknowns=(one, other), findings=(advisory(),) * 2)))
    assert found.unknowns == (one, other)
    assert found.findings == (advisory(),)


def test_more_changes_than_evidence_holds_are_cut_and_that_is_said() -> None:
    many = [change(f"usr/{number}") for number in range(MAX_CHANGES + 1)]
    found = collect(scan=Scan(report=report(), changes=many))
    assert (len(found.changes), found.changes_truncated) == (MAX_CHANGES, True)
    assert not collect(scan=Scan(report=report(), changes=many[:-1])).changes_truncated
    assert collect(scan=Scan(report=report(), changes_truncated=True)).changes_truncated


def test_names_that_are_no_unicode_are_spelled_in_escapes() -> None:
    path = b"app/\xff".decode("utf-8", "surrogateescape")
    found = collect(BASE_BY_ALICE, scan=Scan(report=report(), changes=[change(path)]))
    assert found.changes[0].path == "app/\\udcff"
    assert decode_evidence(encode_evidence(found), RING.trust.verifier(NOW)) == found


def test_times_are_cut_to_whole_seconds_and_must_have_a_zone() -> None:
    fine = NOW + timedelta(milliseconds=5)
    found = collect(image=replace(APP, first_seen=fine), now=fine)
    assert (found.now, found.image.first_seen) == (NOW, NOW)
    with pytest.raises(PolicyError, match=r"now: .* has no time zone"):
        collect(now=NOW.replace(tzinfo=None))
    with pytest.raises(PolicyError, match=r"first_seen: .* has no time zone"):
        collect(image=replace(APP, first_seen=NOW.replace(tzinfo=None)))
