"""What a restored catalogue is like: its audit chain, and whether the store has what it names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NoReturn

from sqlalchemy import Connection, select

from ocispec.digest import Digest
from policy.errors import TrustError
from policy.evidence import Verify
from registry import audit, statements
from registry.backup.file import Head
from registry.catalogue import schema
from registry.catalogue.database import Catalogue
from registry.judge.derived import evidence_key
from registry.store.interface import BlobStore

_PAGE: Final = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """`missing` are blobs that the catalogue names and the store does not have, or has with another size; `evidence`
    that of Decisions; `problems` are those of the audit chain."""

    blobs: int
    records: int
    covered: int
    missing: tuple[str, ...] = field(default=())
    evidence: int = 0
    problems: tuple[str, ...] = field(default=())

    @property
    def sound(self) -> bool:
        """True if nothing is missing or wrong."""
        return not self.missing and not self.problems


def look(catalogue: Catalogue, store: BlobStore, registry: str, head: Head, now: datetime) -> Found:
    """Look at a catalogue that was restored from the backup with that head.

    Raises:
        CatalogueError, StorageError: database or store failed.
    """
    with catalogue.read() as conn:
        report = _chain(conn, registry, now)
        problems = [f"{problem.code} at record {problem.seq}: {problem.detail}" for problem in report.problems]
        if head.records and (at_end := _hash(conn, head.records)) != head.chain:
            problems.append(f"record {head.records} has hash {at_end}, the backup's head says {head.chain}")
        # What is being deleted may be gone: the collector sees to the rest.
        table = schema.blobs.c
        rows = conn.execute(select(table.digest, table.size).where(table.deleting.is_(None))).all()
        evidence = set(conn.scalars(select(schema.decisions.c.evidence)))
    stored = {found.digest: found.size for found in store.listing()}
    missing = [_lacking(row.digest, row.size, stored.get(row.digest)) for row in rows]
    kept = {found.key for found in store.derived_listing()} if evidence else set()
    return Found(
        blobs=len(rows),
        records=report.records,
        covered=report.covered,
        missing=tuple(line for line in missing if line),
        evidence=sum(evidence_key(digest) not in kept for digest in evidence),
        problems=tuple(problems),
    )


def _lacking(digest: Digest, size: int, stored: int | None) -> str:
    if stored == size:
        return ""
    return f"{digest} of {size} bytes" + (f": the store has {stored}" if stored is not None else "")


def _chain(conn: Connection, registry: str, now: datetime) -> audit.AuditReport:
    trust = statements.trust_in_force(conn, now)
    signed = conn.scalars(select(schema.checkpoints.c.envelope).order_by(schema.checkpoints.c.seq)).all()
    verify: Verify = trust.verifier(now) if trust is not None else _nobody
    return audit.verify(_records(conn), signed, verify_envelope=verify, registry=registry)


def _records(conn: Connection) -> Iterator[audit.Record]:
    after = 0
    while page := audit.read(conn, after=after, limit=_PAGE):
        yield from page
        after = page[-1].seq


def _hash(conn: Connection, seq: int) -> str | None:
    return conn.scalar(select(schema.audit.c.hash).where(schema.audit.c.seq == seq))


def _nobody(envelope: bytes) -> NoReturn:
    raise TrustError("no-trust", "checkpoint", "there is no trust.json")
