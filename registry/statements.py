"""What officers and builds signed, as the registry keeps it: taken in after proof, found again by what it concerns.

A statement is one row, named by the digest of its payload; the same payload signed by more people is that row with
more signatures. Each row has keys (`config:…`, `layer:…`, `chain:…`), and so has each judged image: what a new
statement touches, and what may count for an image, are look-ups. Every acceptance raises the generation, by which a
judgement that began before it is recognised as out of date.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, insert, select, update

from ocispec.config import chain_ids
from ocispec.digest import Digest
from policy import dsse, wire
from policy.errors import PolicyError
from policy.load import load
from policy.model import ImageFacts, Signed
from policy.statements import (
    ImageApproval,
    LayerApproval,
    PolicyFloor,
    PolicyStatement,
    RevocationList,
    Statement,
    Waiver,
    Withdrawal,
)
from policy.trust import Trust, check_number, expiry
from registry.catalogue import schema
from registry.catalogue.database import insert_new, put_row
from registry.catalogue.locks import Lock, hold

ACCEPTED: Final = (ImageApproval, LayerApproval, Waiver, Withdrawal, RevocationList, PolicyStatement, PolicyFloor)
"""What can be handed in; all else that the registry keeps, it signs itself."""

MAX_FOR_IMAGE: Final = 4000
"""Statements looked up for one image, newest first."""

_GENERATION: Final = "generation"
_LIST_DATE: Final = "list-date"
_LIST_DATED: Final = "list-dated"
_LIST_NAMES: Final = (_LIST_DATE, _LIST_DATED)
_TABLE = schema.statements.c


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A statement that was taken in; `new` is False if the registry had it with all these signatures."""

    signed: Signed[Statement]
    new: bool


def lock_statements(conn: Connection) -> None:
    """Have to oneself what judgements rest on until the transaction ends; who changes it locks before it looks."""
    hold(conn, Lock.STATEMENTS)


def hold_statements(conn: Connection) -> None:
    """Have nobody change what judgements rest on until the transaction ends."""
    hold(conn, Lock.STATEMENTS, shared=True)


def accept(conn: Connection, trust: Trust, envelope: bytes, *, by: str, now: datetime) -> Accepted:
    """Prove a statement and keep it, in the caller's writing transaction, which has `lock_statements`.

    Raises:
        TrustError: not believed, of a kind that is not handed in, or its number does not follow.
        PolicyError: a policy that cannot be used.
    """
    signed = trust.verify_any(envelope, ACCEPTED, now)
    statement = signed.statement
    if isinstance(statement, PolicyStatement):
        policy = load(statement.document)
        if (policy.name, policy.version) != (statement.name, statement.version):
            got, want = f"{policy.name} {policy.version}", f"{statement.name} {statement.version}"
            raise PolicyError(f"policy {signed.digest}: the document is {got}, the statement says {want}")
    before = conn.execute(select(schema.statements).where(_TABLE.digest == signed.digest)).first()
    if before is not None:
        return _merge(conn, trust, signed, before.envelope, now)
    _check_follows(conn, signed)
    insert_row = insert(schema.statements).values(
        digest=signed.digest,
        type=type(statement).__name__,
        subject=_subject(statement),
        number=_number(statement),
        envelope=envelope,
        received=now,
        received_by=by,
        expires=expiry(statement),
    )
    conn.execute(insert_row)
    for key in keys_of_statement(statement):
        insert_new(conn, schema.statement_keys, key=key, statement=signed.digest)
    if isinstance(statement, Withdrawal):
        conn.execute(update(schema.statements).where(_TABLE.digest == statement.statement).values(withdrawn=now))
    raise_generation(conn)
    return Accepted(signed=signed, new=True)


