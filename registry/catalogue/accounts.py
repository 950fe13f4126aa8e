"""Accounts: who may ask, in which role, with which rights in which repositories."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Row, bindparam, delete, func, select

from registry.access import ALL_RIGHTS, BOUNDS, REGISTRY, Grant, Principal, Right, Role
from registry.catalogue.database import insert_new
from registry.catalogue.schema import accounts
from registry.errors import AccountError

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
MAX_GRANTS: Final = 100
"""Grants of one account."""

_FIND: Final = select(accounts).where(accounts.c.name == bindparam("account"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A stored account; `secret` is the SHA-256, in hex, of the secret that was shown once."""

    name: str
    role: Role
    grants: tuple[Grant, ...]
    secret: str
    created: datetime
    created_by: str
    expires: datetime | None = None

    @property
    def principal(self) -> Principal:
        """Who a request with this account's secret comes from."""
        return Principal(name=self.name, role=self.role, grants=self.grants)


def find_account(conn: Connection, name: str) -> Account | None:
    """The account of that name."""
    row = conn.execute(_FIND, {"account": name}).first()
    return _account(row) if row is not None else None


def list_accounts(conn: Connection) -> tuple[Account, ...]:
    """All accounts, by name."""
    return tuple(_account(row) for row in conn.execute(select(accounts).order_by(accounts.c.name)))


def count_accounts(conn: Connection, role: Role) -> int:
    """How many accounts have `role`."""
    return conn.scalar(select(func.count()).where(accounts.c.role == str(role))) or 0


def add_account(conn: Connection, account: Account) -> None:
    """Store a new account.

    Raises:
        AccountError: the name, the role or a glob is not one, or the name is taken.
    """
    if _NAME.fullmatch(account.name) is None:
        raise AccountError(f"account {account.name[:80]!r}: expected [a-z0-9][a-z0-9._-]{{0,62}}")
    if account.role is Role.REGISTRY or account.name == REGISTRY.name:
        raise AccountError(f"account {account.name} ({account.role}): only the registry itself is called so")
    if not 1 <= len(account.grants) <= MAX_GRANTS:
        raise AccountError(f"account {account.name}: got {len(account.grants)} grants, expected 1 to {MAX_GRANTS}")
    for grant in account.grants:
        Grant.parse(str(grant))
        bound = BOUNDS[account.role]
        if grant.rights != ALL_RIGHTS and not grant.rights <= bound:
            most = ", ".join(right for right in Right if right in bound) or "nothing"
            raise AccountError(
                f"account {account.name} ({account.role}): grant {grant}, a role that has at most {most}"
            )
    stored = insert_new(
        conn,
        accounts,
        name=account.name,
        role=str(account.role),
        repositories="\n".join(map(str, account.grants)),
        secret=account.secret,
        created=account.created,
        created_by=account.created_by,
        expires=account.expires,
    )
    if not stored:
        raise AccountError(f"account {account.name}: there is one of that name")


def remove_account(conn: Connection, name: str) -> bool:
    """Remove an account; False if there was none."""
    return bool(conn.execute(delete(accounts).where(accounts.c.name == name)).rowcount)


def _account(row: Row[tuple[object, ...]]) -> Account:
    return Account(
        name=row.name,
        role=Role(row.role),
        grants=tuple(map(Grant.parse, row.repositories.split("\n"))),
        secret=row.secret,
        created=row.created,
        created_by=row.created_by,
        expires=row.expires,
    )
