"""Passwords and invitations of people, client certificates, token keys, and the generation of what is remembered."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, LargeBinary

from registry.catalogue.migrations.types import bytewise

revision: Final = "0002"
down_revision: Final = "0001"


def upgrade() -> None:
    """Add to the accounts, and make three tables."""
    op.add_column("accounts", Column("kind", bytewise(8), nullable=False, server_default="robot"))
    op.add_column("accounts", Column("password", bytewise(), nullable=False, server_default=""))
    op.add_column("accounts", Column("invitation", bytewise(64), nullable=False, server_default=""))
    op.add_column("accounts", Column("invited_until", BigInteger))
    op.add_column("accounts", Column("version", BigInteger, nullable=False, server_default="0"))
    op.create_table(
        "account_certificates",
        Column("certificate", bytewise(300), primary_key=True),
        Column("account", bytewise(255), nullable=False),
        ForeignKeyConstraint(["account"], ["accounts.name"], ondelete="CASCADE"),
    )
    op.create_index("account_certificates_by_account", "account_certificates", ["account"])
    op.create_table(
        "token_keys",
        Column("id", bytewise(43), primary_key=True),
        Column("public", LargeBinary, nullable=False),
        Column("made", BigInteger, nullable=False),
        Column("made_by", bytewise(255), nullable=False),
        Column("ends", BigInteger, nullable=False),
    )
    op.create_index("token_keys_by_end", "token_keys", ["ends"])
    op.create_table(
        "generations", Column("name", bytewise(255), primary_key=True), Column("number", BigInteger, nullable=False)
    )
