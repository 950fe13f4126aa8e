"""The tables of the catalogue.

Digests are text `algorithm:hex`, times whole seconds since the epoch, envelopes and manifests the exact bytes.
Nothing is stored twice that could be derived, but for `manifests.size` and `blobs.size`, which the hot path
reads. Who writes what: the web writes repositories, blobs, manifests, references, pushed tags and uploads; the
judge layers, images, decisions, clearances, served tags and jobs; both write audit records, in the same
transaction as the change that they record.
"""

from __future__ import annotations

from typing import Final

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
    text,
)

from registry.catalogue.columns import DigestText, Moment, bytewise

metadata = MetaData()

_REPOSITORY = bytewise(255)
_TAG = bytewise(128)
_NAME = bytewise(255)
_MEDIA_TYPE = bytewise(255)
_TEXT = bytewise()
_ROWID = BigInteger().with_variant(Integer, "sqlite")  # only INTEGER counts up by itself in SQLite

meta = Table(
    "meta",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("value", _TEXT, nullable=False),
)
"""Single facts: `schema`, `registry` (its name), `rules` (their generation), and `bootstrap` (SHA-256 of the one-time
token, until it is used)."""

accounts = Table(
    "accounts",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("role", bytewise(16), nullable=False),
    Column("repositories", _TEXT, nullable=False),  # what it is granted there, one grant a line (access.Grant)
    Column("secret", bytewise(64), nullable=False),  # SHA-256, hex, of 256 random bits; "" of a person
    Column("created", Moment, nullable=False),
    Column("created_by", _NAME, nullable=False),
    Column("expires", Moment),
    Column("kind", bytewise(8), nullable=False, server_default="robot"),
    Column("password", _TEXT, nullable=False, server_default=""),  # Argon2id; of a person who has set one
    Column("invitation", bytewise(64), nullable=False, server_default=""),  # SHA-256, hex, until a password is set
    Column("invited_until", Moment),
    Column("version", BigInteger, nullable=False, server_default="0"),
    Column("old_secret", bytewise(64), nullable=False, server_default=""),  # the one before, which counts until
    Column("old_until", Moment),  # this; None where there is none
)
"""Who may ask. `kind` is `robot` or `person`. `version` is another number after each change of what the account may
or is known by: a token of another version has ended."""

account_certificates = Table(
    "account_certificates",
    metadata,
    Column("certificate", bytewise(300), primary_key=True),
    Column("account", _NAME, nullable=False),
    ForeignKeyConstraint(["account"], ["accounts.name"], ondelete="CASCADE"),
)
"""Which client certificates speak for an account: `sha256:<fingerprint>`, `dns:`, `uri:`, `email:` or `cn:` a name."""
Index("account_certificates_by_account", account_certificates.c.account)

token_keys = Table(
    "token_keys",
    metadata,
    Column("id", bytewise(43), primary_key=True),  # base64url of the SHA-256 of `public`
    Column("public", LargeBinary, nullable=False),  # Ed25519, raw
    Column("made", Moment, nullable=False),
    Column("made_by", _NAME, nullable=False),
    Column("ends", Moment, nullable=False),  # of the last token that it can have signed
)
"""The public halves of the keys that tokens are signed with; the private halves are in the memory of their makers."""
Index("token_keys_by_end", token_keys.c.ends)

generations = Table(
    "generations",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("number", BigInteger, nullable=False),
)
"""How often something was changed that processes remember; `accounts`: an account was changed or removed, or token
keys were withdrawn."""

rules = Table(
    "rules",
    metadata,
    Column("pattern", _REPOSITORY, nullable=False),  # a glob over repositories, or account:<name>
    Column("kind", bytewise(16), nullable=False),
    Column("value", _TEXT, nullable=False),  # JSON, by kind (registry/rules.py)
    Column("changed", Moment, nullable=False),
    Column("changed_by", _NAME, nullable=False),
    PrimaryKeyConstraint("pattern", "kind"),
)
"""What admins set for repositories. `meta.rules` is another text after each change, so that nobody reads old ones."""