def _merge(conn: Connection, trust: Trust, signed: Signed[Statement], kept: bytes, now: datetime) -> Accepted:
    """The row that is there, with the signatures of both; only believed ones are kept, so nobody can fill it up."""
    what = f"statement {signed.digest}"
    stored = dsse.parse(kept, what=what)
    before, offered = (_proven(trust, envelope) for envelope in (stored, dsse.parse(signed.envelope, what=what)))
    if offered.keys() <= before.keys():
        return Accepted(signed=signed, new=False)
    merged = dsse.assemble(stored.payload, (offered | before).values())
    conn.execute(update(schema.statements).where(_TABLE.digest == signed.digest).values(envelope=merged))
    raise_generation(conn)
    return Accepted(signed=trust.verify_any(merged, ACCEPTED, now), new=True)


def _proven(trust: Trust, envelope: dsse.Envelope) -> dict[str, dsse.Signature]:
    """The signatures in an envelope that are by keys of trust.json, by key."""
    return {
        signature.key_id: signature
        for signature in envelope.signatures
        if (key := trust.keys.get(signature.key_id)) is not None
        and key.key.verifies(envelope.message, signature.signature)
    }


def _check_follows(conn: Connection, signed: Signed[Statement]) -> None:
    """A policy's version, a floor and a list's number follow the one before, as every host will demand."""
    statement = signed.statement
    match statement:
        case PolicyStatement(name=name) | PolicyFloor(name=name):
            newest = next((row for row in _newest(conn, type(statement)) if _name_of(row.envelope) == name), None)
            what = f"{type(statement).__name__} {name}"
        case RevocationList():
            newest = next(iter(_newest(conn, RevocationList)), None)
            what = "revocation list"
        case _:
            return
    if newest is not None:
        number = _number(statement) or 0
        check_number(what, (newest.number, newest.digest), (number, signed.digest))


def superseded(conn: Connection, signed: Signed[Statement]) -> str:
    """What a statement that was just taken takes the place of, in a few words for the audit; "" for nothing."""
    statement = signed.statement
    match statement:
        case PolicyStatement(name=name) | PolicyFloor(name=name):
            rows = (row for row in _newest(conn, type(statement)) if _name_of(row.envelope) == name)
        case RevocationList():
            name, rows = "number", (row for row in _newest(conn, RevocationList))
        case Withdrawal(statement=withdrawn):
            return f"statement {withdrawn} holds"
        case _:
            return ""
    before = next((row for row in rows if row.digest != signed.digest), None)
    return f"{name} {before.number}" if before is not None else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    digest: Digest
    number: int
    envelope: bytes
    received: datetime


def _newest(conn: Connection, kind: type[Statement]) -> Iterable[_Row]:
    rows = conn.execute(
        select(_TABLE.digest, _TABLE.number, _TABLE.envelope, _TABLE.received)
        .where(_TABLE.type == kind.__name__)
        .order_by(_TABLE.number.desc())
    )
    return (_Row(digest=row.digest, number=row.number, envelope=row.envelope, received=row.received) for row in rows)


def _name_of(envelope: bytes) -> str:
    statement = wire.decode(dsse.parse(envelope, what="statement").payload, what="statement")
    return statement.name if isinstance(statement, PolicyStatement | PolicyFloor) else ""


def keys_of_statement(statement: Statement) -> tuple[str, ...]:
    """What a statement may concern, in the words of `image_keys`."""
    match statement:
        case ImageApproval(config=config, diff_ids=diff_ids):
            return (f"config:{config}", *(f"chain:{chain}" for chain in chain_ids(diff_ids)[-1:]))
        case LayerApproval(diff_id=diff_id):
            return (f"layer:{diff_id}",)
        case Withdrawal(statement=withdrawn):
            return (f"withdraws:{withdrawn}",)
        case Waiver():
            return ("waiver",)
        case _:
            return ()


def keys_of_image(config: Digest, diff_ids: Iterable[Digest]) -> tuple[str, ...]:
    """What identifies an image to statements."""
    layers = tuple(dict.fromkeys(diff_ids))
    chain = chain_ids(tuple(diff_ids))
    return (f"config:{config}", *(f"layer:{layer}" for layer in layers), *(f"chain:{each}" for each in chain))


