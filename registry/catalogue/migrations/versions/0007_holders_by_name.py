"""Who holds a blob is found by name too: looking in some repositories does not touch the others (R4)."""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "0007"
down_revision: Final = "0006"


def upgrade() -> None:
    """Make the index anew, with the repository in it."""
    op.drop_index("repository_blobs_by_digest", "repository_blobs")
    op.create_index("repository_blobs_by_digest", "repository_blobs", ["digest", "repository"])
