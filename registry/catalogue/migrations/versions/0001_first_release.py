"""The tables of the first release, as they were then."""

from __future__ import annotations

from typing import Final

from alembic import op
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)

from registry.catalogue.migrations.types import bytewise

revision: Final = "0001"
down_revision: Final = None

metadata = MetaData()

_DIGEST = bytewise(136)
_MOMENT = BigInteger()
_REPOSITORY = bytewise(255)
_TAG = bytewise(128)
_NAME = bytewise(255)
_MEDIA_TYPE = bytewise(255)
_TEXT = bytewise()
_ROWID = BigInteger().with_variant(Integer, "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("value", _TEXT, nullable=False),
)

accounts = Table(
    "accounts",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("role", bytewise(16), nullable=False),
    Column("repositories", _TEXT, nullable=False),
    Column("secret", bytewise(64), nullable=False),
    Column("created", _MOMENT, nullable=False),
    Column("created_by", _NAME, nullable=False),
    Column("expires", _MOMENT),
)

repositories = Table(
    "repositories",
    metadata,
    Column("name", _REPOSITORY, primary_key=True),
    Column("created", _MOMENT, nullable=False),
    Column("created_by", _NAME, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created", _MOMENT, nullable=False),
)

repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("added", _MOMENT, nullable=False),
    Column("added_by", _NAME, nullable=False),
    PrimaryKeyConstraint("repository", "digest"),
    ForeignKeyConstraint(["repository"], ["repositories.name"]),
    ForeignKeyConstraint(["digest"], ["blobs.digest"]),
)
Index("repository_blobs_by_digest", repository_blobs.c.digest)

contents = Table(
    "contents",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)

