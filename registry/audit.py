"""The audit chain: what changed, who did it, from where, and that nothing was taken out of the record since.

Each record holds the hash of the one before it, so a record that is changed, removed, or put in later breaks
every hash after it; checkpoints, signed by the registry's signer, fix the head, so the whole chain cannot be
written anew either. A change is recorded in the transaction that makes it: neither is there without the other.
The records of a transaction are written at its end, since from there on nobody else can write any: on PostgreSQL
all that is recorded passes here one after the other, and what a transaction did before need not.

Reads are recorded in batches (`ReadLog`), at most BATCH_SECONDS after they were answered. A registry that is
killed loses at most the reads of that time; changes are never lost.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, insert, select

from ocispec.digest import Digest
from ocispec.fields import JsonObject, integer
from ocispec.fields import text as text_member
from policy import canonical
from policy.errors import TrustError
from policy.evidence import Verify
from policy.statements import AuditCheckpoint
from policy.times import format_time, parse_time
from registry.catalogue import schema
from registry.catalogue.columns import storable
from registry.catalogue.database import run_last
from registry.catalogue.locks import Lock, hold
from registry.catalogue.running import note_pulls
from registry.collect.pulls import Pulls

GENESIS: Final = "0" * 64
"""What stands as the hash before the first record."""

BATCH_SECONDS: Final = 1.0
MAX_BATCH: Final = 1000
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
        return replace(self, hash=hashlib.sha256(canonical.encode(self._hashed())).hexdigest())

    def to_json(self) -> dict[str, canonical.Canonical]:
        """The record as a JSON object."""
        return {**self._hashed(), "hash": self.hash}

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

    def _hashed(self) -> dict[str, canonical.Canonical]:
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
        }


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
        records: list[Record] = []
        for entry in entries:
            record = entry.record(seq + 1, entry.time or self._clock(), previous)
            records.append(record)
            seq, previous = record.seq, record.hash
        if records:
            conn.execute(insert(schema.audit), [_row(record) for record in records])


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
        return Record(
            seq=seq,
            time=time,
            event=str(self.event),
            principal=storable(self.principal, MAX_NAME),
            source=storable(self.source, MAX_NAME),
            subject=storable(self.subject, MAX_TEXT),
            before=storable(self.before, MAX_TEXT),
            after=storable(self.after, MAX_TEXT),
            previous=previous,
        ).sealed()


def _row(record: Record) -> dict[str, object]:
    return {name: getattr(record, name) for name in Record.__slots__}


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


class ReadLog:
    """Collects records of reads, and writes them in batches: `flush` is called at most BATCH_SECONDS after `note`.
    When a manifest was last read is written with them, for retention.

    `write` opens a writing transaction and calls the function it is given with it. Safe for many threads.
    """

    def __init__(
        self, audit: Audit, clock: Callable[[], datetime], write: Callable[[Callable[[Connection], None]], None]
    ):
        """Nothing is started before the first read is noted."""
        self._audit, self._clock, self._write = audit, clock, write
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._pulls = Pulls()
        self._entries: list[Entry] = []
        self._timer: threading.Timer | None = None

    def note(self, *, principal: str, source: str, subject: str, after: str = "") -> None:
        """Record that `principal` read `subject`; `after` says what was answered."""
        entry = Entry(
            event=Event.READ, principal=principal, source=source, subject=subject, after=after, time=self._clock()
        )
        with self._lock:
            self._entries.append(entry)
            full = len(self._entries) >= MAX_BATCH
            if self._timer is None:
                self._timer = threading.Timer(BATCH_SECONDS, self.flush)
                self._timer.daemon = True
                self._timer.start()
        if full:
            self.flush()

    def waiting(self) -> int:
        """How many reads are not written yet."""
        return len(self._entries)

    def flush(self) -> None:
        """Write what was noted; also at the end of the process."""
        with self._lock:
            entries, self._entries = self._entries, []
            timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()
        if entries:
            with self._writing:
                self._write(lambda conn: self._put(conn, entries))

    def _put(self, conn: Connection, entries: Sequence[Entry]) -> None:
        pulls = self._pulls.among((entry.subject, entry.after, entry.time or self._clock()) for entry in entries)
        note_pulls(conn, pulls)
        self._audit.append_all(conn, entries)
        self._pulls.written(pulls)


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