quota_usage = Table(
    "quota_usage",
    metadata,
    Column("pattern", _REPOSITORY, primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("repositories", BigInteger, nullable=False),
    Column("manifests", BigInteger, nullable=False),
    Column("tags", BigInteger, nullable=False),
)
"""How much of each quota is used: changed with what it counts, in one transaction (catalogue/usage.py)."""

repositories = Table(
    "repositories",
    metadata,
    Column("name", _REPOSITORY, primary_key=True),
    Column("created", Moment, nullable=False),
    Column("created_by", _NAME, nullable=False),
)

blobs = Table(
    "blobs",
    metadata,
    Column("digest", DigestText, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("created", Moment, nullable=False),
    Column("deleting", Moment),  # since when its bytes are being taken away; None for a blob that is there
    Column("deleting_by", bytewise(32)),  # which attempt at a run of the collector does it
)
"""Every blob in the store, once; written after the store has acknowledged it. Its bytes are deleted only after
`deleting` was set, and stored anew only after the row is gone (docs/adr/0110)."""

repository_blobs = Table(
    "repository_blobs",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", DigestText, nullable=False),
    Column("added", Moment, nullable=False),
    Column("added_by", _NAME, nullable=False),
    Column("touched", Moment),  # when it was last pushed, mounted, asked for by a pusher, or no longer needed
    PrimaryKeyConstraint("repository", "digest"),
    ForeignKeyConstraint(["repository"], ["repositories.name"]),
    ForeignKeyConstraint(["digest"], ["blobs.digest"]),
)
"""Which repository holds which blob: pushed to it, or mounted by somebody who might read the source."""
Index("repository_blobs_by_digest", repository_blobs.c.digest, repository_blobs.c.repository)

leases = Table(
    "leases",
    metadata,
    Column("digest", DigestText, nullable=False),
    Column("id", bytewise(32), nullable=False),
    Column("until", Moment, nullable=False),
    Column("why", bytewise(32), nullable=False),
    PrimaryKeyConstraint("digest", "id"),
)
"""Who is about to store the bytes of a digest; meanwhile nobody deletes them. A lease that is past its end counts until
the collector has removed it, so clocks decide nothing."""

holds = Table(
    "holds",
    metadata,
    Column("holder", _NAME, primary_key=True),
    Column("digest", DigestText, nullable=False),
    ForeignKeyConstraint(["digest"], ["blobs.digest"]),
)
"""Blobs that the registry itself holds, in no repository: `holder` says what for."""
Index("holds_by_digest", holds.c.digest)

contents = Table(
    "contents",
    metadata,
    Column("digest", DigestText, primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
"""The raw bytes of manifests, once each, whatever repositories they are in. Hashed again when they are served."""

manifests = Table(
    "manifests",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", DigestText, nullable=False),
    Column("media_type", _MEDIA_TYPE, nullable=False),
    Column("size", BigInteger, nullable=False),
    Column("kind", bytewise(8), nullable=False),
    Column("artifact_type", _MEDIA_TYPE, nullable=False, default=""),  # what the referrers API says it is
    Column("subject", DigestText),
    Column("state_of", DigestText),  # the image whose state an artifact takes
    Column("annotations", _TEXT, nullable=False, default="{}"),  # JSON, for the referrers API
    Column("pushed", Moment, nullable=False),
    Column("pushed_by", _NAME, nullable=False),
    Column("touched", Moment),  # when it was last pushed again, or a tag, an index or its subject let go of it
    PrimaryKeyConstraint("repository", "digest"),
    ForeignKeyConstraint(["repository"], ["repositories.name"]),
    ForeignKeyConstraint(["digest"], ["contents.digest"]),
    CheckConstraint("kind IN ('image', 'index', 'artifact')", name="manifest_kind"),
)
"""A manifest in a repository. `kind`: an image (its config is an image's), an index, or an artifact.

An artifact takes the state of its subject, or of the image that its tag `sha256-<hex>[.suffix]` names. Images and
indexes have a state of their own in `images`, whatever subject they name.
"""
Index("manifests_by_state_of", manifests.c.repository, manifests.c.state_of)
Index("manifests_by_subject", manifests.c.repository, manifests.c.subject, manifests.c.digest)
_TYPED: Final = text("subject IS NOT NULL")
Index(
    "manifests_by_type",
    *(manifests.c.repository, manifests.c.subject, manifests.c.artifact_type, manifests.c.digest),
    sqlite_where=_TYPED,
    postgresql_where=_TYPED,
)
_OWN: Final = text("pushed_by = 'registry' AND subject IS NOT NULL")
Index(
    "manifests_own",
    *(manifests.c.repository, manifests.c.subject, manifests.c.digest),
    sqlite_where=_OWN,
    postgresql_where=_OWN,
)
_ALONE: Final = text("kind = 'artifact' AND state_of IS NULL")
Index(
    "manifests_alone",
    *(manifests.c.repository, manifests.c.artifact_type),
    sqlite_where=_ALONE,
    postgresql_where=_ALONE,
)
Index("manifests_by_digest", manifests.c.digest, manifests.c.repository)

references = Table(
    "manifest_references",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("manifest", DigestText, nullable=False),
    Column("digest", DigestText, nullable=False),
    Column("kind", bytewise(8), nullable=False),
    PrimaryKeyConstraint("repository", "manifest", "digest", "kind"),
    ForeignKeyConstraint(["repository", "manifest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
    CheckConstraint("kind IN ('config', 'layer', 'child')", name="reference_kind"),
)
"""What a manifest reaches: its config and layers (blobs), or an index's children (manifests)."""
# With all columns, or SQLite would rather read all of a repository in the primary key, which has them.
Index("references_by_digest", references.c.repository, references.c.digest, references.c.manifest, references.c.kind)

tags = Table(
    "tags",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("tag", _TAG, nullable=False),
    Column("pushed", DigestText, nullable=False),
    Column("pushed_at", Moment, nullable=False),
    Column("pushed_by", _NAME, nullable=False),
    Column("served", DigestText),
    Column("served_at", Moment),
    Column("number", BigInteger, nullable=False, default=0),  # of the newest tag statement; never goes back
    Column("statement", LargeBinary),  # its envelope
    PrimaryKeyConstraint("repository", "tag"),
    ForeignKeyConstraint(["repository", "pushed"], ["manifests.repository", "manifests.digest"]),
)
"""The two values of a tag: pushed, and served (the last cleared one, which is what hosts get)."""
# With the manifest first, or PostgreSQL would rather find a tag in all of a repository here, since the tag's row is not
# read then.
Index("tags_by_pushed", tags.c.pushed, tags.c.repository, tags.c.tag)
Index("tags_by_served", tags.c.served, tags.c.repository, tags.c.tag)

uploads = Table(
    "uploads",
    metadata,
    Column("id", bytewise(32), primary_key=True),
    Column("repository", _REPOSITORY, nullable=False),
    Column("account", _NAME, nullable=False),
    Column("size", BigInteger, nullable=False, default=0),
    Column("digest", DigestText),
    Column("parts", _TEXT, nullable=False, default=""),
    Column("started", Moment, nullable=False),
    Column("touched", Moment, nullable=False),
    Column("holder", bytewise(32), nullable=False, default=""),  # the request that is appending, "" if none
    Column("held_until", Moment),
)
"""Upload sessions (store/interface.py, Upload). One request at a time holds one."""
Index("uploads_by_account", uploads.c.account)
Index("uploads_by_touched", uploads.c.touched)

images = Table(
    "images",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", DigestText, nullable=False),
    Column("state", bytewise(16), nullable=False),
    Column("level", _NAME, nullable=False, default=""),
    Column("parent", DigestText),
    Column("reason", _NAME, nullable=False, default=""),  # code of the first verdict against it
    Column("message", _TEXT, nullable=False, default=""),
    Column("until", Moment),  # the end of a warning or grace
    Column("decision", DigestText),
    Column("revoked_by", BigInteger, nullable=False, default=0),  # number of the list that revoked it, 0 if none
    Column("first_seen", Moment, nullable=False),
    Column("changed", Moment, nullable=False),
    Column("judged", Moment),
    PrimaryKeyConstraint("repository", "digest"),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
    CheckConstraint("state IN ('quarantined', 'cleared', 'warning', 'grace', 'denied', 'revoked')", name="image_state"),
)
"""The state of each image and index in each repository. The web inserts it as quarantined; the judge changes it."""
Index("images_by_state", images.c.state, images.c.repository, images.c.digest)
Index("images_by_digest", images.c.digest, images.c.repository)
_ON_PARENT: Final = text("parent IS NOT NULL")
Index("images_by_parent", images.c.parent, sqlite_where=_ON_PARENT, postgresql_where=_ON_PARENT)

image_keys = Table(
    "image_keys",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", DigestText, nullable=False),
    Column("key", bytewise(160), nullable=False),
    PrimaryKeyConstraint("repository", "digest", "key"),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
)
"""What identifies a judged image to statements: `config:…`, `layer:<diff_id>`, `chain:<chain ID>`."""
Index("image_keys_by_key", image_keys.c.key)

layers = Table(
    "layers",
    metadata,
    Column("digest", DigestText, primary_key=True),
    Column("reader", Integer, nullable=False),
    Column("diff_id", DigestText, nullable=False),
    Column("size", BigInteger, nullable=False),  # bytes of the uncompressed tar
    Column("compression", bytewise(8), nullable=False),  # in the words of ocispec.descriptor.COMPRESSION
    Column("read", Moment, nullable=False),
)
"""What the reader of version `reader` made of a layer blob. Refusals are not kept: they depend on the media type
that a manifest gives the blob, and whoever writes one could spoil a good layer for others."""
Index("layers_by_diff_id", layers.c.diff_id)

statements = Table(
    "statements",
    metadata,
    Column("digest", DigestText, primary_key=True),  # of the payload
    Column("type", _NAME, nullable=False),
    Column("subject", DigestText),  # the manifest or layer that it is about, if one
    Column("number", BigInteger),  # a policy's version, a list's number
    Column("envelope", LargeBinary, nullable=False),
    Column("received", Moment, nullable=False),
    Column("received_by", _NAME, nullable=False),
    Column("expires", Moment),
    Column("withdrawn", Moment),
)
"""What officers and builds signed: approvals, waivers, withdrawals, revocation lists, policies, floors."""
Index("statements_by_type", statements.c.type, statements.c.number)
Index("statements_by_subject", statements.c.subject)

statement_keys = Table(
    "statement_keys",
    metadata,
    Column("key", bytewise(160), nullable=False),
    Column("statement", DigestText, nullable=False),
    PrimaryKeyConstraint("key", "statement"),
    ForeignKeyConstraint(["statement"], ["statements.digest"], ondelete="CASCADE"),
)
"""What a statement may concern, in the words of `image_keys`; `withdraws:<statement>` for a withdrawal."""
Index("statement_keys_by_statement", statement_keys.c.statement)

trust = Table(
    "trust",
    metadata,
    Column("version", BigInteger, primary_key=True),
    Column("document", LargeBinary, nullable=False),
    Column("received", Moment, nullable=False),
    Column("received_by", _NAME, nullable=False),
)
"""Every trust.json that was accepted; the highest version counts."""

decisions = Table(
    "decisions",
    metadata,
    Column("digest", DigestText, primary_key=True),
    Column("repository", _REPOSITORY, nullable=False),
    Column("image", DigestText, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("evidence", DigestText, nullable=False),
    Column("taken", Moment, nullable=False),
)
Index("decisions_by_image", decisions.c.repository, decisions.c.image, decisions.c.taken)
Index("decisions_by_evidence", decisions.c.evidence)

clearances = Table(
    "clearances",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", DigestText, nullable=False),
    Column("envelope", LargeBinary, nullable=False),
    Column("referrer", DigestText),  # the artifact manifest that carries it
    Column("issued", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
    PrimaryKeyConstraint("repository", "digest"),
    ForeignKeyConstraint(["repository", "digest"], ["manifests.repository", "manifests.digest"], ondelete="CASCADE"),
)
"""The one current clearance (or index clearance) of each digest."""
Index("clearances_by_expiry", clearances.c.expires)

audit = Table(
    "audit",
    metadata,
    Column("seq", _ROWID, primary_key=True, autoincrement=False),
    Column("time", Moment, nullable=False),
    Column("event", bytewise(64), nullable=False),
    Column("principal", _NAME, nullable=False),
    Column("source", _NAME, nullable=False),
    Column("subject", _TEXT, nullable=False),
    Column("before", _TEXT, nullable=False),
    Column("after", _TEXT, nullable=False),
    Column("previous", bytewise(64), nullable=False),
    Column("hash", bytewise(64), nullable=False),
)
"""The hash chain of what changed; `seq` without gaps."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("seq", BigInteger, primary_key=True),
    Column("envelope", LargeBinary, nullable=False),
    Column("time", Moment, nullable=False),
)
"""The chain's hash at `seq`, signed by the registry's key."""

advisories = Table(
    "advisories",
    metadata,
    Column("digest", DigestText, primary_key=True),
    Column("kind", bytewise(16), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("date", Moment, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("imported", Moment, nullable=False),
    Column("imported_by", _NAME, nullable=False),
    Column("current", Boolean, nullable=False),
)
"""Imported advisory, exploit and end-of-life data; the records themselves are in the judge's own store."""

jobs = Table(
    "jobs",
    metadata,
    Column("id", _ROWID, primary_key=True, autoincrement=True),
    Column("kind", bytewise(32), nullable=False),
    Column("subject", _TEXT, nullable=False),
    Column("priority", Integer, nullable=False, default=0),  # higher ones first
    Column("wanted", BigInteger, nullable=False, default=1),  # rises with each request, also while it is being done
    Column("not_before", Moment, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("claimed_by", bytewise(64), nullable=False, default=""),
    Column("claimed_until", Moment),
    Column("error", _TEXT, nullable=False, default=""),
    Column("created", Moment, nullable=False),
    Column("request", bytewise(64), nullable=False, server_default=""),  # the request that wants it (telemetry.origin)
    Column("trace", bytewise(55), nullable=False, server_default=""),
    UniqueConstraint("kind", "subject", name="one_job_a_subject"),
)
"""The judge's queue: what is to be read or judged again, and when."""
Index("jobs_by_time", jobs.c.not_before)
Index("jobs_by_priority", jobs.c.priority, jobs.c.not_before, jobs.c.id)

pulls = Table(
    "pulls",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", DigestText, nullable=False),
    Column("pulled", Moment, nullable=False),
    PrimaryKeyConstraint("repository", "digest"),
)
"""When a manifest was last sent to somebody who runs or builds (an hour more or less)."""

running_reports = Table(
    "running_reports",
    metadata,
    Column("account", _NAME, primary_key=True),
    Column("reported", Moment, nullable=False),
    Column("images", Integer, nullable=False),
)
"""When each host last said what it runs."""

running = Table(
    "running",
    metadata,
    Column("account", _NAME, nullable=False),
    Column("repository", _REPOSITORY, nullable=False),
    Column("digest", DigestText, nullable=False),
    PrimaryKeyConstraint("account", "repository", "digest"),
    ForeignKeyConstraint(["account"], ["running_reports.account"], ondelete="CASCADE"),
)
"""What each host said that it runs; it counts as long as the report is not too old."""
Index("running_by_digest", running.c.digest)

collections = Table(
    "collections",
    metadata,
    Column("id", bytewise(32), primary_key=True),
    Column("requested", Moment, nullable=False),
    Column("requested_by", _NAME, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("state", bytewise(8), nullable=False),
    Column("worker", bytewise(64), nullable=False),
    Column("started", Moment),
    Column("ended", Moment),
    Column("until", Moment),  # when a run that is going on counts as dead, unless it says that it is not
    Column("report", _TEXT, nullable=False, default=""),
    Column("attempt", bytewise(32)),  # of who is at it, or was last; blobs are marked with it
    Column("attempts", Integer, nullable=False, server_default="0"),
    CheckConstraint("state IN ('waiting', 'running', 'done', 'failed')", name="collection_state"),
)
"""Runs of the collector, and what each found and freed. One goes on at a time."""
Index("collections_by_time", collections.c.requested)

collected = Table(
    "collected",
    metadata,
    Column("run", bytewise(32), nullable=False),
    Column("number", BigInteger, nullable=False),  # from 1, in the order of going
    Column("reason", bytewise(32), nullable=False),
    Column("subject", _TEXT, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("detail", _TEXT, nullable=False),
    PrimaryKeyConstraint("run", "number"),
    ForeignKeyConstraint(["run"], ["collections.id"], ondelete="CASCADE"),
)
"""What the newest runs took away (or would have), one by one, and why."""

mirrored = Table(
    "mirrored",
    metadata,
    Column("repository", _REPOSITORY, nullable=False),
    Column("reference", bytewise(136), nullable=False),  # a tag or digest
    Column("said", bytewise(8), nullable=False),
    Column("checked", Moment, nullable=False),
    Column("detail", _TEXT, nullable=False),
    PrimaryKeyConstraint("repository", "reference"),
)
"""What another registry last said of a reference that is a copy of it (catalogue/mirrored.py)."""
Index("mirrored_by_time", mirrored.c.checked)
