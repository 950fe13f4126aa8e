"""Rules for repositories, and the counters of those that are quotas."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint, text

from registry.catalogue.migrations.types import bytewise

revision: Final = "0003"
down_revision: Final = "0002"


def upgrade() -> None:
    """Make the tables, and say that there is no rule yet."""
    op.create_table(
        "rules",
        Column("pattern", bytewise(255), nullable=False),
        Column("kind", bytewise(16), nullable=False),
        Column("value", bytewise(), nullable=False),
        Column("changed", BigInteger, nullable=False),
        Column("changed_by", bytewise(255), nullable=False),
        PrimaryKeyConstraint("pattern", "kind"),
    )
    op.create_table(
        "quota_usage",
        Column("pattern", bytewise(255), primary_key=True),
        Column("bytes", BigInteger, nullable=False),
        Column("repositories", BigInteger, nullable=False),
        Column("manifests", BigInteger, nullable=False),
        Column("tags", BigInteger, nullable=False),
    )
    op.execute(text("INSERT INTO meta (name, value) VALUES ('rules', '')"))
