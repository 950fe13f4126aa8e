"""The indexes that lead from a manifest to its tags begin with the manifest, so that none is taken to find a tag."""

from __future__ import annotations

from typing import Final

from alembic import op

revision: Final = "0012"
down_revision: Final = "0011"


def upgrade() -> None:
    """Make them anew."""
    for value in ("pushed", "served"):
        op.drop_index(f"tags_by_{value}", "tags")
        op.create_index(f"tags_by_{value}", "tags", [value, "repository", "tag"])
