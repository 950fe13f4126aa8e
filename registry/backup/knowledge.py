"""What the signer remembers and a restored catalogue does not: officers' later word is not lost with the database.

The signer's memory is kept apart from the catalogue, and never goes back. So after a catalogue was restored, the memory
may know a newer trust.json, revocation list, policy or floor, and withdrawals: they are taken into the catalogue, where
each is proven like one that is handed in. Until then the signer would refuse to sign by what is older.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, select, update

from ocispec.digest import Digest
from policy.errors import PolicyError
from policy.statements import RevocationList
from policy.trust import Trust
from registry import statements
from registry.audit import Audit, Event
from registry.backup.file import Head
from registry.catalogue import schema
from registry.errors import BackupError
from registry.revoking import revoke_now
from registry.settings import Settings
from registry.signer.identity import memory_place, open_memory
from registry.signer.memory import Memory, TagMemory, facts

BY: Final = "signer memory"
"""Who statements are received from that come from there."""

_ADOPT: Final = (
    "a start is refused until `pratique serve --adopt-signer`; hosts refuse numbers lower than they have seen"
)


def check_memory(settings: Settings, head: Head, *, older: bool) -> tuple[str, ...]:
    """Whether a backup and the signer's memory go together; returns notes for the operator.

    Raises:
        BackupError: the memory is an older copy than the one beside which the backup was made, and `older` is false.
    """
    try:
        known = facts(memory_place(settings))
    except OSError as error:
        raise BackupError(f"signer memory: {error}; restoring needs to read it") from error
    if not head.memory or known.get("id") == head.memory:
        generation = int(known.get("generation", "0"))
        if head.memory and generation < head.generation and not older:
            raise BackupError(
                f"signer memory {head.memory}: knows {generation} changes, the backup was made when it knew "
                f"{head.generation}: an older copy, which would sign numbers that hosts refuse (--older-memory goes on)"
            )
        return ()
    found = f"is {known['id']}" if "id" in known else "is not there"
    return (f"the backup's statements come from signer memory {head.memory}; the one here {found}: {_ADOPT}",)


def take_newer(conn: Connection, settings: Settings, audit: Audit, now: datetime) -> tuple[str, ...]:
    """Take into the catalogue what the signer's memory knows and it does not, under `statements.lock_statements`.

    Returns what was taken, for the operator.

    Raises:
        SignerMemoryError: the memory cannot be read.
    """
    if "id" not in facts(memory_place(settings)):
        return ()
    memory = open_memory(settings)
    try:
        if conn.scalar(select(schema.meta.c.value).where(schema.meta.c.name == "signer")) not in {None, memory.id()}:
            return ()
        taken = tuple(_taken(conn, memory, audit, now))
        _raise_tags(conn, memory)
    finally:
        memory.close()
    return taken


def _taken(conn: Connection, memory: Memory, audit: Audit, now: datetime) -> Iterator[str]:
    newest = memory.current("trust")
    if newest is not None and newest.number > _trust_version(conn):
        try:
            statements.accept_trust(conn, newest.envelope, by=BY, now=now)
        except PolicyError as error:
            yield f"trust.json {newest.number} of the signer's memory was not taken: {error}"
        else:
            audit.append(
                conn, Event.TRUST, principal=BY, subject=f"trust.json {newest.number}", after=str(newest.digest)
            )
            yield f"trust.json {newest.number} taken from the signer's memory"
    trust = statements.trust_in_force(conn, now)
    if trust is not None:
        for prefix in ("list", "policy:", "floor:"):
            yield from _statements(conn, memory, trust, prefix, audit, now)
    for digest in memory.withdrawals():
        if _withdraw(conn, digest, now):
            audit.append(conn, Event.STATEMENT, principal=BY, subject=f"statement {digest}", after="withdrawn")
            yield f"statement {digest} was withdrawn after the backup"


def _statements(
    conn: Connection, memory: Memory, trust: Trust, prefix: str, audit: Audit, now: datetime
) -> Iterator[str]:
    for current in memory.currents(prefix):
        known = select(schema.statements.c.digest).where(schema.statements.c.digest == current.digest)
        if conn.scalar(known) is not None:
            continue
        what = f"{_called(current.name)} {current.number}"
        try:
            accepted = statements.accept(conn, trust, current.envelope, by=BY, now=now)
        except PolicyError as error:
            yield f"{what} of the signer's memory was not taken: {error}"
            continue
        event = Event.POLICY if prefix == "policy:" else Event.STATEMENT
        audit.append(conn, event, principal=BY, subject=f"statement {current.digest}", after=what)
        if isinstance(listed := accepted.signed.statement, RevocationList):
            revoke_now(conn, audit, listed, by=BY, source="", now=now)
        yield f"{what} taken from the signer's memory"


def _called(name: str) -> str:
    return "revocation list" if name == "list" else name.replace(":", " ")


def _trust_version(conn: Connection) -> int:
    return max((version for version, _ in statements.stored_trusts(conn)), default=0)


def _withdraw(conn: Connection, digest: Digest, now: datetime) -> bool:
    table = schema.statements
    this = update(table).where(table.c.digest == digest, table.c.withdrawn.is_(None))
    return bool(conn.execute(this.values(withdrawn=now)).rowcount)


def _raise_tags(conn: Connection, memory: Memory) -> None:
    """An older copy of the memory is told the numbers of tags that the backup knows."""
    table = schema.tags.c
    numbered = select(table.repository, table.tag, table.number, table.served).where(table.number > 0)
    with memory.change():
        for row in conn.execute(numbered):
            before = memory.tag(row.repository, row.tag)
            if row.served is not None and (before is None or before.number < row.number):
                made = TagMemory(number=row.number, digest=row.served, day=0, moves=0)
                memory.put_tag(row.repository, row.tag, made)