def _subject(statement: Statement) -> Digest | None:
    match statement:
        case ImageApproval(manifest=digest) | LayerApproval(diff_id=digest) | Withdrawal(statement=digest):
            return digest
        case PolicyStatement(document=document):
            return Digest.of(document)
        case _:
            return None


def _number(statement: Statement) -> int | None:
    match statement:
        case RevocationList(number=number):
            return number
        case PolicyStatement(version=version) | PolicyFloor(version=version):
            return version
        case _:
            return None


# ---- what is in force -------------------------------------------------------------------------------------------


def generation(conn: Connection) -> int:
    """How often what judgements rest on has changed."""
    found = conn.scalar(select(schema.meta.c.value).where(schema.meta.c.name == _GENERATION))
    return int(found or 0)


def raise_generation(conn: Connection) -> None:
    """What judgements rest on has changed: one that began before must be taken again. Under `lock_statements`."""
    put_row(conn, schema.meta, name=_GENERATION, value=str(generation(conn) + 1))


def stored_trust(conn: Connection) -> bytes | None:
    """The newest trust.json, or None."""
    query = select(schema.trust.c.document).order_by(schema.trust.c.version.desc()).limit(1)
    return conn.scalar(query)


def told_trust(conn: Connection) -> str:
    """The newest trust.json by version and digest, for the audit; "" before there is one."""
    stored = stored_trusts(conn)[-1:]
    return "".join(f"version {version}, {payload_digest(document)}" for version, document in stored)


def stored_trusts(conn: Connection) -> tuple[tuple[int, bytes], ...]:
    """Every trust.json that was taken, oldest first, with its version."""
    rows = conn.execute(select(schema.trust.c.version, schema.trust.c.document).order_by(schema.trust.c.version))
    return tuple((row.version, row.document) for row in rows)


def published(conn: Connection) -> tuple[tuple[Digest, bytes], ...]:
    """What the signer must know: the newest revocation list, each policy's newest version and floor, withdrawals."""
    found: dict[tuple[str, str], tuple[Digest, bytes]] = {}
    for kind in (RevocationList, PolicyStatement, PolicyFloor):
        for row in _newest(conn, kind):
            found.setdefault((kind.__name__, _name_of(row.envelope)), (row.digest, row.envelope))
    rows = conn.execute(
        select(_TABLE.digest, _TABLE.envelope).where(_TABLE.type == Withdrawal.__name__).order_by(_TABLE.digest)
    )
    return (*found.values(), *((row.digest, row.envelope) for row in rows))


def accept_trust(conn: Connection, envelope: bytes, *, by: str, now: datetime) -> Trust:
    """Take a trust.json: the first as it is, a newer one by the rules of `Trust.update`. Under `lock_statements`.

    Raises:
        TrustError: as those say.
    """
    stored = stored_trust(conn)
    before = Trust.stored(stored, now) if stored is not None else None
    trust = Trust.parse(envelope, now) if before is None else before.update(envelope, now)
    if before is None or trust.digest != before.digest:
        conn.execute(
            insert(schema.trust).values(version=trust.root.version, document=envelope, received=now, received_by=by)
        )
        raise_generation(conn)
    return trust


def trust_in_force(conn: Connection, now: datetime) -> Trust | None:
    """The newest trust.json without the keys that the revocation list names; None before there is one.

    Raises:
        TrustError: what is stored is not believed any more.
    """
    stored = stored_trust(conn)
    if stored is None:
        return None
    trust = Trust.stored(stored, now)
    listed = revocation_list(conn)
    if listed is None:
        return trust
    return trust.revoking(trust.verify(listed, RevocationList, now).statement.keys)


def revocation_list(conn: Connection) -> bytes | None:
    """The envelope of the newest revocation list, or None."""
    newest = next(iter(_newest(conn, RevocationList)), None)
    return newest.envelope if newest is not None else None


