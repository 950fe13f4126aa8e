"""A robot's secret before the newest, which may count for a while beside it."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column

from registry.catalogue.migrations.types import bytewise

revision: Final = "0010"
down_revision: Final = "0009"


def upgrade() -> None:
    """Add to the accounts."""
    op.add_column("accounts", Column("old_secret", bytewise(64), nullable=False, server_default=""))
    op.add_column("accounts", Column("old_until", BigInteger))
