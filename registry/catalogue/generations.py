"""Counters of what processes remember of the catalogue: whoever changes that advances its counter in the transaction.

A process that remembers an answer keeps the number that it had read before it asked, and asks again once it reads
another one.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, bindparam, select, update

from registry.catalogue.database import insert_new
from registry.catalogue.schema import generations

ACCOUNTS: Final = "accounts"
"""An account was changed or removed, or token keys were withdrawn. A new account changes no answer that is kept."""

_FIND: Final = select(generations.c.number).where(generations.c.name == bindparam("counter"))


def generation(conn: Connection, name: str) -> int:
    """The number of a counter; 0 before it was ever advanced."""
    return conn.scalar(_FIND, {"counter": name}) or 0


def advance(conn: Connection, name: str) -> None:
    """Give a counter its next number."""
    insert_new(conn, generations, name=name, number=0)
    conn.execute(update(generations).where(generations.c.name == name).values(number=generations.c.number + 1))
