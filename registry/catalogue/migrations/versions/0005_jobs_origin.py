"""Which request a job began with, and its trace."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import Column

from registry.catalogue.migrations.types import bytewise

revision: Final = "0005"
down_revision: Final = "0004"


def upgrade() -> None:
    """Add to the jobs."""
    op.add_column("jobs", Column("request", bytewise(64), nullable=False, server_default=""))
    op.add_column("jobs", Column("trace", bytewise(55), nullable=False, server_default=""))
