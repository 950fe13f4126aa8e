"""What other registries said of what is a copy of theirs."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import BigInteger, Column, PrimaryKeyConstraint

from registry.catalogue.migrations.types import bytewise

revision: Final = "0008"
down_revision: Final = "0007"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "mirrored",
        Column("repository", bytewise(255), nullable=False),
        Column("reference", bytewise(136), nullable=False),
        Column("said", bytewise(8), nullable=False),
        Column("checked", BigInteger, nullable=False),
        Column("detail", bytewise(), nullable=False),
        PrimaryKeyConstraint("repository", "reference"),
    )
    op.create_index("mirrored_by_time", "mirrored", ["checked"])
