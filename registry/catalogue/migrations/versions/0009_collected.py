"""Runs of the collector that are taken up again, and what each took away, one by one."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column, ForeignKeyConstraint, Integer, PrimaryKeyConstraint

from registry.catalogue.migrations.types import bytewise

revision: Final = "0009"
down_revision: Final = "0008"


def upgrade() -> None:
    """Make the columns and the table."""
    op.add_column("collections", Column("attempt", bytewise(32)))
    op.add_column("collections", Column("attempts", Integer, nullable=False, server_default="0"))
    op.create_table(
        "collected",
        Column("run", bytewise(32), nullable=False),
        Column("number", BigInteger, nullable=False),
        Column("reason", bytewise(32), nullable=False),
        Column("subject", bytewise(), nullable=False),
        Column("bytes", BigInteger, nullable=False),
        Column("detail", bytewise(), nullable=False),
        PrimaryKeyConstraint("run", "number"),
        ForeignKeyConstraint(["run"], ["collections.id"], ondelete="CASCADE"),
    )
