"""The audit chain: what changed, who did it, from where, and that nothing was taken out of the record since.

Each record holds the hash of the one before it, so a record that is changed, removed, or put in later breaks
every hash after it; checkpoints, signed by the registry's signer, fix the head, so the whole chain cannot be
written anew either. A change is recorded in the transaction that makes it: neither is there without the other.
The records of a transaction are written at its end, since from there on nobody else can write any: on PostgreSQL
all that is recorded passes here one after the other, and what a transaction did before need not.

Reads are recorded in batches (`reads.py`).
"""

from __future__ import annotations

import hashlib
import json.encoder
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

from sqlalchemy import Connection, select

from ocispec.digest import Digest
from ocispec.fields import JsonObject, integer
from ocispec.fields import text as text_member
from policy import canonical
from policy.errors import PolicyError, TrustError
from policy.evidence import Verify
from policy.statements import AuditCheckpoint
from policy.times import format_time, parse_time
from registry.catalogue import schema
from registry.catalogue.columns import storable
from registry.catalogue.database import run_last
from registry.catalogue.locks import Lock, hold

GENESIS: Final = "0" * 64
"""What stands as the hash before the first record."""

MAX_TEXT: Final = 4096
"""Characters of each text of a record; more is cut off, with a mark."""

MAX_NAME: Final = 255
"""Characters of its principal and source."""


