"""Blobs that the registry itself holds, in no repository: advisory data."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import Column, ForeignKeyConstraint

from registry.catalogue.migrations.types import bytewise

revision: Final = "0006"
down_revision: Final = "0005"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "holds",
        Column("holder", bytewise(255), primary_key=True),
        Column("digest", bytewise(136), nullable=False),
        ForeignKeyConstraint(["digest"], ["blobs.digest"]),
    )
    op.create_index("holds_by_digest", "holds", ["digest"])