manifests = Table(
    "manifests",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("media_type", _MEDIA_TYPE, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("kind", bytewise(8), nullable=False),
    Column("artifact_type", _MEDIA_TYPE, nullable=False, default=""),
    Column("subject", _DIGEST),
    Column("state_of", _DIGEST),
    Column("annotations", _TEXT, nullable=False, default="{}"),
    Column("pushed", _MOMENT, nullable=False),
    Column("pushed_by", _NAME, nullable=False),
    PrimaryKeyConstraint("repository", "digest"),
    ForeignKeyConstraint(["repository"], ["repositories.name"]),
    ForeignKeyConstraint(["digest"], ["contents.digest"]),
    CheckConstraint("kind IN ('image', 'index', 'artifact')", name="manifest_kind"),
)
Index("manifests_by_state_of", manifests.c.repository, manifests.c.state_of)
Index("manifests_by_subject", manifests.c.repository, manifests.c.subject, manifests.c.digest)
Index("manifests_by_digest", manifests.c.digest)

references = Table(
    "manifest_references",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("manifest", _DIGEST, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("kind", bytewise(8), nullable=False),
    PrimaryKeyConstraint("repository", "manifest", "digest", "kind"),
    ForeignKeyConstraint(["repository", "manifest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
    CheckConstraint("kind IN ('config', 'layer', 'child')", name="reference_kind"),
)
Index("references_by_digest", references.c.repository, references.c.digest)

tags = Table(
    "tags",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("tag", _TAG, nullable=False),
    Column("pushed", _DIGEST, nullable=False),
    Column("pushed_at", _MOMENT, nullable=False),
    Column("pushed_by", _NAME, nullable=False),
    Column("served", _DIGEST),
    Column("served_at", _MOMENT),
    Column("number", BigInteger, nullable=False, default=0),
    Column("statement", LargeBinary),
    PrimaryKeyConstraint("repository", "tag"),
    ForeignKeyConstraint(["repository", "pushed"], ["manifests.repository", "manifests.digest"]),
)
Index("tags_by_pushed", tags.c.repository, tags.c.pushed)
Index("tags_by_served", tags.c.repository, tags.c.served)

uploads = Table(
    "uploads",
    metadata,
    Column("id", bytewise(32), primary_key=True),
    Column("repository", _REPOSITORY, nullable=False),
    Column("account", _NAME, nullable=False),
    Column("size", BigInteger, nullable=False, default=0),
    Column("digest", _DIGEST),
    Column("parts", _TEXT, nullable=False, default=""),
    Column("started", _MOMENT, nullable=False),
    Column("touched", _MOMENT, nullable=False),
    Column("holder", bytewise(32), nullable=False, default=""),
    Column("held_until", _MOMENT),
)
Index("uploads_by_account", uploads.c.account)
Index("uploads_by_touched", uploads.c.touched)

images = Table(
    "images",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("state", bytewise(16), nullable=False),
    Column("level", _NAME, nullable=False, default=""),
    Column("parent", _DIGEST),
    Column("reason", _NAME, nullable=False, default=""),
    Column("message", _TEXT, nullable=False, default=""),
    Column("until", _MOMENT),
    Column("decision", _DIGEST),
    Column("revoked_by", BigInteger, nullable=False, default=0),
    Column("first_seen", _MOMENT, nullable=False),
    Column("changed", _MOMENT, nullable=False),
    Column("judged", _MOMENT),
    PrimaryKeyConstraint("repository", "digest"),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
    CheckConstraint("state IN ('quarantined', 'cleared', 'warning', 'grace', 'denied', 'revoked')", name="image_state"),
)
Index("images_by_state", images.c.state, images.c.repository)
Index("images_by_digest", images.c.digest)

image_keys = Table(
    "image_keys",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("key", bytewise(160), nullable=False),
    PrimaryKeyConstraint("repository", "digest", "key"),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
)
Index("image_keys_by_key", image_keys.c.key)

layers = Table(
    "layers",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("reader", Integer, nullable=False),
    Column("diff_id", _DIGEST, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("compression", bytewise(8), nullable=False),
    Column("read", _MOMENT, nullable=False),
)
Index("layers_by_diff_id", layers.c.diff_id)

statements = Table(
    "statements",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("type", _NAME, nullable=False),
    Column("subject", _DIGEST),
    Column("number", BigInteger),
    Column("envelope", LargeBinary, nullable=False),
    Column("received", _MOMENT, nullable=False),
    Column("received_by", _NAME, nullable=False),
    Column("expires", _MOMENT),
    Column("withdrawn", _MOMENT),
)
Index("statements_by_type", statements.c.type, statements.c.number)
Index("statements_by_subject", statements.c.subject)

statement_keys = Table(
    "statement_keys",
    metadata,
    Column("key", bytewise(160), nullable=False),
    Column("statement", _DIGEST, nullable=False),
    PrimaryKeyConstraint("key", "statement"),
    ForeignKeyConstraint(["statement"], ["statements.digest"], ondelete="CASCADE"),
)
Index("statement_keys_by_statement", statement_keys.c.statement)

trust = Table(
    "trust",
    metadata,
    Column("version", BigInteger, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("received", _MOMENT, nullable=False),
    Column("received_by", _NAME, nullable=False),
)

decisions = Table(
    "decisions",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("repository", _REPOSITORY, nullable=False),
    Column("image", _DIGEST, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("evidence", _DIGEST, nullable=False),
    Column("taken", _MOMENT, nullable=False),
)
Index("decisions_by_image", decisions.c.repository, decisions.c.image, decisions.c.taken)

clearances = Table(
    "clearances",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", _DIGEST, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("referrer", _DIGEST),
    Column("issued", _MOMENT, nullable=False),
    Column("expires", _MOMENT, nullable=False),
    PrimaryKeyConstraint("repository", "digest"),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
)
Index("clearances_by_expiry", clearances.c.expires)

audit = Table(
    "audit",
    metadata,
    Column("seq", _ROWID, primary_key=True, autoincrement=False),
    Column("time", _MOMENT, nullable=False),
    Column("event", bytewise(64), nullable=False),
    Column("principal", _NAME, nullable=False),
    Column("source", _NAME, nullable=False),
    Column("subject", _TEXT, nullable=False),
    Column("before", _TEXT, nullable=False),
    Column("after", _TEXT, nullable=False),
    Column("previous", bytewise(64), nullable=False),
    Column("hash", bytewise(64), nullable=False),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("seq", BigInteger, primary_key=True),
    Column("envelope", LargeBinary, nullable=False),
    Column("time", _MOMENT, nullable=False),
)

advisories = Table(
    "advisories",
    metadata,
    Column("digest", _DIGEST, primary_key=True),
    Column("kind", bytewise(16), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("date", _MOMENT, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("imported", _MOMENT, nullable=False),
    Column("imported_by", _NAME, nullable=False),
    Column("current", Boolean, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", _ROWID, primary_key=True, autoincrement=True),
    Column("kind", bytewise(32), nullable=False),
    Column("subject", _TEXT, nullable=False),
    Column("priority", Integer, nullable=False, default=0),
    Column("wanted", BigInteger, nullable=False, default=1),
    Column("not_before", _MOMENT, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("claimed_by", bytewise(64), nullable=False, default=""),
    Column("claimed_until", _MOMENT),
    Column("error", _TEXT, nullable=False, default=""),
    Column("created", _MOMENT, nullable=False),
    UniqueConstraint("kind", "subject", name="one_job_a_subject"),
)
Index("jobs_by_time", jobs.c.not_before)


def upgrade() -> None:
    """Make them."""
    metadata.create_all(op.get_bind(), checkfirst=False)
