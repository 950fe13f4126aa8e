"""Indexes by which one look or one page costs the same however many manifests there are."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import text

revision: Final = "0011"
down_revision: Final = "0010"

_PARTIAL: Final = (
    ("manifests_by_type", ["repository", "subject", "artifact_type", "digest"], "subject IS NOT NULL"),
    ("manifests_own", ["repository", "subject", "digest"], "pushed_by = 'registry' AND subject IS NOT NULL"),
    ("manifests_alone", ["repository", "artifact_type"], "kind = 'artifact' AND state_of IS NULL"),
)


def upgrade() -> None:
    """Make them."""
    for name, columns, where in _PARTIAL:
        op.create_index(name, "manifests", columns, sqlite_where=text(where), postgresql_where=text(where))
    op.drop_index("references_by_digest", "manifest_references")
    op.create_index("references_by_digest", "manifest_references", ["repository", "digest", "manifest", "kind"])
    op.drop_index("images_by_state", "images")
    op.create_index("images_by_state", "images", ["state", "repository", "digest"])
    for table in ("manifests", "images"):
        op.drop_index(f"{table}_by_digest", table)
        op.create_index(f"{table}_by_digest", table, ["digest", "repository"])
    parent = text("parent IS NOT NULL")
    op.create_index("images_by_parent", "images", ["parent"], sqlite_where=parent, postgresql_where=parent)
    for value in ("pushed", "served"):
        op.drop_index(f"tags_by_{value}", "tags")
        op.create_index(f"tags_by_{value}", "tags", ["repository", value, "tag"])
    op.create_index("jobs_by_priority", "jobs", ["priority", "not_before", "id"])
