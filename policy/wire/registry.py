"""What a registry signs beside clearances, on the wire: dates of lists, served tags, indexes, audit checkpoints."""

from __future__ import annotations

from typing import Final

from ocispec.digest import Digest
from ocispec.manifest import MAX_CHILDREN
from ocispec.reference import check_tag
from ocispec.strictjson import JsonValue
from policy.statements import AuditCheckpoint, IndexClearance, ListDate, TagStatement
from policy.times import format_time
from policy.wire.body import Body
from policy.wire.members import Members, texts_of

LIST_DATE: Final = "urn:pratique:list-date:v1"
TAG: Final = "urn:pratique:tag:v1"
INDEX_CLEARANCE: Final = "urn:pratique:index-clearance:v1"
AUDIT_CHECKPOINT: Final = "urn:pratique:audit-checkpoint:v1"


def write_date(date: ListDate) -> Body:
    """The subject is the list's payload."""
    predicate: dict[str, JsonValue] = {
        "expires": format_time(date.expires),
        "issued": format_time(date.issued),
        "number": date.number,
    }
    return Body(name="revocation-list", digest=date.list, predicate=predicate)


def read_date(_name: str, digest: Digest, members: Members) -> ListDate:
    """The date that `write_date` wrote."""
    return ListDate(
        list=digest,
        number=members.number("number", 1),
        issued=members.time("issued"),
        expires=members.time("expires"),
    )


def write_tag(tag: TagStatement) -> Body:
    """The subject is the manifest or index that the tag serves."""
    predicate: dict[str, JsonValue] = {
        "issued": format_time(tag.issued),
        "number": tag.number,
        "registry": tag.registry,
        "repository": tag.repository,
        "tag": tag.tag,
    }
    return Body(name=f"{tag.registry}/{tag.repository}:{tag.tag}", digest=tag.digest, predicate=predicate)


def read_tag(_name: str, digest: Digest, members: Members) -> TagStatement:
    """The tag statement that `write_tag` wrote."""
    return TagStatement(
        registry=members.registry("registry"),
        repository=members.repository("repository"),
        tag=check_tag(members.text("tag", 128)),
        digest=digest,
        number=members.number("number", 1),
        issued=members.time("issued"),
    )


def write_index(clearance: IndexClearance) -> Body:
    """The subject is the index."""
    predicate: dict[str, JsonValue] = {
        "children": texts_of(clearance.children),
        "expires": format_time(clearance.expires),
        "issued": format_time(clearance.issued),
        "registry": clearance.registry,
        "repository": clearance.repository,
    }
    return Body(name=f"{clearance.registry}/{clearance.repository}", digest=clearance.index, predicate=predicate)


def read_index(_name: str, digest: Digest, members: Members) -> IndexClearance:
    """The index clearance that `write_index` wrote."""
    return IndexClearance(
        registry=members.registry("registry"),
        repository=members.repository("repository"),
        index=digest,
        children=members.digests("children", MAX_CHILDREN),
        issued=members.time("issued"),
        expires=members.time("expires"),
    )


def write_checkpoint(checkpoint: AuditCheckpoint) -> Body:
    """The subject is the newest record."""
    predicate: dict[str, JsonValue] = {
        "issued": format_time(checkpoint.issued),
        "records": checkpoint.records,
        "registry": checkpoint.registry,
    }
    return Body(name="audit-record", digest=checkpoint.head, predicate=predicate)


def read_checkpoint(_name: str, digest: Digest, members: Members) -> AuditCheckpoint:
    """The checkpoint that `write_checkpoint` wrote."""
    return AuditCheckpoint(
        registry=members.registry("registry"),
        records=members.number("records"),
        head=digest,
        issued=members.time("issued"),
    )
