"""DSSE envelopes: secure-systems-lab/dsse v1.0.2, protocol.md and envelope.md.

A signature is over PAE(payload type, payload bytes); what was verified is what is read afterwards, never
parsed out again. The key id only narrows which key is tried; ours is always there, so a signature without
one counts for nothing. Members that the specification does not know are ignored, as it demands: they are
not signed, and nothing here reads them.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from ocispec import fields
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse_object
from policy import canonical
from policy.errors import TrustError
from policy.keys import SigningKey

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
"""The payload type of in-toto statements (in-toto/attestation, spec/v1/envelope.md)."""

MEDIA_TYPE: Final = "application/vnd.dsse.envelope.v1+json"
"""The media type of an envelope as a blob."""

MAX_ENVELOPE: Final = 4 * 1024 * 1024
"""Bytes of an envelope that we read: a clearance with all it embeds."""

MAX_SIGNATURES: Final = 32
"""Signatures on one envelope; a quorum of people is smaller."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature, and the id of the key that it claims to be by ("" if it claims none)."""

    key_id: str
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A payload and the signatures on it; `raw` are the bytes it was read from. Nothing in it is verified."""

    payload_type: str
    payload: bytes = field(repr=False)
    signatures: tuple[Signature, ...]
    raw: bytes = field(repr=False)

    @property
    def message(self) -> bytes:
        """What each signature is over."""
        return pae(self.payload_type, self.payload)


def pae(payload_type: str, payload: bytes) -> bytes:
    """Pre-authentication encoding (protocol.md, "Signature Definition")."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def parse(raw: bytes, *, what: str) -> Envelope:
    """Return the envelope in `raw`; `what` names it in errors.

    Raises:
        TrustError: `malformed`: too long, not JSON as we read it, a member missing or of another type, not
            base64, too many signatures; `wrong-payload-type`: not an in-toto statement.
    """
    try:
        members = parse_object(raw, what=what, max_bytes=MAX_ENVELOPE)
        payload_type = fields.text(members, "payloadType", what=what)
        payload = _base64(fields.text(members, "payload", what=what), what, "payload")
        signatures = tuple(
            _signature(item, f"{what}: signatures[{position}]")
            for position, item in enumerate(fields.items(members, "signatures", what=what, limit=MAX_SIGNATURES))
        )
    except SpecError as error:
        raise TrustError("malformed", what, str(error).removeprefix(f"{what}: ")) from None
    if payload_type != PAYLOAD_TYPE:
        raise TrustError("wrong-payload-type", what, f"payload type {payload_type[:80]!r}, expected {PAYLOAD_TYPE!r}")
    return Envelope(payload_type=payload_type, payload=payload, signatures=signatures, raw=raw)


def sign(payload: bytes, keys: Sequence[SigningKey]) -> bytes:
    """The envelope of `payload` (an in-toto statement) with a signature by each of `keys`."""
    message = pae(PAYLOAD_TYPE, payload)
    return assemble(payload, [Signature(key_id=key.public.id, signature=key.sign(message)) for key in keys])


def add_signatures(raw: bytes, keys: Sequence[SigningKey]) -> bytes:
    """The envelope in `raw` with a further signature by each of `keys`; one that a key made before is replaced.

    Raises:
        TrustError: as `parse`.
    """
    envelope = parse(raw, what="envelope")
    fresh = [Signature(key_id=key.public.id, signature=key.sign(envelope.message)) for key in keys]
    signing = {signature.key_id for signature in fresh}
    kept = [signature for signature in envelope.signatures if signature.key_id not in signing]
    return assemble(envelope.payload, [*kept, *fresh])


def assemble(payload: bytes, signatures: Iterable[Signature]) -> bytes:
    """The envelope of `payload` with signatures that were made over it elsewhere, in the order of their keys."""
    ordered = sorted(signatures, key=lambda signature: (signature.key_id, signature.signature))
    return canonical.encode(
        {
            "payload": base64.b64encode(payload).decode(),
            "payloadType": PAYLOAD_TYPE,
            "signatures": [
                {"keyid": signature.key_id, "sig": base64.b64encode(signature.signature).decode()}
                for signature in ordered
            ],
        }
    )


def _signature(members: JsonValue, what: str) -> Signature:
    if not isinstance(members, dict):
        raise SpecError(f"{what}: expected an object")
    return Signature(
        key_id=fields.text(members, "keyid", what=what, default=""),
        signature=_base64(fields.text(members, "sig", what=what), what, "sig"),
    )


def _base64(text: str, what: str, name: str) -> bytes:
    # "Either standard or URL-safe encoding is allowed" (envelope.md); a mix of both is neither.
    url_safe = "-" in text or "_" in text
    if url_safe and ("+" in text or "/" in text):
        raise SpecError(f"{what}: {name} mixes the two alphabets of base64")
    try:
        encoded = text.encode("ascii")
        return base64.b64decode(encoded, altchars=b"-_" if url_safe else None, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise SpecError(f"{what}: {name} is not base64") from None
