"""Evidence and Decisions as canonical JSON: one spelling, read strictly, statements proven again."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from policy import canonical
from policy.clearance import Verified, verify_clearance
from policy.codec import (
    Verify,
    decode_decision,
    decode_evidence,
    decode_start_evidence,
    encode_decision,
    encode_evidence,
    encode_start_evidence,
    evidence_digest,
    to_json,
)
from policy.errors import PolicyError, TrustError
from policy.evaluate import evaluate
from policy.load import default_document, load
from policy.model import Evidence, Signed, StartRequest
from policy.start import start_evidence
from policy.statements import Statement
from tests.support.evidence import (
    NOW,
    advisory,
    case,
    change,
    digest,
    end_of_life,
    image,
    statements_of,
    unknown,
    waive,
    withdraw,
)
from tests.support.trust import keyring, scene


def full() -> Evidence:
    """Evidence with something in each of its members."""
    the = case(by_layer=True)
    exception = waive()
    return the.evidence(
        findings=(advisory(exploited=True), end_of_life()),
        unknowns=(unknown("unreadable-record"),),
        changes=(change("etc/ä 日本"),),
        waivers=(exception,),
        withdrawals=(withdraw(exception),),
        errors=("so",),
    )


def believing(found: Evidence) -> Verify:
    """A verifier that believes just the statements in `found`."""
    known = {signed.envelope: signed for signed in statements_of(found)}

    def verify(envelope: bytes) -> Signed[Statement]:
        if envelope not in known:
            raise TrustError("unknown-key", "statement", "signed by nobody we know")
        return known[envelope]

    return verify


def test_evidence_comes_back_as_it_was() -> None:
    found = full()
    assert decode_evidence(encode_evidence(found), believing(found)) == found


def test_a_decision_comes_back_as_it_was() -> None:
    policy = load(default_document())
    for found in (full(), case().evidence(), case().evidence(revocations=None)):
        decision = evaluate(policy, found)
        assert decode_decision(encode_decision(decision)) == decision


def test_it_is_the_canonical_form() -> None:
    """json's own form is RFC 8785's as long as names are ASCII and numbers whole; here it is held to that."""
    found = full()
    value: Any = to_json(found)
    assert encode_evidence(found) == canonical.encode(value)
    assert evidence_digest(found) == canonical.digest(value)


def test_a_member_with_its_default_is_left_out() -> None:
    """So a new member with a default changes no digest of older evidence."""
    value: Any = json.loads(encode_evidence(case().evidence()))
    assert "withdrawals" not in value
    assert "owner" not in value["components"][0]


def edited(change_it: Callable[[Any], None]) -> bytes:
    """The encoded full evidence, changed and spelled canonically again."""
    value: Any = json.loads(encode_evidence(full()))
    change_it(value)
    return canonical.encode(value)


@pytest.mark.parametrize(
    ("change_it", "said"),
    [
        (lambda value: value.update(extra=1), "evidence: unknown member 'extra'"),
        (lambda value: value["image"].update(labels={}), "evidence.image: unknown member 'labels'"),
        (lambda value: value.pop("now"), "evidence.now: missing"),
        (lambda value: value.update(now="2026-11-24T09:00:00+01:00"), "evidence.now: got '2026-11-24T09"),
        (lambda value: value.update(errors="none"), "evidence.errors: got a string, expected an array"),
        (lambda value: value.update(changes_truncated=0), "evidence.changes_truncated: got a number, expected bool"),
        (lambda value: value["image"].update(reader=True), "evidence.image.reader: got a boolean, expected int"),
        (lambda value: value["image"].update(manifest="sha256:x"), "evidence.image.manifest: digest"),
        (lambda value: value["findings"][0].update(severity="awful"), "severity: got a string, expected Severity"),
        (lambda value: value["components"].append(None), "evidence.components[2]: got null, expected an object"),
        (lambda value: value["waivers"].append({}), "evidence.waivers[1]: expected an object of digest and envelope"),
        (
            lambda value: value["waivers"][0].update(digest=1),
            "evidence.waivers[0]: expected digest and envelope as",
        ),
        (lambda value: value["waivers"][0].update(envelope="%"), "evidence.waivers[0]: not base64"),
        (lambda value: value.update(withdrawals=[]), "evidence: not in canonical form"),
        (lambda value: value["components"][0].update(owner=""), "evidence: not in canonical form"),
    ],
)
def test_anything_else_than_what_was_written_is_refused(change_it: Callable[[Any], None], said: str) -> None:
    with pytest.raises(PolicyError) as told:
        decode_evidence(edited(change_it), believing(full()))
    assert said in str(told.value)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"null", b'{"a":1,"a":1}', b"\xff", b"{"])
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(PolicyError):
        decode_evidence(raw, believing(full()))
    with pytest.raises(PolicyError):
        decode_decision(raw)


def test_another_spelling_of_the_same_value_is_refused() -> None:
    raw = encode_evidence(full())
    with pytest.raises(PolicyError, match="not in canonical form"):
        decode_evidence(json.dumps(json.loads(raw)).encode(), believing(full()))


def test_a_signer_believes_no_statement_that_it_did_not_verify_itself() -> None:
    found = full()
    with pytest.raises(TrustError, match="signed by nobody we know"):
        decode_evidence(encode_evidence(found), believing(case().evidence(revocations=found.revocations)))


def test_a_statement_of_one_kind_in_the_place_of_another_is_refused() -> None:
    found = full()
    moved = replace(found, waivers=found.image_approvals)  # type: ignore[arg-type]  # what a taken-over worker could do
    with pytest.raises(TrustError, match="a ImageApproval in the place of a Waiver"):
        decode_evidence(encode_evidence(moved), believing(found))


def test_a_statement_under_another_digest_is_refused() -> None:
    found = full()
    lying = replace(found, waivers=(replace(found.waivers[0], digest=digest("another")),))
    with pytest.raises(TrustError, match="stands under the digest"):
        decode_evidence(encode_evidence(lying), believing(found))


def test_a_decision_holds_no_statement() -> None:
    raw = encode_decision(evaluate(load(default_document()), full()))
    value: Any = json.loads(raw)
    value["verdicts"][0]["rule"] = {"digest": "x", "envelope": "x"}
    with pytest.raises(PolicyError):
        decode_decision(canonical.encode(value))


def test_times_and_texts_that_have_no_form_are_refused() -> None:
    the = case()
    for members in ({"now": NOW + timedelta(microseconds=1)}, {"scanner_version": "\udcff"}):
        with pytest.raises(PolicyError):
            encode_evidence(the.evidence(**members))
    with pytest.raises(TypeError, match="no canonical JSON form"):
        to_json(1.5)
    with pytest.raises(TypeError, match="no canonical JSON form"):
        to_json(replace(image(), created=1.5))  # type: ignore[arg-type]  # on purpose


def test_start_evidence_comes_back_as_it_was() -> None:
    ring = keyring()
    the = scene(ring)
    verified = verify_clearance(the.envelope, subject=the.subject, host=the.host, now=NOW)
    assert isinstance(verified, Verified)
    found = start_evidence(
        verified,
        host=the.host,
        platform="linux/amd64",
        root_index=the.image.root_index,
        request=StartRequest(memory=1),
        now=NOW,
    )
    again = decode_start_evidence(encode_start_evidence(found), ring.trust.verifier(NOW))
    assert again == found