class Event(StrEnum):
    """What a record is about."""

    START = "start"
    PUSH = "push"
    DELETE = "delete"
    TAG = "tag"
    SERVED = "served"
    STATE = "state"
    STATEMENT = "statement"
    POLICY = "policy"
    TRUST = "trust"
    ADVISORIES = "advisories"
    ACCOUNT = "account"
    COLLECT = "collect"
    BACKUP = "backup"
    RESTORE = "restore"
    RULE = "rule"
    SETTINGS = "settings"
    REFUSED = "refused"
    READ = "read"
    LOGIN = "login"
    TOKEN_KEY = "token-key"  # noqa: S105


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of the chain; `before` and `after` are short texts, "" for nothing. Hashes are SHA-256 in hex."""

    seq: int
    time: datetime
    event: str
    principal: str
    source: str
    subject: str
    before: str
    after: str
    previous: str
    hash: str = ""

    def sealed(self) -> Record:
        """This record with its hash: SHA-256 over its canonical JSON, which holds the hash before it."""
        hashed = _hash(
            seq=self.seq,
            time=self.time,
            event=self.event,
            principal=self.principal,
            source=self.source,
            subject=self.subject,
            before=self.before,
            after=self.after,
            previous=self.previous,
        )
        return replace(self, hash=hashed)

    def to_json(self) -> dict[str, canonical.Canonical]:
        """The record as a JSON object."""
        return {
            "seq": self.seq,
            "time": format_time(self.time),
            "event": self.event,
            "principal": self.principal,
            "source": self.source,
            "subject": self.subject,
            "before": self.before,
            "after": self.after,
            "previous": self.previous,
            "hash": self.hash,
        }

    @classmethod
    def from_json(cls, members: JsonObject, *, what: str) -> Record:
        """The record that `to_json` wrote.

        Raises:
            SpecError, PolicyError: a member is missing or malformed.
        """
        return cls(
            seq=integer(members, "seq", what=what, minimum=1),
            time=parse_time(text_member(members, "time", what=what), what=what),
            event=text_member(members, "event", what=what),
            principal=text_member(members, "principal", what=what),
            source=text_member(members, "source", what=what),
            subject=text_member(members, "subject", what=what),
            before=text_member(members, "before", what=what),
            after=text_member(members, "after", what=what),
            previous=text_member(members, "previous", what=what),
            hash=text_member(members, "hash", what=what),
        )


def _hash(
    *,
    seq: int,
    time: datetime,
    event: str,
    principal: str,
    source: str,
    subject: str,
    before: str,
    after: str,
    previous: str,
) -> str:
    """The hash of a record: SHA-256, in hex, over the canonical JSON (RFC 8785) of its other members.

    Spelled out, in a tenth of the time that `policy.canonical` takes, since each read is a record: the names are in
    order, and json escapes in a text what section 3.2.2.2 wants escaped.

    Raises:
        PolicyError: a number that not every reader of JSON can keep, a lone surrogate, or no time in UTC.
    """
    if not -_MOST < seq < _MOST:
        raise PolicyError(f"audit record {seq}: expected a number below 2^53")
    text = (
        f'{{"after":{_quoted(after)},"before":{_quoted(before)},"event":{_quoted(event)},"previous":{_quoted(previous)},'
        f'"principal":{_quoted(principal)},"seq":{seq},"source":{_quoted(source)},"subject":{_quoted(subject)},'
        f'"time":"{_formatted(time)}"}}'
    )
    try:
        return hashlib.sha256(text.encode()).hexdigest()
    except UnicodeEncodeError as error:
        raise PolicyError(f"audit record {seq}: {error}") from error


_MOST: Final = 2**53
_quoted: Final = json.encoder.encode_basestring
_formatted: Final = lru_cache(maxsize=64)(format_time)


class Audit:
    """Appends to the chain; `clock` gives aware UTC times in whole seconds."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        """Take the clock that every record is dated by."""
        self._clock = clock

    def append(
        self,
        conn: Connection,
        event: Event,
        *,
        principal: str,
        source: str = "",
        subject: str = "",
        before: str = "",
        after: str = "",
    ) -> None:
        """Add one record in the caller's writing transaction, at its end.

        `principal` is an account's name (or `registry`), `source` the address it came from.
        """
        entry = Entry(event=event, principal=principal, source=source, subject=subject, before=before, after=after)
        self.append_all(conn, [entry])

    def append_all(self, conn: Connection, entries: Sequence[Entry]) -> None:
        """Add several records, in order, at the end of the caller's writing transaction."""
        run_last(conn, self._write, entries)

    def _write(self, conn: Connection, entries: list[Entry]) -> None:
        hold(conn, Lock.CHAIN)
        seq, previous = head(conn)
        rows: list[tuple[object, ...]] = []
        for entry in entries:
            record = entry.record(seq + 1, entry.time or self._clock(), previous)
            rows.append(_row(record))
            seq, previous = record.seq, record.hash
            if not seq % _PAUSE:
                time.sleep(
                    0
                )  # lets another thread on: there may be thousands of reads, and somebody waits for an answer
        if rows:
            conn.exec_driver_sql(_INSERT.replace("?", "%s" if conn.dialect.name == "postgresql" else "?"), rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What is to be recorded; `time` is filled in by the chain if it is None."""

    event: Event
    principal: str
    source: str = ""
    subject: str = ""
    before: str = ""
    after: str = ""
    time: datetime | None = None

    def record(self, seq: int, time: datetime, previous: str) -> Record:
        """This entry as the record number `seq`."""
        members: dict[str, Any] = {
            "seq": seq,
            "time": time,
            "event": str(self.event),
            "principal": storable(self.principal, MAX_NAME),
            "source": storable(self.source, MAX_NAME),
            "subject": storable(self.subject, MAX_TEXT),
            "before": storable(self.before, MAX_TEXT),
            "after": storable(self.after, MAX_TEXT),
            "previous": previous,
        }
        return Record(**members, hash=_hash(**members))


_COLUMNS: Final = tuple(column.name for column in schema.audit.columns)
_INSERT: Final = f"INSERT INTO audit ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' for _ in _COLUMNS)})"  # noqa: S608
_PAUSE: Final = 64


def _row(record: Record) -> tuple[object, ...]:
    """The record as the columns of the table hold it; its texts are `storable`, so no type has anything to say."""
    return (
        record.seq,
        int(record.time.timestamp()),
        record.event,
        record.principal,
        record.source,
        record.subject,
        record.before,
        record.after,
        record.previous,
        record.hash,
    )


def head(conn: Connection) -> tuple[int, str]:
    """The number and hash of the newest record; (0, GENESIS) of an empty chain."""
    columns = select(schema.audit.c.seq, schema.audit.c.hash)
    row = conn.execute(columns.order_by(schema.audit.c.seq.desc()).limit(1)).first()
    return (0, GENESIS) if row is None else (row.seq, row.hash)


def read(conn: Connection, *, after: int, limit: int) -> tuple[Record, ...]:
    """At most `limit` records with a number above `after`, in order."""
    table = schema.audit
    rows = conn.execute(select(table).where(table.c.seq > after).order_by(table.c.seq).limit(limit))
    return tuple(Record(**row._mapping) for row in rows)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Something that is not as it must be. Codes: `gap`, `changed`, `broken-link`, `bad-checkpoint`,
    `other-registry`, `checkpoint-mismatch`, `records-missing`."""

    code: str
    seq: int
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What `verify` found: `records` were read, the first `covered` of them are under a signed checkpoint."""

    records: int
    covered: int
    problems: tuple[Problem, ...] = field(default=())

    @property
    def sound(self) -> bool:
        """True if nothing is wrong."""
        return not self.problems


def verify(
    records: Iterable[Record], checkpoints: Iterable[bytes], *, verify_envelope: Verify, registry: str
) -> AuditReport:
    """Check a whole chain, from its first record, and the signed checkpoints over it. Pure.

    `checkpoints` are DSSE envelopes; `verify_envelope` proves one against trust.json (as of when the caller
    likes), `registry` is the name that they must be of. Every problem is listed, not only the first.
    """
    problems: list[Problem] = []
    hashes: dict[int, str] = {}
    seq, previous = 0, GENESIS
    for record in records:
        if record.seq != seq + 1:
            problems.append(Problem(code="gap", seq=record.seq, detail=f"follows record {seq}"))
        if record.previous != previous:
            problems.append(
                Problem(code="broken-link", seq=record.seq, detail=f"got {record.previous}, want {previous}")
            )
        want = replace(record, hash="").sealed().hash
        if record.hash != want:
            problems.append(
                Problem(code="changed", seq=record.seq, detail=f"hash mismatch: got {record.hash}, want {want}")
            )
        seq, previous = record.seq, record.hash
        hashes[seq] = want
    covered = 0
    for envelope in checkpoints:
        found = _check(envelope, hashes, seq, verify_envelope, registry)
        if isinstance(found, Problem):
            problems.append(found)
        else:
            covered = max(covered, found)
    return AuditReport(records=len(hashes), covered=covered, problems=tuple(problems))


def _check(envelope: bytes, hashes: dict[int, str], last: int, verify_envelope: Verify, registry: str) -> int | Problem:
    try:
        checkpoint = verify_envelope(envelope).statement
    except TrustError as error:
        return Problem(code="bad-checkpoint", seq=0, detail=str(error))
    if not isinstance(checkpoint, AuditCheckpoint):
        return Problem(code="bad-checkpoint", seq=0, detail=f"a {type(checkpoint).__name__}, expected a checkpoint")
    at = checkpoint.records
    if checkpoint.registry != registry:
        return Problem(code="other-registry", seq=at, detail=f"got {checkpoint.registry!r}, want {registry!r}")
    if at not in hashes:
        return Problem(code="records-missing", seq=at, detail=f"a checkpoint over {at} records, got {last}")
    if Digest("sha256", hashes[at]) != checkpoint.head:
        return Problem(
            code="checkpoint-mismatch", seq=at, detail=f"head mismatch: got {hashes[at]}, want {checkpoint.head.hex}"
        )
    return at
