"""Signing: a statement and some keys become an envelope. The reverse of `Trust.verify`."""

from __future__ import annotations

from policy import dsse, wire
from policy.keys import SigningKey
from policy.statements import Statement


def seal(statement: Statement, *keys: SigningKey) -> bytes:
    """The envelope of `statement`, signed by each of `keys`.

    Raises:
        TrustError: `malformed`: the statement holds what no reader takes.
    """
    return dsse.sign(wire.encode(statement), keys)


def countersign(envelope: bytes, *keys: SigningKey) -> bytes:
    """`envelope` with a further signature by each of `keys`: how k people sign one statement, one after another.

    Each of them should look at what they sign first: `wire.decode(dsse.parse(envelope, what=...).payload, ...)`.

    Raises:
        TrustError: `malformed`, `unknown-type`: not an envelope of a statement that we know.
    """
    parsed = dsse.parse(envelope, what="envelope")
    wire.decode(parsed.payload, what="envelope")
    return dsse.add_signatures(envelope, keys)
