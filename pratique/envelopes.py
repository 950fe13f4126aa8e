"""Signed statements as a person sees them: who signed, with which key, and what the statement says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ocispec.strictjson import JsonValue

if TYPE_CHECKING:
    from ocispec.digest import Digest
    from policy.dsse import Envelope
    from policy.statements import Statement
    from policy.trust import Trust


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An envelope that was read, and not proven."""

    statement: Statement
    digest: Digest
    envelope: Envelope


def open_envelope(raw: bytes, what: str) -> Opened:
    """The statement in `raw`, whoever signed it.

    Raises:
        TrustError: not an envelope of a statement that we know.
    """
    from ocispec.digest import Digest
    from policy import dsse, wire

    envelope = dsse.parse(raw, what=what)
    return Opened(
        statement=wire.decode(envelope.payload, what=what), digest=Digest.of(envelope.payload), envelope=envelope
    )


def is_envelope(raw: bytes) -> bool:
    """True if `raw` is an envelope, in contrast to a policy document in YAML or JSON."""
    from policy import dsse
    from policy.errors import TrustError

    try:
        dsse.parse(raw, what="file")
    except TrustError:
        return False
    return True


def signers(opened: Opened, trust: Trust | None = None) -> list[tuple[str, str]]:
    """Key id and what is known of it, for each signature: its owner and role if `trust` lists the key.

    A signature that is wrong says so; one by a key that nobody knows here cannot be checked.
    """
    found: list[tuple[str, str]] = []
    for signature in opened.envelope.signatures:
        key = trust.keys.get(signature.key_id) if trust is not None else None
        if key is None:
            known = "not checked" if trust is None else "no key of trust.json"
        elif not key.key.verifies(opened.envelope.message, signature.signature):
            known = "WRONG SIGNATURE"
        else:
            known = f"{key.owner} ({key.role})"
        found.append((signature.key_id, known))
    return found


def signers_json(opened: Opened, trust: Trust | None = None) -> list[JsonValue]:
    """The same for `--json`."""
    return [{"key": key, "signer": known} for key, known in signers(opened, trust)]
