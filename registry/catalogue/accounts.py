"""Accounts: who may ask, in which role, with which rights in which repositories, and what they are known by.

A robot has a secret, a person a password, or an invitation until it has set one; any of them may have client
certificates. Each change of what an account may or is known by gives it another `version`, and makes every process ask
again (`generations`).
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import Connection, Row, bindparam, delete, func, select, update

from registry.access import ALL_RIGHTS, BOUNDS, REGISTRY, Grant, Principal, Right, Role
from registry.catalogue.database import insert_new
from registry.catalogue.generations import ACCOUNTS, advance
from registry.catalogue.schema import account_certificates, accounts
from registry.errors import AccountError

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
MAX_GRANTS: Final = 100
"""Grants of one account."""

MAX_CERTIFICATES: Final = 16
"""Names of certificates that one account is bound to."""

TOKEN_NAME: Final = "oidc"  # noqa: S105 -- a name, and no account's
"""What stands in place of an account's name where a bearer token is given as the secret."""

ANONYMOUS: Final = "anonymous"
"""Whoever shows nothing, where the settings let them read."""

_FIND: Final = select(accounts).where(accounts.c.name == bindparam("account"))
_CERTIFICATE: Final = re.compile(
    r"sha256:[0-9a-f]{64}|dns:[a-z0-9*._-]{1,253}|(?:uri|email|cn):[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?",
    re.ASCII,
)


class Kind(StrEnum):
    """What an account stands for."""

    ROBOT = "robot"
    PERSON = "person"


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A stored account.

    `secret` is the SHA-256, in hex, of a robot's secret that was shown once, "" of a person; `old_secret` that of the
    one before it, which counts until `old_until`. `password` is a person's
    (Argon2id), "" until one is set by `invitation` (SHA-256 of it, in hex), which counts until `invited_until`.
    """

    name: str
    role: Role
    grants: tuple[Grant, ...]
    secret: str
    created: datetime
    created_by: str
    expires: datetime | None = None
    kind: Kind = Kind.ROBOT
    password: str = field(default="", repr=False)
    invitation: str = field(default="", repr=False)
    invited_until: datetime | None = None
    old_secret: str = field(default="", repr=False)
    old_until: datetime | None = None
    version: int = field(default=0, compare=False)

    @property
    def principal(self) -> Principal:
        """Who a request with this account's credentials comes from."""
        return Principal(name=self.name, role=self.role, grants=self.grants)

    def has_ended(self, now: datetime) -> bool:
        """True at its date and after."""
        return self.expires is not None and self.expires <= now


def is_account_name(text: str) -> bool:
    """True if an account could be called so."""
    return _NAME.fullmatch(text) is not None


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
    """Store a new account, with a version of its own.

    Raises:
        AccountError: the name, the role or a grant is not one, or the name is taken.
    """
    _check(account)
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
        kind=str(account.kind),
        password=account.password,
        invitation=account.invitation,
        invited_until=account.invited_until,
        version=_new_version(),
    )
    if not stored:
        raise AccountError(f"account {account.name}: there is one of that name")


def remove_account(conn: Connection, name: str) -> bool:
    """Remove an account and what it is known by; False if there was none."""
    advance(conn, ACCOUNTS)
    return bool(conn.execute(delete(accounts).where(accounts.c.name == name)).rowcount)


def set_secret(conn: Connection, name: str, hashed: str, *, old: str = "", old_until: datetime | None = None) -> None:
    """Give a robot another secret; its tokens end, and so does the old secret if it is not kept until a moment."""
    _change(conn, name, secret=hashed, old_secret=old if old_until is not None else "", old_until=old_until)


def change_account(conn: Connection, changed: Account) -> None:
    """Give an account the grants and the end that `changed` has; its tokens end.

    Raises:
        AccountError: a grant is not one of its role.
    """
    _check(changed)
    _change(conn, changed.name, repositories="\n".join(map(str, changed.grants)), expires=changed.expires)


def set_password(conn: Connection, name: str, hashed: str) -> None:
    """Give a person a password; an older one, an invitation and tokens end."""
    _change(conn, name, password=hashed, invitation="", invited_until=None)


