"""Statements to bytes and back: in-toto Statement v1 (in-toto/attestation, spec/v1/statement.md) as canonical JSON.

Reading is the exact inverse of writing: a statement is taken only if writing it again gives the very bytes
that were read. So nothing in them is skipped, nothing has two spellings, and what stands there twice agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, assert_never

from ocispec.digest import Digest
from ocispec.errors import SpecError
from ocispec.strictjson import JsonValue, parse
from policy import canonical
from policy.errors import PolicyError, TrustError
from policy.statements import (
    AuditCheckpoint,
    Clearance,
    ImageApproval,
    IndexClearance,
    LayerApproval,
    ListDate,
    PolicyFloor,
    PolicyStatement,
    RevocationList,
    Statement,
    TagStatement,
    TrustRoot,
    Waiver,
    Withdrawal,
)
from policy.wire import approvals, clearance, officers, registry, root
from policy.wire.body import Body
from policy.wire.members import Members

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"

MAX_PAYLOAD: Final = 4 * 1024 * 1024
"""Bytes of a statement that we read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """A predicate type, and the function that reads its statements from subject name, digest and predicate."""

    statement: type[Statement]
    read: Callable[[str, Digest, Members], Statement]


KINDS: Final[Mapping[str, _Kind]] = {
    root.TRUST: _Kind(statement=TrustRoot, read=root.read_root),
    approvals.IMAGE_APPROVAL: _Kind(statement=ImageApproval, read=approvals.read_image),
    approvals.LAYER_APPROVAL: _Kind(statement=LayerApproval, read=approvals.read_layer),
    approvals.WAIVER: _Kind(statement=Waiver, read=approvals.read_waiver),
    approvals.WITHDRAWAL: _Kind(statement=Withdrawal, read=approvals.read_withdrawal),
    officers.REVOCATION_LIST: _Kind(statement=RevocationList, read=officers.read_list),
    officers.POLICY: _Kind(statement=PolicyStatement, read=officers.read_policy),
    officers.POLICY_FLOOR: _Kind(statement=PolicyFloor, read=officers.read_floor),
    registry.LIST_DATE: _Kind(statement=ListDate, read=registry.read_date),
    registry.TAG: _Kind(statement=TagStatement, read=registry.read_tag),
    registry.INDEX_CLEARANCE: _Kind(statement=IndexClearance, read=registry.read_index),
    registry.AUDIT_CHECKPOINT: _Kind(statement=AuditCheckpoint, read=registry.read_checkpoint),
    clearance.CLEARANCE: _Kind(statement=Clearance, read=clearance.read_clearance),
}
"""Every predicate type that is read; any other is refused."""


def predicate_type(statement: type[Statement]) -> str:
    """The predicate type of statements of a class."""
    return next(uri for uri, kind in KINDS.items() if kind.statement is statement)


def encode(statement: Statement) -> bytes:
    """The payload of `statement`: what is signed.

    Raises:
        TrustError: `malformed`: a value that nobody would read (a bad name, a time with a fraction, too long).
    """
    what = predicate_type(type(statement))
    try:
        payload = canonical.encode(_frame(statement))
    except PolicyError as error:
        raise TrustError("malformed", what, str(error)) from None
    if decode(payload, what=what) != statement:
        raise TrustError("malformed", what, "reads back as another statement")
    return payload


def decode(payload: bytes, *, what: str) -> Statement:
    """Return the statement in `payload`, whose signature was verified; `what` names it in errors.

    Raises:
        TrustError: `unknown-type`: a predicate type that we do not know; `not-canonical`: not spelled as we
            write it; `malformed`: anything else.
    """
    try:
        statement = _read(payload, what)
    except TrustError as error:
        raise TrustError(error.code, what, error.detail) from None
    except (SpecError, PolicyError) as error:
        raise TrustError("malformed", what, str(error).removeprefix(f"{what}: ")) from None
    if not canonical.spells(payload, _frame(statement)):
        raise TrustError("not-canonical", what, "not the canonical form of the statement it holds")
    return statement


def _read(payload: bytes, what: str) -> Statement:
    members = Members(parse(payload, what=what, max_bytes=MAX_PAYLOAD), what)
    members.fixed("_type", STATEMENT_TYPE)
    uri = members.text("predicateType")
    kind = KINDS.get(uri)
    if kind is None:
        raise TrustError("unknown-type", what, f"predicate type {uri[:120]!r} is not known")
    subjects = list(members.children("subject", 1))
    if len(subjects) != 1:
        raise SpecError(f"{what}: subject has {len(subjects)} entries, expected one")
    name, digest = _subject(subjects[0])
    predicate = members.child("predicate")
    members.end()
    statement = kind.read(name, digest, predicate)
    predicate.end()
    return statement


def _subject(members: Members) -> tuple[str, Digest]:
    name = members.text("name", 600)
    digests = members.child("digest")
    members.end()
    algorithm = "sha512" if digests.has("sha512") else "sha256"
    digest = Digest(algorithm, digests.text(algorithm, 128))
    digests.end()
    return name, digest


def _frame(statement: Statement) -> dict[str, JsonValue]:
    body = _body(statement)
    digest = body.digest if body.digest is not None else canonical.digest(body.predicate)
    return {
        "_type": STATEMENT_TYPE,
        "predicate": body.predicate,
        "predicateType": predicate_type(type(statement)),
        "subject": [{"digest": {digest.algorithm: digest.hex}, "name": body.name}],
    }


def _body(statement: Statement) -> Body:  # noqa: PLR0912  # a table: one line a kind
    match statement:
        case TrustRoot():
            return root.write_root(statement)
        case ImageApproval():
            return approvals.write_image(statement)
        case LayerApproval():
            return approvals.write_layer(statement)
        case Waiver():
            return approvals.write_waiver(statement)
        case Withdrawal():
            return approvals.write_withdrawal(statement)
        case RevocationList():
            return officers.write_list(statement)
        case PolicyStatement():
            return officers.write_policy(statement)
        case PolicyFloor():
            return officers.write_floor(statement)
        case ListDate():
            return registry.write_date(statement)
        case TagStatement():
            return registry.write_tag(statement)
        case IndexClearance():
            return registry.write_index(statement)
        case AuditCheckpoint():
            return registry.write_checkpoint(statement)
        case Clearance():
            return clearance.write_clearance(statement)
        case other:
            assert_never(other)
