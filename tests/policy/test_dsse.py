"""Envelopes: the specification's own example, and what is refused."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from policy import dsse
from policy.errors import TrustError
from policy.private_key import PrivateKey


def envelope(**changes: object) -> bytes:
    members: dict[str, object] = {
        "payload": base64.b64encode(b"{}").decode(),
        "payloadType": dsse.PAYLOAD_TYPE,
        "signatures": [{"keyid": "k", "sig": base64.b64encode(b"s").decode()}],
    }
    return json.dumps({**members, **changes}).encode()


def test_pae_is_the_specifications_example() -> None:
    message = dsse.pae("http://example.com/HelloWorld", b"hello world")
    assert message == b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"


def test_the_specifications_signature_verifies_over_our_encoding() -> None:
    # protocol.md, "Test Vectors"; its signature is raw r and s.
    x = 46950820868899156662930047687818585632848591499744589407958293238635476079160
    y = 5640078356564379163099075877009565129882514886557779369047442380624545832820
    raw = base64.b64decode("A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==")
    signature = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    key.verify(signature, dsse.pae("http://example.com/HelloWorld", b"hello world"), ec.ECDSA(SHA256()))


def test_lengths_are_of_bytes() -> None:
    assert dsse.pae("ä", "ö".encode()) == "DSSEv1 2 ä 2 ö".encode()


def test_a_signed_payload_comes_back_with_each_signature() -> None:
    keys = [PrivateKey.generate(), PrivateKey.generate()]
    parsed = dsse.parse(dsse.sign(b'{"a":1}', keys), what="envelope")
    assert parsed.payload == b'{"a":1}'
    assert {signature.key_id for signature in parsed.signatures} == {key.public.id for key in keys}
    by_id = {key.public.id: key.public for key in keys}
    for signature in parsed.signatures:
        assert by_id[signature.key_id].verifies(parsed.message, signature.signature)


def test_further_signatures_are_added_and_a_second_by_one_key_replaces_the_first() -> None:
    first, second = PrivateKey.generate(), PrivateKey.generate()
    both = dsse.add_signatures(dsse.sign(b"{}", [first]), [second])
    again = dsse.add_signatures(both, [first])
    assert len(dsse.parse(both, what="envelope").signatures) == 2
    assert again == both


def test_url_safe_base64_and_unknown_members_are_read() -> None:
    raw = envelope(
        payload=base64.urlsafe_b64encode(b"\xff\xfe\xfd").decode(),
        signatures=[{"sig": "AA==", "cert": "ignored"}],
        more=1,
    )
    parsed = dsse.parse(raw, what="envelope")
    assert parsed.payload == b"\xff\xfe\xfd"
    assert parsed.signatures[0].key_id == ""


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b'{"payload":"","payload":"","payloadType":"x","signatures":[]}',
        envelope(payload=1),
        envelope(payload="A"),
        envelope(payload="AAAA\n"),
        envelope(payload="-_+/"),
        envelope(payload="ÄÄÄÄ"),
        envelope(payloadType=None),
        envelope(signatures={}),
        envelope(signatures=["x"]),
        envelope(signatures=[{"keyid": "k"}]),
        envelope(signatures=[{"keyid": 1, "sig": "AA=="}]),
        envelope(signatures=[{"sig": "!"}]),
        envelope(signatures=[{"sig": "AA=="}] * 33),
        b'{"payload":"' + b"A" * dsse.MAX_ENVELOPE + b'"}',
    ],
)
def test_a_malformed_envelope_is_refused(raw: bytes) -> None:
    with pytest.raises(TrustError) as refused:
        dsse.parse(raw, what="envelope")
    assert refused.value.code == "malformed"
    assert refused.value.subject == "envelope"


def test_another_payload_type_is_refused_s1() -> None:
    with pytest.raises(TrustError) as refused:
        dsse.parse(envelope(payloadType="application/json"), what="envelope")
    assert refused.value.code == "wrong-payload-type"
