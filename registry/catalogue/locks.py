"""Locks of whole transactions on PostgreSQL (advisory: they bind whoever asks for them). SQLite has one writer anyway.

Whoever needs several takes them in this order, so that no two wait for each other:

 (1) STATEMENTS, ACCOUNTS, COLLECTION;
 (2) a repository (`blobs.hold_repository`, a lock on its row), and then RULES;
 (3) names: hosts' reports, `hold_alone` of a repository's judgements, then digests (`hold_name`, `take_name`);
 (4) rows, several of one table by their keys;
 (5) CHAIN, which is only taken at the end of a transaction (`database.run_last`), by whoever has all other locks that
     it needs: so nobody who holds it waits for anything.

Where rows are locked in another order after all, PostgreSQL undoes one of the two after a second, and
`Catalogue.change` does it anew.
"""

from __future__ import annotations

from enum import IntEnum

from sqlalchemy import Connection, text


class Lock(IntEnum):
    """What one transaction at a time does; the numbers are shared by all instances, and never change."""

    CHAIN = 0x70726174
    """Appending to the audit chain, and counting what is used of quotas."""
    RULES = 0x7072756C
    """Changing rules, while nobody is in the middle of keeping to the old ones."""
    STATEMENTS = 0x70727374
    """Taking in what judgements rest on; shared by whoever writes what a judgement came to, so that a judgement that
    began before a statement is either written before it, and seen by it, or not at all."""
    ACCOUNTS = 0x70726163
    """Changing accounts and what they are known by: an admin must stay, and an invitation counts once."""
    COLLECTION = 0x7072636C
    """Beginning a run of the collector."""


def hold(conn: Connection, lock: Lock, *, shared: bool = False) -> None:
    """Wait for a lock, and keep it until the transaction ends; one that is `shared` is held by many."""
    if conn.dialect.name == "postgresql":
        function = "pg_advisory_xact_lock_shared" if shared else "pg_advisory_xact_lock"
        conn.execute(text(f"SELECT {function}(:lock)"), {"lock": int(lock)})


def hold_name(conn: Connection, name: str) -> None:
    """Have nobody take what is called so (`take_name`) before this transaction ends; many may hold it at a time.

    Names that fall together (one pair in 2^64) only wait for each other.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock_shared(hashtextextended(:name, 0))"), {"name": name})


def hold_alone(conn: Connection, name: str) -> None:
    """Wait until nobody holds what is called so, and be the only one until this transaction ends."""
    if conn.dialect.name == "postgresql":
        conn.execute(text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": name})


def take_name(conn: Connection, name: str) -> bool:
    """Be the only one in this transaction to do with what is called so; False, at once, if somebody holds it."""
    if conn.dialect.name != "postgresql":
        return True
    taken = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
    return bool(conn.scalar(taken, {"name": name}))