def invite(conn: Connection, name: str, hashed: str, until: datetime) -> None:
    """Let a person set a password; an older one and its tokens end."""
    _change(conn, name, password="", invitation=hashed, invited_until=until)


def rehash_password(conn: Connection, name: str, *, old: str, new: str) -> None:
    """Store the same password as it is hashed today, unless it was changed meanwhile."""
    same = (accounts.c.name == name) & (accounts.c.password == old)
    conn.execute(update(accounts).where(same).values(password=new))


# ---- client certificates ------------------------------------------------------------------------------------------


def bind_certificates(conn: Connection, account: str, certificates: Collection[str]) -> None:
    """Have certificates speak for an account.

    Raises:
        AccountError: too many, not the name of a certificate, or bound already.
    """
    if len(certificates) > MAX_CERTIFICATES:
        raise AccountError(f"account {account}: got {len(certificates)} certificates, expected {MAX_CERTIFICATES}")
    for certificate in certificates:
        if _CERTIFICATE.fullmatch(certificate) is None:
            expected = "expected sha256:<fingerprint in hex>, or a name behind dns:, uri:, email: or cn:"
            raise AccountError(f"account {account}: certificate {certificate[:80]!r}: {expected}")
        if not insert_new(conn, account_certificates, certificate=certificate, account=account):
            raise AccountError(f"account {account}: certificate {certificate} speaks for an account already")


def unbind_certificates(conn: Connection, account: str) -> None:
    """Have no certificate speak for an account any more."""
    _change(conn, account)
    conn.execute(delete(account_certificates).where(account_certificates.c.account == account))


def certificates_of(conn: Connection) -> dict[str, tuple[str, ...]]:
    """The certificates of each account that has any."""
    found: dict[str, list[str]] = {}
    for row in conn.execute(select(account_certificates).order_by(account_certificates.c.certificate)):
        found.setdefault(row.account, []).append(row.certificate)
    return {account: tuple(certificates) for account, certificates in found.items()}


def find_by_certificate(conn: Connection, certificates: Collection[str]) -> tuple[Account, ...]:
    """The accounts that any of these names of one certificate speaks for, by name."""
    bound = select(account_certificates.c.account).where(account_certificates.c.certificate.in_(certificates))
    return tuple(
        _account(row)
        for row in conn.execute(select(accounts).where(accounts.c.name.in_(bound)).order_by(accounts.c.name))
    )


def _check(account: Account) -> None:
    if not is_account_name(account.name):
        raise AccountError(f"account {account.name[:80]!r}: expected [a-z0-9][a-z0-9._-]{{0,62}}")
    if account.role is Role.REGISTRY or account.name in {REGISTRY.name, TOKEN_NAME, ANONYMOUS}:
        raise AccountError(f"account {account.name} ({account.role}): only the registry itself uses that name")
    if not 1 <= len(account.grants) <= MAX_GRANTS:
        raise AccountError(f"account {account.name}: got {len(account.grants)} grants, expected 1 to {MAX_GRANTS}")
    bound = BOUNDS[account.role]
    for grant in account.grants:
        Grant.parse(str(grant))
        if grant.rights != ALL_RIGHTS and not grant.rights <= bound:
            most = ", ".join(right for right in Right if right in bound) or "nothing"
            raise AccountError(
                f"account {account.name} ({account.role}): grant {grant}, a role that has at most {most}"
            )


def _change(conn: Connection, name: str, **values: object) -> None:
    advance(conn, ACCOUNTS)
    conn.execute(update(accounts).where(accounts.c.name == name).values(**values, version=_new_version()))


def _new_version() -> int:
    # By chance, so that an account that is made again under a name never has a version that one before it had.
    return secrets.randbits(52)  # tokens carry it as a JSON number


def _account(row: Row[tuple[object, ...]]) -> Account:
    return Account(
        name=row.name,
        role=Role(row.role),
        grants=tuple(map(Grant.parse, row.repositories.split("\n"))),
        secret=row.secret,
        created=row.created,
        created_by=row.created_by,
        expires=row.expires,
        kind=Kind(row.kind),
        password=row.password,
        invitation=row.invitation,
        invited_until=row.invited_until,
        old_secret=row.old_secret,
        old_until=row.old_until,
        version=row.version,
    )
