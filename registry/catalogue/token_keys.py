"""The public halves of the keys that tokens are signed with, so that every instance believes every other's tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, select

from registry.catalogue.database import insert_row
from registry.catalogue.generations import ACCOUNTS, advance
from registry.catalogue.schema import token_keys


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenKey:
    """A public key: `public` are the 32 bytes of Ed25519 (RFC 8032), `ends` is when its last token has ended."""

    id: str
    public: bytes
    made: datetime
    made_by: str
    ends: datetime


def add_key(conn: Connection, key: TokenKey) -> None:
    """Publish a key, and drop those that have ended."""
    conn.execute(delete(token_keys).where(token_keys.c.ends < key.made))
    insert_row(conn, token_keys, id=key.id, public=key.public, made=key.made, made_by=key.made_by, ends=key.ends)


def find_key(conn: Connection, key_id: str) -> TokenKey | None:
    """The key of that id, also one that has ended."""
    row = conn.execute(select(token_keys).where(token_keys.c.id == key_id)).first()
    return None if row is None else TokenKey(**row._mapping)


def list_keys(conn: Connection) -> tuple[TokenKey, ...]:
    """All keys, oldest first."""
    rows = conn.execute(select(token_keys).order_by(token_keys.c.made, token_keys.c.id))
    return tuple(TokenKey(**row._mapping) for row in rows)


def withdraw_keys(conn: Connection) -> int:
    """Take all keys away, and with them every token; returns how many there were. Their makers make new ones."""
    advance(conn, ACCOUNTS)
    return conn.execute(delete(token_keys)).rowcount
