"""What the collector goes by: leases, marks of what is being deleted, times of last use, hosts' reports, its runs."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Integer,
    PrimaryKeyConstraint,
)

from registry.catalogue.migrations.types import bytewise

revision: Final = "0004"
down_revision: Final = "0003"

_DIGEST = bytewise(136)
_NAME = bytewise(255)


def upgrade() -> None:
    """Make the tables, columns and indexes; what is there counts by when it came."""
    op.add_column("blobs", Column("deleting", BigInteger))
    op.add_column("blobs", Column("deleting_by", bytewise(32)))
    op.add_column("repository_blobs", Column("touched", BigInteger))
    op.add_column("manifests", Column("touched", BigInteger))
    op.create_index("decisions_by_evidence", "decisions", ["evidence"])
    op.create_table(
        "leases",
        Column("digest", _DIGEST, nullable=False),
        Column("id", bytewise(32), nullable=False),
        Column("until", BigInteger, nullable=False),
        Column("why", bytewise(32), nullable=False),
        PrimaryKeyConstraint("digest", "id"),
    )
    _running()
    op.create_table(
        "collections",
        Column("id", bytewise(32), primary_key=True),
        Column("requested", BigInteger, nullable=False),
        Column("requested_by", _NAME, nullable=False),
        Column("dry_run", Boolean, nullable=False),
        Column("state", bytewise(8), nullable=False),
        Column("worker", bytewise(64), nullable=False),
        Column("started", BigInteger),
        Column("ended", BigInteger),
        Column("until", BigInteger),
        Column("report", bytewise(), nullable=False),
        CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name="collection_state"),
    )
    op.create_index("collections_by_time", "collections", ["requested"])


def _running() -> None:
    op.create_table(
        "pulls",
        Column("repository", bytewise(255), nullable=False),
        Column("digest", _DIGEST, nullable=False),
        Column("pulled", BigInteger, nullable=False),
        PrimaryKeyConstraint("repository", "digest"),
    )
    op.create_table(
        "running_reports",
        Column("account", _NAME, primary_key=True),
        Column("reported", BigInteger, nullable=False),
        Column("images", Integer, nullable=False),
    )
    op.create_table(
        "running",
        Column("account", _NAME, nullable=False),
        Column("repository", bytewise(255), nullable=False),
        Column("digest", _DIGEST, nullable=False),
        PrimaryKeyConstraint("account", "repository", "digest"),
        ForeignKeyConstraint(["account"], ["running_reports.account"], ondelete="CASCADE"),
    )
    op.create_index("running_by_digest", "running", ["digest"])