def date_list(conn: Connection, listed: bytes, date: bytes) -> None:
    """Keep the registry's date of a revocation list, in place of the one before."""
    put_row(conn, schema.meta, name=_LIST_DATE, value=date.decode())
    put_row(conn, schema.meta, name=_LIST_DATED, value=str(payload_digest(listed)))


def dated_list(conn: Connection) -> tuple[bytes, bytes] | None:
    """The newest revocation list that has a date, and the date; None before there is one."""
    rows = conn.execute(select(schema.meta.c.name, schema.meta.c.value).where(schema.meta.c.name.in_(_LIST_NAMES)))
    found = {row.name: row.value for row in rows}
    if len(found) < len(_LIST_NAMES):
        return None
    digest = Digest.parse(found[_LIST_DATED])
    listed = conn.scalar(select(_TABLE.envelope).where(_TABLE.digest == digest))
    return None if listed is None else (listed, found[_LIST_DATE].encode())


def payload_digest(envelope: bytes) -> Digest:
    """The digest by which the statement in an envelope is known."""
    return Digest.of(dsse.parse(envelope, what="statement").payload)


def newest_checkpoint(conn: Connection) -> int:
    """How many audit records the newest signed checkpoint covers; 0 for none."""
    return conn.scalar(select(schema.checkpoints.c.seq).order_by(schema.checkpoints.c.seq.desc()).limit(1)) or 0


def current_policy(conn: Connection, trust: Trust, now: datetime) -> Signed[PolicyStatement] | None:
    """The policy in force: of the newest version of each name, the one issued last - as the signer chooses too.

    Raises:
        TrustError: what is stored is not believed any more.
    """
    found: dict[str, Signed[PolicyStatement]] = {}
    for row in _newest(conn, PolicyStatement):
        name = _name_of(row.envelope)
        if name not in found:
            found[name] = trust.verify(row.envelope, PolicyStatement, now)
    return max(found.values(), key=lambda signed: (signed.statement.issued, signed.statement.name), default=None)


def newest_floors(conn: Connection) -> tuple[bytes, ...]:
    """The envelope of the highest floor of each policy's name; hosts prove them themselves."""
    found: dict[str, bytes] = {}
    for row in _newest(conn, PolicyFloor):
        found.setdefault(_name_of(row.envelope), row.envelope)
    return tuple(found.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueStatements:
    """The statements that may count for an image; implements `policy.evidence.StatementSource`."""

    conn: Connection
    now: datetime

    def envelopes(self, image: ImageFacts) -> Iterable[bytes]:
        """See `StatementSource`."""
        return self.concerning(image.config, [layer.diff_id for layer in image.layers])

    def concerning(self, config: Digest, diff_ids: Sequence[Digest]) -> Iterable[bytes]:
        """The envelopes that may count for an image of this config and these layers."""
        keys = keys_of_image(config, diff_ids)
        table, keyed = schema.statements, schema.statement_keys
        alive = (_TABLE.expires.is_(None)) | (_TABLE.expires > self.now)
        found = self.conn.execute(
            select(_TABLE.digest, _TABLE.envelope, _TABLE.received)
            .select_from(table.join(keyed, keyed.c.statement == _TABLE.digest))
            .where(keyed.c.key.in_((*keys, "waiver")), alive)
            .distinct()
            .order_by(_TABLE.received.desc(), _TABLE.digest)
            .limit(MAX_FOR_IMAGE)
        ).all()
        withdrawals = [f"withdraws:{row.digest}" for row in found]
        taken_back = self.conn.scalars(
            select(_TABLE.envelope)
            .select_from(table.join(keyed, keyed.c.statement == _TABLE.digest))
            .where(keyed.c.key.in_(withdrawals))
            .order_by(_TABLE.digest)
        ).all()
        # Withdrawals first: `verify_many` stops at a bound, and what takes away must not be what is cut.
        return [*taken_back, *(row.envelope for row in found)]

    def revocation_list(self) -> bytes | None:
        """See `StatementSource`."""
        return revocation_list(self.conn)
